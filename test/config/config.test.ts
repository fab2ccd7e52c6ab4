import { join } from 'node:path';
import test from 'ava';
import { loadReplicaConfig, loadSourceConfig, parseConfig } from '../../daemon/config/load-config.ts';
import { replicaSchema } from '../../daemon/config/replica-schema.ts';
import { sourceSchema } from '../../daemon/config/source-schema.ts';
import { formatDuration, formatSize, parseDuration, parseSize } from '../../daemon/config/units.ts';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';

const docker = join(import.meta.dirname, '../../docker');

const SOURCE = `stateDir: /var/lib/tidemark
control: { socket: /run/tidemark/control.sock }
groups:
  - name: shop
    journal: { directory: /j/shop, budget: 1GiB }
    volumes:
      - name: root
        backing: /images/root.raw
        start: seed
    listen: { unix: /run/tidemark/shop/nbd.sock }
    stream:
      direct: { replicas: [{ name: b, connect: "b:1" }] }
    replicas: [{ name: b }]
    outOfRoom: block
`;

const REPLICA = `stateDir: /var/lib/tidemark
name: b
control: { socket: /run/tidemark/control.sock }
groups:
  - name: shop
    directory: /r/shop
    history: { window: 7d }
    stream: { direct: { listen: "0.0.0.0:10810" } }
    views: { unix: /run/tidemark/views.sock }
`;

function problems(text: string, schema: typeof sourceSchema | typeof replicaSchema): string[] {
  try {
    parseConfig<unknown>(text, 'x.yaml', schema);
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    return error.message.split('\n');
  }
  return [];
}

test('the base texts of this file are valid, defaults filled in', (t) => {
  const source = parseConfig(SOURCE, 'x.yaml', sourceSchema);
  const group = source.groups[0];
  t.is(group?.journal.fileBytes, 64 * 1024 * 1024);
  t.is(group?.journal.budgetBytes, 1024 ** 3);
  t.is(group?.afterPowerLoss, 'hold');
  t.is(group?.volumes[0]?.size, null);
  t.deepEqual(group?.replicas, [{ name: 'b', required: true }]);
  const degree = { ack: 'local', ackAt: 'flush', onStall: 'degrade', stallAfterMs: 10_000 };
  t.deepEqual(group?.degree, { ...degree, unshippedBytesMax: 64 * 1024 ** 2 } as const);
  t.deepEqual(group?.stream.direct?.replicas[0]?.connect, { host: 'b', port: 1 });
  t.deepEqual(source.metrics, { listen: null, tracesEndpoint: null });
  const replica = parseConfig(REPLICA, 'x.yaml', replicaSchema);
  t.is(replica.groups[0]?.history.windowMs, 7 * 86_400_000);
  t.is(replica.groups[0]?.groupId, null);
});

