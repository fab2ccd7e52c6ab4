/** The data of the house rules. An exception is a path (a file, or a folder with `/` at its end) and its reason. */

export type Folder = 'journal' | 'replica' | 'daemon' | 'cli' | 'test';

/** The import arrow: cli -> daemon -> replica -> journal. */
export const MAY_IMPORT: Readonly<Record<Folder, readonly Folder[]>> = {
  journal: ['journal'],
  replica: ['replica', 'journal'],
  daemon: ['daemon', 'replica', 'journal'],
  cli: ['cli', 'daemon', 'journal'],
  test: ['test', 'cli', 'daemon', 'replica', 'journal'],
};

/** What the two lowest layers may import beside `node:` and their own files, and from which folder. */
export const LOW_LAYER_PACKAGES: readonly { readonly name: string; readonly within: readonly string[] }[] = [
  { name: '@node-rs/crc32', within: ['journal/', 'replica/'] },
  { name: 'msgpackr', within: ['journal/'] },
  { name: 'koffi', within: ['journal/host/'] },
];

/** A library with one home in the product; `test/` is free. */
export const PACKAGE_HOMES: readonly { readonly name: RegExp; readonly within: string }[] = [
  { name: /^kafkajs(?:\/|$)/, within: 'daemon/stream/kafka/' },
  { name: /^@opentelemetry\//, within: 'daemon/telemetry/' },
  { name: /^(?:fastify(?:\/|$)|@fastify\/)/, within: 'daemon/control/' },
];

/** Per write there is no rxjs: these folders are, or hold, the write path. */
export const HOT_PATH: readonly string[] = [
  'journal/',
  'replica/',
  'daemon/nbd/',
  'daemon/backing/',
  'daemon/volume/',
  'daemon/ship/',
  'daemon/stream/',
  'daemon/synchrony/',
];

/** Folders that reach disk, clock and random only through `journal/host/`, so that one seed replays a run. */
export const SEAMED: readonly string[] = [
  'journal/',
  'replica/',
  'daemon/volume/',
  'daemon/ship/',
  'daemon/stream/',
  'daemon/synchrony/',
];

export const SEAM_EXCEPTIONS: Readonly<Record<string, string>> = {
  'journal/host/': 'it is the seam',
  'daemon/stream/direct/tcp-wire.ts': 'it is the seam of the network: the simulator gives other wires',
  'daemon/stream/kafka/':
    "the Kafka client owns real sockets and timers; simulated runs use the stream interface's double",
};

/** Files nobody imports because they are where a program starts. */
export const ENTRY_POINTS: readonly RegExp[] = [
  /^cli\/main\.ts$/,
  /\.test\.ts$/,
  /\.acceptance\.ts$/,
  /^test\/demo\/[^/]+\.ts$/,
  /^test\/crash\/(?:every-call|power-loss|source-program|replica-program)\.ts$/,
  /^test\/performance\/(?:bench|degrees)\.ts$/,
  /^test\/reliability\/reliability\.ts$/,
  /^test\/mutation\/mutate\.ts$/,
  /^test\/setup\/[^/]+\.ts$/,
  /^test\/golden\/[^/]+\.ts$/,
  /^test\/(?:simulation\/simulate|fuzz\/fuzz|crash\/every-call|crash\/power-loss)\.ts$/,
];

export const FILE_LINES_MAX = 400;
/** A test file is a process of its own to start, so related tests stand together. */
export const TEST_FILE_LINES_MAX = 800;
