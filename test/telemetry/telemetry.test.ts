import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import test from 'ava';
import pino from 'pino';
import { statusText } from '../../cli/commands/status.ts';
import type { ReplicaGroupReply, SourceGroupReply, StatusReply } from '../../daemon/control/control-api.ts';
import { unknownReplicaGroup } from '../../daemon/replica/unknown-group.ts';
import { AlarmCommand } from '../../daemon/telemetry/alarm-command.ts';
import { replicaConditions, sourceConditions } from '../../daemon/telemetry/alarm-conditions.ts';
import { type AlarmChange, AlarmRegistry } from '../../daemon/telemetry/alarms.ts';
import { METRICS } from '../../daemon/telemetry/metric-definitions.ts';
import { startTelemetry } from '../../daemon/telemetry/open-telemetry.ts';

const RATE = { bytesPerSecond: 2, budgetSeconds: 50, leftSeconds: 7200 };

const GROUP: SourceGroupReply = {
  name: 'shop',
  groupId: 'a'.repeat(32),
  state: 'protecting',
  reason: '',
  code: null,
  ageSeconds: 0.1,
  epoch: 1,
  incarnation: 3,
  head: { durableLsn: 9, unsyncedRecords: 1, checkpointLsn: 8 },
  journal: { directory: '/j', usedBytes: 10, budgetBytes: 100, oldestLsn: 1, ...RATE },
  overlay: { bytes: 1, bytesMax: 2 },
  volumes: [
    {
      name: 'root',
      id: 1,
      sizeBytes: 4096,
      backing: '/x',
      state: 'serving',
      seed: null,
      uri: 'nbd+unix:///root?socket=/s',
      traffic: { reads: 1, readBytes: 2, writes: 3, writeBytes: 4, flushes: 5 },
    },
  ],
  listen: '/s',
  clients: 1,
  rpo: [{ windowSeconds: 60, p50Seconds: 0.4, p99Seconds: null, covered: 0.5 }],
  degree: null,
  stream: { kind: 'direct', state: 'streaming', reason: '', code: null },
  topic: null,
  replicas: [
    {
      name: 'b',
      required: true,
      state: 'receiving',
      reason: '',
      durableLsn: 9,
      lag: { records: 1, bytes: null, seconds: null },
      stoodStillSeconds: 14.9,
    },
  ],
  backlog: { records: 1, bytes: null, seconds: null },
  counters: { journalSyncs: 1, journalSyncSeconds: 0.5, framesSealed: 1, framePlainBytes: 2, frameStoredBytes: 1 },
  notes: [],
};

function status(groups: SourceGroupReply[], alarms: StatusReply['alarms'] = []): StatusReply {
  const now = '2026-11-20T10:00:01.000000Z';
  return { role: 'source', daemon: { version: '0', pid: 1, startedAt: now, now, ready: true }, groups, alarms };
}

