import { readFileSync } from 'node:fs';
import type { z } from 'zod';
import { parseConfig } from '../../../daemon/config/load-config.ts';
import { replicaSchema } from '../../../daemon/config/replica-schema.ts';
import { sourceSchema } from '../../../daemon/config/source-schema.ts';
import { parseDuration, parseSize } from '../../../daemon/config/units.ts';
import * as schemas from '../../../daemon/control/control-schemas.ts';
import { formatNbdUri, parseNbdUri } from '../../../daemon/nbd/nbd-uri.ts';
import { TidemarkError } from '../../../journal/base/errors.ts';
import { chooseTarget, parseRestoreTarget } from '../../../replica/restore/restore-target.ts';
import { type FuzzTarget, must, words } from '../target.ts';

function textOf(input: Uint8Array): string {
  return Buffer.from(input).toString('utf8');
}

function texts(...all: string[]): Uint8Array[] {
  return all.map((text) => Buffer.from(text));
}

const YAML_WORDS = words(
  ': ',
  '- ',
  '{',
  '}',
  '[',
  ']',
  '"',
  "'",
  '|',
  '>',
  '&a ',
  '*a',
  '<<: *a',
  '!!binary ',
  '!!map ',
  '? ',
  '#',
  '\n  ',
  '\t',
  '---\n',
  '...\n',
  '~',
  '.nan',
  '1e999',
  '0x',
  '10GiB',
  '15s',
  'unix',
  'tcp',
  'kafka',
  'direct',
  'journal',
  'volumes',
  '__proto__',
  'constructor',
  '%YAML 1.1\n',
);

function config(name: string, file: string, schema: z.ZodType): FuzzTarget {
  return {
    name,
    testRuns: 700,
    inputBytesMax: 6000,
    allocatedBytesMax: 4 * 1024 * 1024,
    words: YAML_WORDS,
    seeds: () => [readFileSync(new URL(`../../../docker/examples/${file}`, import.meta.url))],
    run: (input) => {
      const text = textOf(input);
      try {
        parseConfig(text, 'f.yaml', schema);
      } catch (error) {
        if (error instanceof TidemarkError) {
          must(error.code === 'config-invalid', `${error.code} for a configuration`);
          must(
            error.message.split('\n').every((line) => line.length > 0),
            'every mistake has words',
          );
        }
        throw error;
      }
    },
  };
}

export const sourceConfig: FuzzTarget = config('config-source', 'source.yaml', sourceSchema);
export const replicaConfig: FuzzTarget = config('config-replica', 'replica.yaml', replicaSchema);

const BODIES: readonly z.ZodType[] = [
  schemas.bookmarkRequest,
  schemas.mountRequest,
  schemas.restoreRequest,
  schemas.dryRunRequest,
  schemas.pointsQuery,
  schemas.groupParameter,
  schemas.viewParameters,
  schemas.restoreParameters,
];

/** First byte: which request. The server reads the body as JSON, then by the schema. */
export const controlBodies: FuzzTarget = {
  name: 'control-bodies',
  testRuns: 20_000,
  words: words(
    '"',
    '{',
    '}',
    '[',
    ':',
    ',',
    '\\u0000',
    'null',
    'true',
    '1e999',
    '"at"',
    '"to"',
    '"name"',
    '"labels"',
    '"__proto__"',
    'latest',
    'nbd://',
  ),
  seeds: () =>
    [
      { name: 'before-update', note: 'n', labels: { a: 'b' } },
      { at: 'latest', volume: 'v', writable: true, name: 'x' },
      { at: '5m ago', to: '/x/y.raw', format: 'raw', overwrite: false, dryRun: true },
      { dryRun: true },
      { from: '2026-11-20T10:00:00Z', to: '2026-11-20T10:00:00+01:00', everyMs: 1000 },
      { group: 'g' },
      { group: 'g', view: 'v' },
      { group: 'g', job: '1' },
    ].map((body, i) => Buffer.concat([Buffer.from([i]), Buffer.from(JSON.stringify(body))])),
  run: (input) => {
    const schema = BODIES[(input[0] ?? 0) % BODIES.length]!;
    let body: unknown;
    try {
      body = JSON.parse(textOf(input.subarray(1)));
    } catch {
      throw new TidemarkError('invalid-argument', 'no JSON');
    }
    const parsed = schema.safeParse(body);
    if (!parsed.success) {
      must(parsed.error.issues.length > 0, 'a refusal has a reason');
      throw new TidemarkError('invalid-argument', parsed.error.issues[0]!.code + parsed.error.issues[0]!.message);
    }
    must(schema.safeParse(JSON.parse(JSON.stringify(parsed.data))).success, 'what was accepted is accepted again');
  },
};