/** Edits of SOURCE, and the lines that must come out, whole and in this order. */
const SOURCE_MISTAKES: [title: string, edit: (text: string) => string, expected: string[]][] = [
  [
    'unknown key with a hint',
    (text) => text.replace('        start: seed', '        siez: 1GiB\n        start: seed'),
    ['x.yaml:9:9: groups.0.volumes.0.siez: unknown key; did you mean "size"?'],
  ],
  [
    'a size without unit',
    (text) => text.replace('budget: 1GiB', 'budget: 1000'),
    ['x.yaml:5:44: groups.0.journal.budget: "1000" has no unit: write one of B, KiB, MiB, GiB, TiB, like 10GiB'],
  ],
  [
    'a decimal unit',
    (text) => text.replace('budget: 1GiB', 'budget: 10GB'),
    [
      'x.yaml:5:44: groups.0.journal.budget: "GB" is not a unit of a size: write one of B, KiB, MiB, GiB, TiB, like 10GiB',
    ],
  ],
  [
    'a missing key points at its parent',
    (text) => text.replace('    outOfRoom: block\n', ''),
    ['x.yaml:4:5: groups.0.outOfRoom: is missing (one of block, stop-protecting)'],
  ],
  [
    'a value that is none of the choices',
    (text) => text.replace('start: seed', 'start: sed'),
    ['x.yaml:9:16: groups.0.volumes.0.start: Invalid option: expected one of "empty"|"seed"'],
  ],
  [
    'a wrong type',
    (text) => text.replace('    replicas: [{ name: b }]', '    replicas: b'),
    ['x.yaml:13:15: groups.0.replicas: Invalid input: expected array, received string'],
  ],
  [
    'a duplicate key',
    (text) => text.replace('    outOfRoom: block', '    outOfRoom: block\n    outOfRoom: block'),
    ['x.yaml:15:5: Map keys must be unique'],
  ],
  [
    'broken YAML',
    (text) => `${text}  - [`,
    ['x.yaml:15:6: Flow sequence in block collection must be sufficiently indented and end with a ]'],
  ],
  [
    'a lease that no replica could rely on',
    (text) => `${text}    ack: replica\n    stallAfter: 3s\n`,
    [
      'x.yaml:16:17: groups.0.stallAfter: must be at least 4 times heartbeat: an idle far side shows once in each that it is there',
    ],
  ],
  [
    'a stall that ends before a guest could notice it',
    (text) => `${text}    ack: stream\n    stallAfter: 100ms\n    onStall: wait\n`,
    [
      'x.yaml:16:17: groups.0.stallAfter: must lie between 1s and 60s',
      'x.yaml:17:14: groups.0.onStall: Invalid option: expected one of "degrade"|"block"|"fail"',
    ],
  ],
  [
    'both of two alternatives',
    (text) => text.replace('{ unix: /run/tidemark/shop/nbd.sock }', '{ unix: /a.sock, tcp: "h:1" }'),
    ['x.yaml:10:13: groups.0.listen: give exactly one of unix, tcp: unix and tcp are given'],
  ],
  [
    'neither of two alternatives',
    (text) => text.replace(/stream:\n.*\n/, 'stream: {}\n'),
    ['x.yaml:11:13: groups.0.stream: give exactly one of direct, kafka: none is given'],
  ],
  [
    'a replica without address, an address without replica',
    (text) => text.replace('replicas: [{ name: b }]', 'replicas: [{ name: c }]'),
    [
      `x.yaml:12:36: groups.0.stream.direct.replicas.0.name: "b" is not registered: add it to the group's replicas`,
      'x.yaml:13:24: groups.0.replicas.0.name: "c" has no address: add it to stream.direct.replicas',
    ],
  ],
  [
    'every mistake, not only the first',
    (text) => text.replace('stateDir: /var', 'stateDir: var').replace('name: root', 'name: ""'),
    [
      'x.yaml:1:11: stateDir: must be an absolute path',
      'x.yaml:7:15: groups.0.volumes.0.name: must be 1 to 64 letters, digits, ".", "_" or "-", a letter or digit first',
    ],
  ],
  [
    'a budget too small for its files',
    (text) => text.replace('budget: 1GiB', 'budget: 128MiB'),
    [
      'x.yaml:5:44: groups.0.journal.budget: must hold at least 4 files of fileSize: one is written, one is drained, one is made ready, one is spare',
    ],
  ],
  [
    'one disk in two volumes',
    (text) =>
      text.replace('    listen:', '      - { name: again, backing: /images/root.raw, start: seed }\n    listen:'),
    ['x.yaml:10:33: groups.0.volumes.1.backing: /images/root.raw is already used by groups.0.volumes.0.backing'],
  ],
  ['an empty file', () => '', ['x.yaml:1:1: it is empty: this is no configuration file']],
];

for (const [title, edit, expected] of SOURCE_MISTAKES) {
  test(`source: ${title}`, (t) => {
    const text = edit(SOURCE);
    t.not(text, SOURCE, 'the edit changed nothing');
    t.deepEqual(problems(text, sourceSchema), expected);
  });
}

const KAFKA = SOURCE.replace(/direct: .*\n/, 'kafka: { brokers: ["k:9092"], topic: t }\n');

const KAFKA_MISTAKES: [title: string, settings: string, expected: RegExp][] = [
  ['no broker', 'brokers: [], topic: t', /^x\.yaml:12:25: groups\.0\.stream\.kafka\.brokers: needs at least one/],
  ['a broker without port', 'brokers: [k], topic: t', /brokers\.0: must be host:port$/],
  [
    'more in-sync replicas than replicas',
    'brokers: ["k:1"], topic: t, replicationFactor: 1',
    /minInsyncReplicas: is larger/,
  ],
  [
    'SASL without its parts',
    'brokers: ["k:1"], topic: t, sasl: { mechanism: plain }',
    /sasl\.username: is missing \(string\)$/,
  ],
  [
    'a password in the file',
    'brokers: ["k:1"], topic: t, sasl: { password: x }',
    /sasl\.password: unknown key; did you mean/,
  ],
  [
    'half a client certificate',
    'brokers: ["k:1"], topic: t, tls: { key: /k }',
    /tls: certificate and key go together: certificate is missing$/,
  ],
];

