import test from 'ava';
import { AppendRate } from '../../daemon/source/append-rate.ts';
import { type SourceFacts, sourceGroupReply } from '../../daemon/source/source-status.ts';
import { LOCAL_POLICY } from '../../daemon/synchrony/degree-policy.ts';
import type { DegreeStatus } from '../../daemon/synchrony/degree-status.ts';
import { sourceConditions } from '../../daemon/telemetry/alarm-conditions.ts';

const UNKNOWN = { records: null, bytes: null, seconds: null };

const DEGREE: DegreeStatus = {
  policy: LOCAL_POLICY,
  configured: LOCAL_POLICY,
  next: undefined,
  state: 'off',
  reason: 'start of the source',
  sinceLsn: 0,
  holds: null,
  brokenFromLsn: 0,
  stretches: [],
  waiting: 0,
  heldBack: 0,
  unshippedBytes: null,
  unshippedBytesBound: null,
};

/** Only what the reply is made of: 9999 is in the page cache, 7001 is durable. */
const FACTS = {
  config: { name: 'shop', journal: { directory: '/j' }, volumes: [], listen: { tcp: null }, stream: { kafka: null } },
  groupId: 'ab'.repeat(16),
  journal: { epoch: 1, incarnation: { counter: 3, nonce: '0'.repeat(16) }, oldestLsn: 1 },
  group: {
    state: 'protecting',
    headLsn: 9999,
    durableLsn: 7001,
    checkpointLsn: 6000,
    volumes: [],
    clientsHeldBack: 0,
    heldForRoom: false,
    remoteHeld: false,
    degree: DEGREE,
  },
  ship: {
    state: 'retrying',
    reason: 'nobody answers',
    code: 'stream-unavailable',
    replicas: [{ name: 'dr1', required: true, state: 'unknown', reason: '', lag: UNKNOWN, durableLsn: null }],
    backlog: UNKNOWN,
    topic: { capBytes: 9000, usedBytes: 4500, estimated: false },
    unregistered: ['dr9'],
  },
  exports: new Map(),
  uriOf: () => '',
  listen: '/s',
  clients: 0,
  notes: [],
  counters: {},
  bytesPerSecond: null,
  nowMicros: Date.parse('2026-11-21T13:20:30Z') * 1000,
} as unknown as SourceFacts;

test('no position above the durable one is told, only how many records are not durable yet', (t) => {
  const reply = sourceGroupReply(FACTS);
  t.like(reply.head, { durableLsn: 7001, unsyncedRecords: 2998, checkpointLsn: 6000 });
  t.false(JSON.stringify(reply).includes('9999'));
});

test('what nobody measured is unknown, never 0, and an unregistered reader is named', (t) => {
  const reply = sourceGroupReply(FACTS);
  t.deepEqual(reply.backlog, UNKNOWN);
  t.like(reply.replicas[0], { state: 'unknown', durableLsn: null, lag: UNKNOWN });
  t.regex(reply.notes.join('\n'), /dr9 reads the stream without being registered: nothing is kept for it/);
});

test('how full a capped topic is stands in the reply', (t) => {
  t.deepEqual(sourceGroupReply(FACTS).topic, { capBytes: 9000, usedBytes: 4500, estimated: false });
});

/** A stream that is connected, and one required replica as given. */
function withReplica(replica: object): SourceFacts {
  const lag = { records: 4000, bytes: 1e7, seconds: 1 };
  const base = {
    name: 'dr1',
    required: true,
    state: 'receiving',
    reason: '',
    durableLsn: 3000,
    heardSecondsAgo: 0.4,
    lag,
  };
  const ship = { ...FACTS.ship, state: 'streaming', reason: '', code: null, replicas: [{ ...base, ...replica }] };
  const group = { ...FACTS.group, volumes: [{ name: 'root', overlayBytes: 0 }] };
  return { ...FACTS, group, ship } as unknown as SourceFacts;
}

test('a required replica that is silent on a connected stream makes the group behind, and is named with the moment', (t) => {
  const told = (replica: object): [string, string] => {
    const { state, reason } = sourceGroupReply(withReplica(replica));
    return [state, reason];
  };
  t.deepEqual(told({}), ['protecting', '']);
  t.deepEqual(told({ heardSecondsAgo: 4.9 }), ['protecting', '']);
  t.deepEqual(told({ heardSecondsAgo: 25.2 }), ['behind', 'replica dr1 has not been heard since 2026-11-21T13:20:05Z']);
  t.deepEqual(told({ heardSecondsAgo: 25.2, required: false }), ['protecting', '']);
  t.deepEqual(told({ heardSecondsAgo: 25.2, lag: { records: 0, bytes: 0, seconds: 0 } }), ['protecting', '']);
  t.deepEqual(told({ durableLsn: null, heardSecondsAgo: null }), [
    'behind',
    'replica dr1 has not been heard since the start',
  ]);
  t.deepEqual(told({ state: 'replica-full', reason: 'no room' }), ['behind', 'replica dr1 is replica-full: no room']);
  t.deepEqual(told({ lag: { records: 9, bytes: 9, seconds: 30 } }), [
    'behind',
    'replica dr1 holds what was written before 2026-11-21T13:20:00Z and receives the rest',
  ]);
});