export const nbdUri: FuzzTarget = {
  name: 'nbd-uri',
  testRuns: 40_000,
  words: words(
    'nbd://',
    'nbds://',
    'nbd+unix:///',
    'nbds+unix:///',
    '?socket=/',
    '%2F',
    '%00',
    '[::1]',
    ':10809',
    '@',
    '#',
    '\\',
    '//',
    '%',
  ),
  seeds: () =>
    texts(
      'nbd://host/disk',
      'nbds://[::1]:10810/a%20b',
      'nbd+unix:///disk?socket=/run/x.sock',
      'nbds+unix:///?socket=/a%3Fb',
      'nbd://10.0.0.1',
    ),
  run: (input) => {
    const address = parseNbdUri(textOf(input));
    must(
      JSON.stringify(parseNbdUri(formatNbdUri(address))) === JSON.stringify(address),
      `${JSON.stringify(address)} is printed as ${formatNbdUri(address)}`,
    );
  },
};

const at = (lsn: number): { lsn: number; time: number } => ({ lsn, time: 1_700_000_000_000_000 + lsn * 1000 });
const CHOICES: Parameters<typeof chooseTarget>[1] = {
  floorLsn: 10,
  headLsn: 500,
  epoch: 2,
  bookmarks: [],
  nowMicros: 1_700_000_001_000_000,
  lastAt: async (time) =>
    time < 1_700_000_000_010_000 ? undefined : at(Math.min(500, Math.floor((time - 1_700_000_000_000_000) / 1000))),
  around: async (lsn) => ({ at: at(lsn), before: at(lsn - 1), after: at(lsn + 1) }),
};

export const restoreTarget: FuzzTarget = {
  name: 'restore-target',
  testRuns: 40_000,
  words: words(
    'latest',
    'bookmark:',
    ' ago',
    '2:',
    '9007199254740992',
    '2026-',
    'T',
    'Z',
    '+01:00',
    '.123456',
    '23:59:60',
    '0000-01-01',
    '9999-12-31',
    'w',
    '1e9',
  ),
  seeds: () =>
    texts(
      'latest',
      '42',
      '2:42',
      '5m ago',
      '1.5 w ago',
      '2023-11-14T22:13:20.123Z',
      '2023-11-14 22:13+01:00',
      'before',
      'bookmark:42',
    ),
  run: async (input) => {
    const target = parseRestoreTarget(textOf(input));
    if (target.kind === 'time' || target.kind === 'ago')
      must(Number.isSafeInteger(target.micros), 'a time is a number of microseconds');
    const choice = await chooseTarget(target, CHOICES);
    must(choice.lsn >= 10 && choice.lsn <= 500, 'the choice lies in the history');
  },
};

export const units: FuzzTarget = {
  name: 'units',
  testRuns: 40_000,
  words: words('KiB', 'MiB', 'GiB', 'TiB', 'B', 'ms', 's', 'm', 'h', 'd', '.', '9007199254740993', '-', '1e3'),
  seeds: () => texts('10GiB', '1.5TiB', '512B', '15s', '250ms', '7d'),
  run: (input) => {
    for (const parse of [parseSize, parseDuration]) {
      const quantity = parse(textOf(input));
      if (quantity.ok)
        must(Number.isSafeInteger(quantity.value) && quantity.value >= 0, 'a quantity is a whole number');
      else must(quantity.problem !== '', 'a refusal has a reason');
    }
    throw new TidemarkError(
      'invalid-argument',
      `size ${parseSize(textOf(input)).ok}, duration ${parseDuration(textOf(input)).ok}`,
    );
  },
};