for (const [title, settings, expected] of KAFKA_MISTAKES) {
  test(`kafka: ${title}`, (t) => {
    t.deepEqual(problems(KAFKA, sourceSchema), []);
    const found = problems(KAFKA.replace(/kafka: .*\n/, `kafka: { ${settings} }\n`), sourceSchema);
    t.true(
      found.some((line) => expected.test(line)),
      found.join('\n'),
    );
  });
}

test('replica: mistakes carry their place', (t) => {
  t.deepEqual(problems(REPLICA.replace('window: 7d', 'window: 7'), replicaSchema), [
    'x.yaml:7:24: groups.0.history.window: "7" has no unit: write one of ms, s, m, h, d, like 15s',
  ]);
  t.deepEqual(problems(REPLICA.replace('directory: /r/shop', 'groupId: XYZ\n    directory: /r/shop'), replicaSchema), [
    'x.yaml:6:14: groups.0.groupId: must be 32 hex digits, as the source shows it in status',
  ]);
});

test('TLS on a unix socket and client certificates without authorities are refused', (t) => {
  const listen = (value: string): string => SOURCE.replace(/listen: .*\n/, `listen: ${value}\n`);
  t.regex(
    problems(listen('{ unix: /a, tls: { certificate: /c, key: /k } }'), sourceSchema)[0] ?? '',
    /listen\.tls: belongs to tcp/,
  );
  t.regex(
    problems(
      listen('{ tcp: "h:1", tls: { certificate: /c, key: /k, requireClientCertificate: true } }'),
      sourceSchema,
    )[0] ?? '',
    /requireClientCertificate: needs authorities/,
  );
});

for (const directory of ['examples', 'compose']) {
  test(`the files in docker/${directory} are valid`, async (t) => {
    const source = await loadSourceConfig(join(docker, directory, 'source.yaml'));
    const replica = await loadReplicaConfig(join(docker, directory, 'replica.yaml'));
    t.deepEqual(
      source.groups.map((group) => group.name),
      replica.groups.map((group) => group.name),
    );
  });
}

test('a file that is not there is named', async (t) => {
  const error = await t.throwsAsync(loadSourceConfig('/nonexistent/source.yaml'));
  t.true(hasCode(error, 'config-invalid'));
  t.regex(error?.message ?? '', /^\/nonexistent\/source\.yaml: cannot be read/);
});

test('units are exact and required', (t) => {
  t.deepEqual(parseSize('10GiB'), { ok: true, value: 10 * 1024 ** 3 });
  t.deepEqual(parseSize('1.5 KiB'), { ok: true, value: 1536 });
  t.false(parseSize('10').ok);
  t.false(parseSize('-1GiB').ok);
  t.false(parseSize('99999999TiB').ok);
  t.deepEqual(parseDuration('250ms'), { ok: true, value: 250 });
  t.false(parseDuration('abc').ok);
  t.false(parseDuration('15 m x').ok);
  t.is(formatSize(1536), '1.5 KiB');
  t.is(formatSize(512), '512 B');
  t.is(formatDuration(125_000), '2 m 5 s');
  t.is(formatDuration(40), '40 ms');
});

test('what is no configuration at all is said in one line', (t) => {
  const bomb = ['a: &a [x,x,x,x,x,x,x,x,x]', ...Array.from('bcdefghi')].map((name, index, all) =>
    index === 0
      ? name
      : `${name}: &${name} [${Array(9)
          .fill(`*${(all[index - 1] ?? '')[0]}`)
          .join(',')}]`,
  );
  for (const [text, said] of [
    ['', 'it is empty'],
    ['- a', 'it holds no keys'],
    ['\u0000\u0001\ufffd', 'control characters|it holds no keys'],
    [bomb.join('\n'), 'alias'],
    ['a: *b', 'alias'],
    ['a: b\n---\nc: d', 'a second document'],
  ] as const) {
    const found = problems(text, sourceSchema);
    t.is(found.length, 1, text.slice(0, 20));
    t.regex(found[0] ?? '', new RegExp(`^x.yaml:\\d+:\\d+: .*(${said})`, 'i'));
  }
  t.is(problems('['.repeat(5000), sourceSchema).length, 21);
});

test('one path has one use, however it is written', (t) => {
  for (const [from, to, message] of [
    ['/run/tidemark/shop/nbd.sock', '/run/tidemark/control.sock', /listen\.unix: .* already used by control\.socket/],
    ['/j/shop', '/var/lib/../lib/tidemark', /journal\.directory: \/var\/lib\/tidemark is already used by stateDir/],
    ['/images/root.raw', '/j/./shop', /backing: \/j\/shop is already used by groups\.0\.journal\.directory/],
  ] as const) {
    t.regex(problems(SOURCE.replace(from, to), sourceSchema).join('\n'), message);
  }
});