test('the endpoint serves what is known and leaves out what is not', async (t) => {
  const listen = { host: '127.0.0.1', port: 0 };
  const telemetry = await startTelemetry({ listen, tracesEndpoint: null }, '0', () => status([GROUP]));
  try {
    const text = await (await fetch(telemetry.metricsUrl ?? '')).text();
    t.regex(text, /^tidemark_head_lsn\{group="shop"\} 9$/m);
    t.regex(text, /^tidemark_volume_writes_total\{group="shop",volume="root"\} 3$/m);
    t.regex(text, /^tidemark_replica_lag_records\{group="shop",replica="b"\} 1$/m);
    t.notRegex(text, /^tidemark_replica_lag_seconds\{/m);
    t.regex(text, /^tidemark_rpo_seconds\{group="shop",window="60s",quantile="0.5"\} 0.4$/m);
    t.notRegex(text, /quantile="0.99"/);
    t.notRegex(text, /target_info/);
    t.is((await fetch((telemetry.metricsUrl ?? '').replace('/metrics', '/other'))).status, 404);
    t.is(await telemetry.trace('test', {}, () => Promise.resolve(7)), 7);
    await t.throwsAsync(
      telemetry.trace('test', {}, () => Promise.reject(new Error('x'))),
      { message: 'x' },
    );
  } finally {
    await telemetry.close();
  }
});

test('docs/metrics.md lists every metric and no other', (t) => {
  const page = readFileSync(join(import.meta.dirname, '../../docs/metrics.md'), 'utf8');
  const listed = [...page.matchAll(/^\| `(\w+)` \| (\w+) \| [^|]* \| (.*) \|$/gm)].map((match) => match.slice(1));
  t.deepEqual(
    listed,
    METRICS.map((metric) => [metric.name, metric.kind, metric.help]),
  );
  for (const { name } of METRICS) t.regex(name, /^tidemark_[a-z_]+$/);
});

test('a status says what is wrong, each thing once', (t) => {
  t.deepEqual(sourceConditions([GROUP]), []);
  const bad: SourceGroupReply = {
    ...GROUP,
    state: 'blocked',
    reason: 'the journal is full',
    journal: { directory: '/j', usedBytes: 96, budgetBytes: 100, oldestLsn: 1, ...RATE },
    stream: { kind: 'direct', state: 'retrying', reason: 'connection refused', code: 'stream-unavailable' },
    replicas: [
      {
        ...GROUP.replicas[0],
        stoodStillSeconds: 15,
        name: 'b',
        required: true,
        state: 'replica-full',
        reason: 'reserve',
        durableLsn: 1,
        lag: GROUP.backlog,
      },
    ],
  };
  t.deepEqual(
    sourceConditions([bad]).map(({ code, subject }) => [code, subject]),
    [
      ['group-blocked', ''],
      ['stream-away', ''],
      ['journal-space', ''],
      ['replica-stalled', 'b'],
      ['replica-full', 'b'],
    ],
  );
});

test('a replica whose stream lost frames does not look well', (t) => {
  const well: ReplicaGroupReply = { ...unknownReplicaGroup('shop', 'kafka'), state: 'receiving' };
  t.deepEqual(replicaConditions([well]), []);
  const missing: ReplicaGroupReply = { ...well, state: 'behind', code: 'gap', reason: 'the stream lost frames' };
  t.deepEqual(
    replicaConditions([missing]).map(({ code, group }) => [code, group]),
    [['frames-lost', 'shop']],
  );
});

test('a topic that nears its cap is an alarm at 50, 80 and 95 %; an unknown fill is none, and shown as unknown', (t) => {
  const filled = (usedBytes: number | null, estimated = false): SourceGroupReply => ({
    ...GROUP,
    topic: { capBytes: 1000, usedBytes, estimated },
  });
  const told = (group: SourceGroupReply): string[] =>
    sourceConditions([group]).map(({ code, message }) => `${code} ${message}`);
  t.deepEqual(
    [null, 0, 499].flatMap((used) => told(filled(used))),
    [],
  );
  t.deepEqual(
    [500, 800, 950, 5000].flatMap((used) => told(filled(used))),
    [50, 80, 95, 95].map((step) => `topic-space the topic is more than ${step} % full of its cap`),
  );
  t.deepEqual(told(filled(960, true)), [
    'topic-space the topic is more than 95 % full of its cap, as estimated from what was sent',
  ]);
  t.regex(statusText(status([filled(960)])), /topic: 960 B of its cap of 1000 B used/);
  t.regex(statusText(status([filled(960, true)])), /topic: about 960 B of its cap/);
  t.regex(statusText(status([filled(null)])), /topic: unknown of its cap/);
  const metric = (name: string, group: SourceGroupReply): unknown =>
    METRICS.find((one) => one.name === name)?.read(status([group]));
  t.deepEqual(metric('tidemark_topic_used_bytes', filled(960)), [{ value: 960, labels: { group: 'shop' } }]);
  t.deepEqual(metric('tidemark_topic_used_bytes', filled(null)), []);
  t.deepEqual(metric('tidemark_topic_cap_bytes', filled(null)), [{ value: 1000, labels: { group: 'shop' } }]);
});

test('an alarm is raised once, keeps its time, and is cleared', (t) => {
  const changes: AlarmChange[] = [];
  let clock = 0;
  const registry = new AlarmRegistry(
    (change) => changes.push(change),
    () => `t${(clock += 1)}`,
  );
  const away = { code: 'stream-away', group: 'shop', subject: '', message: 'refused' } as const;
  registry.update([away]);
  registry.update([{ ...away, message: 'refused again' }]);
  t.is(changes.length, 1);
  t.is(registry.standing[0]?.since, 't1');
  t.is(registry.standing[0]?.message, 'refused again');
  t.is(registry.standing[0]?.severity, 'warning');
  registry.update([]);
  t.deepEqual(
    changes.map(({ change, alarm }) => [change, alarm.code]),
    [
      ['raised', 'stream-away'],
      ['cleared', 'stream-away'],
    ],
  );
});

test('the alarm command gets the change as JSON; one that fails or hangs is reported and ended', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-alarm-'));
  try {
    const lines: string[] = [];
    const log = pino({ level: 'info' }, { write: (line: string) => lines.push(line) });
    const alarm = {
      code: 'stream-away',
      severity: 'warning',
      group: 'g',
      subject: '',
      message: 'm',
      since: 's',
    } as const;
    const script = join(directory, 'hook');
    writeFileSync(script, `#!/bin/sh\ncat >> ${join(directory, 'out')}\n`);
    chmodSync(script, 0o755);
    const good = new AlarmCommand([script], log);
    good.run({ change: 'raised', alarm });
    good.run({ change: 'cleared', alarm });
    await good.idle();
    const written = readFileSync(join(directory, 'out'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as object);
    t.deepEqual(written, [
      { change: 'raised', ...alarm },
      { change: 'cleared', ...alarm },
    ]);
    t.deepEqual(lines, []);
    for (const argv of [['/bin/false'], ['/nonexistent/hook'], ['/bin/sleep', '60']]) {
      const bad = new AlarmCommand(argv, log, 100);
      bad.run({ change: 'raised', alarm });
      await bad.idle();
    }
    const messages = lines.map((line) => (JSON.parse(line) as { msg: string }).msg);
    t.is(messages.length, 3);
    t.regex(messages[0] ?? '', /ended with 1/);
    t.regex(messages[1] ?? '', /cannot be started/);
    t.regex(messages[2] ?? '', /longer than 100 ms/);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

test('the tables of a group stand below it, each cell under its title', (t) => {
  const lines = statusText(status([GROUP]))
    .split('\n')
    .map((line) => stripVTControlCharacters(line));
  for (const [title, name] of [
    ['VOLUME', 'root'],
    ['REPLICA', 'b'],
  ] as const) {
    const at = lines.findIndex((line) => line.trimStart().startsWith(title));
    t.is(lines[at]?.indexOf(title), lines[at + 1]?.indexOf(name));
    t.is(lines[at]?.indexOf('STATE'), lines[at + 1]?.search(/serving|receiving/));
  }
});

test('a backlog warns at 50, 80 and 95 % of the budget, and says how long the rest lasts; one that is not known does not', (t) => {
  const told = (backlogBytes: number | null): string[] =>
    sourceConditions([{ ...GROUP, backlog: { ...GROUP.backlog, bytes: backlogBytes } }]).map(({ message }) => message);
  const left = '; at the present rate it lasts for 2 h more';
  t.deepEqual([null, 0, 49].flatMap(told), []);
  t.deepEqual([50, 79, 80, 95].flatMap(told), [
    `more than 50 % of the budget is backlog${left}`,
    `more than 50 % of the budget is backlog${left}`,
    `more than 80 % of the budget is backlog${left}`,
    `more than 95 % of the budget is backlog${left}`,
  ]);
  t.regex(
    stripVTControlCharacters(statusText(status([GROUP]))),
    /at 2 B\/s the budget of 100 B holds an outage of 50 s, 2 h of it left/,
  );
});