test('what answers wait for is said in words, for direct called what it is, and a promise that is not kept is an alarm', (t) => {
  const reply = (degree: Partial<DegreeStatus>, kafka: object | null = null) => {
    const config = { ...FACTS.config, stream: { direct: null, kafka } } as unknown as SourceFacts['config'];
    const volumes = [{ name: 'a', state: 'open' }] as unknown as SourceFacts['group']['volumes'];
    return sourceGroupReply({ ...FACTS, config, group: { ...FACTS.group, volumes, degree: { ...DEGREE, ...degree } } });
  };
  const codes = (degree: Partial<DegreeStatus>): string[] => sourceConditions([reply(degree)]).map(({ code }) => code);
  const stream = { ...LOCAL_POLICY, ack: 'stream' } as const;
  t.is(reply({ policy: stream }).degree?.meaning, "received by the replica's process, not yet durable there");
  t.regex(reply({ policy: stream }, {}).degree?.meaning ?? '', /all in-sync brokers: in their page cache/);
  t.like(reply({}).degree, { next: null, holds: null, brokenFromLsn: null, unshippedBytesBound: null });
  t.like(reply({ brokenFromLsn: 7, unshippedBytesBound: 0 }).degree, { brokenFromLsn: 7, unshippedBytesBound: null });
  t.true(codes({ policy: stream, state: 'degraded', holds: false, brokenFromLsn: 7 }).includes('degraded'));
  for (const state of ['blocked', 'failing'] as const) {
    t.like(reply({ policy: stream, state }), { state: 'blocked', code: 'timed-out' });
    t.deepEqual(
      codes({ policy: stream, state }).filter((code) => code === 'far-side-stalled' || code === 'group-blocked'),
      ['far-side-stalled'],
    );
  }
  t.false(codes({ policy: stream, state: 'in-sync', holds: true }).includes('degraded'));
});

test('a group whose guests wait for room in the journal is blocked, however much of a large budget is left; memory is no reason', (t) => {
  const facts = withReplica({});
  const state = (group: object): string =>
    sourceGroupReply({ ...facts, group: { ...facts.group, journalFreeBytes: 2 ** 32, ...group } }).state;
  t.is(state({ clientsHeldBack: 2, heldForRoom: true }), 'blocked');
  t.is(state({ clientsHeldBack: 2, heldForRoom: true, state: 'seeding' }), 'blocked', 'other volumes have guests');
  t.is(state({ state: 'seeding' }), 'seeding');
  t.is(state({ clientsHeldBack: 2, heldForRoom: false }), 'protecting');
});

test('guests that wait for room are told beside a worse state', (t) => {
  const facts = withReplica({});
  const told = (group: object): [string, string[]] => {
    const all = { ...facts.group, destage: { state: 'retrying', reason: 'EIO' }, ...group };
    const ship = { ...facts.ship, topic: null };
    const reply = sourceGroupReply({ ...facts, ship, group: all } as unknown as SourceFacts);
    return [reply.state, sourceConditions([reply]).map(({ code }) => code)];
  };
  const failed = { state: 'backing-failed', reason: 'EIO' };
  t.deepEqual(told(failed), ['backing-failed', ['backing-failed']]);
  t.deepEqual(told({ ...failed, heldForRoom: true }), ['backing-failed', ['backing-failed', 'group-blocked']]);
  t.deepEqual(told({ state: 'unprotected', heldForRoom: true }), ['unprotected', ['unprotected', 'group-blocked']]);
  t.deepEqual(told({ heldForRoom: true }), ['blocked', ['group-blocked']], 'once');
});

test('the budget in time is the budget at the rate of the last minute; unknown before it is measured', (t) => {
  const config = { ...FACTS.config, journal: { ...FACTS.config.journal, budgetBytes: 8_000 } };
  const ship = { ...FACTS.ship, backlog: { records: 1, bytes: 2_000, seconds: 1 } };
  const times = (facts: Partial<SourceFacts>) => sourceGroupReply({ ...FACTS, config, ship, ...facts }).journal;
  t.like(times({ bytesPerSecond: null }), { bytesPerSecond: null, budgetSeconds: null, leftSeconds: null });
  t.like(times({ bytesPerSecond: 0 }), { budgetSeconds: null, leftSeconds: null });
  t.like(times({ bytesPerSecond: 4 }), { budgetSeconds: 2_000, leftSeconds: 1_500 });
  t.like(times({ bytesPerSecond: 4, ship: FACTS.ship }), { budgetSeconds: 2_000, leftSeconds: null });
  const rate = new AppendRate();
  t.is(rate.bytesPerSecond, null);
  rate.note(0, 1_000);
  t.is(rate.bytesPerSecond, null, 'one moment says nothing');
  rate.note(900, 1_900);
  for (let second = 1; second <= 100; second++) rate.note(second * 1_000, 1_000 + 500 * second);
  t.is(rate.bytesPerSecond, 500);
  for (let second = 101; second <= 161; second++) rate.note(second * 1_000, 51_000);
  t.is(rate.bytesPerSecond, 0, 'what was before the last minute is forgotten');
});
