import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import test, { type ExecutionContext } from 'ava';
import { TidemarkError } from '../../journal/base/errors.ts';
import { chainString } from '../../journal/chain.ts';
import type { SealedFrame } from '../../journal/frame-sealer.ts';
import { RecordKind } from '../../journal/record.ts';
import { encodeHeartbeat } from '../../journal/record-bodies.ts';
import { RECEIVER_DEFAULTS, type ReceiverOptions } from '../../replica/receive/receiver-parts.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../replica/replica-group.ts';
import { HandSource, History, START, seal } from './support/history.ts';
import { type MemoryHost, memoryHost } from './support/memory-host.ts';

/** Each test has a group of its own: the channels tell of all that run at once. */
const groupOf = (seed: number): string => seed.toString(16).padStart(32, '0');

interface AtHand {
  readonly host: MemoryHost;
  readonly group: ReplicaGroup;
  readonly source: HandSource;
  readonly frames: SealedFrame[];
  readonly history: History;
}

async function begun(seed: number, receiver: Partial<ReceiverOptions> = {}, host = memoryHost(seed)): Promise<AtHand> {
  const history = new History(seed);
  history.addVolumes();
  history.push(RecordKind.heartbeat, { payload: encodeHeartbeat({ monotonicMs: 4711, wallMicros: 1 }) });
  // nothing else tells the time
  while (history.records.length < 100) {
    history.push(RecordKind.trim, { volume: 1, sector: history.records.length, sectors: 1 });
  }
  const group = await ReplicaGroup.open(host, {
    ...REPLICA_DEFAULTS,
    directory: '/replica',
    groupId: groupOf(seed),
    replica: 'r1',
    reserveBytes: 0,
    segmentBytes: 1024 * 1024,
    receiver: { ...RECEIVER_DEFAULTS, ...receiver },
  });
  const source = new HandSource();
  group.start(source);
  return { host, group, source, history, frames: seal(history, { groupId: groupOf(seed), recordsPerFrame: () => 10 }) };
}

/** What the channel tells of the group of this seed. */
function heard(t: ExecutionContext, name: string, seed: number): Record<string, unknown>[] {
  const told: Record<string, unknown>[] = [];
  const listen = (payload: unknown): void => {
    const one = payload as Record<string, unknown>;
    if (one['group'] === groupOf(seed)) told.push(one);
  };
  subscribe(name, listen);
  t.teardown(() => unsubscribe(name, listen));
  return told;
}

test('a replica tells the source what it holds: at the start, after a sync, and when its time has come', async (t) => {
  const { host, group, source, frames } = await begun(1);
  t.like(source.start, { replica: 'r1', groupId: groupOf(1), durableLsn: 0, resumeOffset: '', frameVersion: 1 });
  t.is(source.feedbacks.length, 1);
  t.like(source.last, { replica: 'r1', groupId: groupOf(1), durableLsn: 0, state: 'receiving', heartbeatMs: 0 });
  const [first, second] = frames as [SealedFrame, SealedFrame];
  source.push(first, 'offset 1');
  await group.idle();
  t.is(source.feedbacks.length, 1, 'not before its time');
  host.clock.advance(249);
  t.is(source.feedbacks.length, 1);
  host.clock.advance(1);
  t.deepEqual(source.last, {
    replica: 'r1',
    groupId: groupOf(1),
    epoch: 1,
    incarnation: START.counter,
    durableLsn: 10,
    chain: chainString(first.chainAfter),
    state: 'receiving',
    reason: '',
    missingFrom: 0,
    heartbeatMs: 0,
    resumeOffset: 'offset 1',
  });
  source.push(second, 'offset 2');
  await group.idle();
  host.clock.advance(250);
  t.like(source.last, { durableLsn: 20, heartbeatMs: 4711, resumeOffset: 'offset 2' });
  const { receiver } = await group.status();
  t.like(receiver, {
    state: 'receiving',
    headLsn: 20,
    missingFrom: 0,
    earlyFrames: 0,
    queuedBytes: 0,
    duplicates: 0,
    rejected: 0,
    lastRejection: '',
  });
  t.like(receiver.durable, { durableLsn: 20, epoch: 1, incarnation: START, heartbeatMs: 4711 });
  source.push(first, 'offset 3');
  await group.idle();
  host.clock.advance(250);
  t.like(source.last, { durableLsn: 20, resumeOffset: 'offset 3' }, 'a repeat moves the stream on');
  t.is((await group.status()).receiver.duplicates, 1);
  source.push(second, '');
  await group.idle();
  host.clock.advance(250);
  t.is((await group.status()).receiver.durable.resumeOffset, 'offset 3', 'a stream without offsets');
  await group.close();
});

test('a later start of the source takes over, an epoch never goes back, an offset stays while frames wait', async (t) => {
  const { host, group, source, history } = await begun(2);
  const later = { counter: 5, nonce: '5'.repeat(16) };
  const [first] = seal(history, { groupId: groupOf(2), toLsn: 10, epoch: 3, recordsPerFrame: () => 10 });
  source.push(first!, 'a');
  await group.idle();
  t.like((await group.status()).receiver.durable, { epoch: 3, incarnation: START });
  const rest = seal(history, {
    groupId: groupOf(2),
    fromLsn: 11,
    toLsn: 40,
    epoch: 4,
    incarnation: later,
    recordsPerFrame: () => 10,
  });
  const [second, third, fourth] = rest as [SealedFrame, SealedFrame, SealedFrame];
  source.push(third, 'c');
  source.push(fourth, 'd');
  await group.idle();
  t.like((await group.status()).receiver, { earlyFrames: 2, missingFrom: 11, headLsn: 10 });
  t.is(source.last?.missingFrom, 11, 'told at once');
  t.is(source.last?.resumeOffset, 'a');
  const sent = source.feedbacks.length;
  source.push(fourth, 'e');
  await group.idle();
  t.is(source.feedbacks.length, sent, 'what is missing is told once');
  source.push(second, 'b');
  await group.idle();
  host.clock.advance(250);
  t.like((await group.status()).receiver, { earlyFrames: 0, missingFrom: 0, headLsn: 40 });
  t.like(source.last, { epoch: 4, incarnation: 5, durableLsn: 40 });
  t.like((await group.status()).receiver.durable.incarnation, later);
  await group.close();
});

test('of two gaps the first is told, then the second', async (t) => {
  const { group, source, frames } = await begun(3);
  for (const i of [0, 2, 4]) source.push(frames[i]!, String(i));
  await group.idle();
  t.is((await group.status()).receiver.missingFrom, 11);
  source.push(frames[1]!, '1');
  await group.idle();
  t.like((await group.status()).receiver, { missingFrom: 31, earlyFrames: 1, headLsn: 30 });
  source.push(frames[3]!, '3');
  await group.idle();
  t.like((await group.status()).receiver, { missingFrom: 0, earlyFrames: 0, headLsn: 50 });
  await group.close();
});

test('a stream that lost frames is told of until one comes that goes on', async (t) => {
  const { group, source, frames } = await begun(4);
  source.push(frames[0]!);
  await group.idle();
  source.events?.onLost('truncated', '77');
  t.like(source.last, { state: 'receiving', missingFrom: 11, reason: 'the stream lost frames: truncated' });
  t.is((await group.status()).receiver.lost, 'truncated');
  const sent = source.feedbacks.length;
  source.events?.onLost('again', '77');
  t.is(source.feedbacks.length, sent + 1);
  source.push(frames[1]!);
  await group.idle();
  t.like((await group.status()).receiver, { lost: '', missingFrom: 0, reason: '' });
  await group.close();
});

test('a group is synced when nothing more waits, and in between by its bytes', async (t) => {
  const told = heard(t, 'tidemark:replica:sync', 5);
  const { group, source, frames } = await begun(5, { syncBytes: 1 });
  for (const frame of frames) source.push(frame);
  await group.idle();
  const sums = told.reduce<{ frames: number; bytes: number }>(
    (sum, one) => ({ frames: sum.frames + Number(one['frames']), bytes: sum.bytes + Number(one['bytes']) }),
    { frames: 0, bytes: 0 },
  );
  t.deepEqual(sums, { frames: 10, bytes: frames.reduce((sum, { bytes }) => sum + bytes.length, 0) });
  t.true(told.length >= 2, `${told.length} syncs`);
  t.is(told.at(-1)?.['durableLsn'], 100);
  await group.close();
  const once = heard(t, 'tidemark:replica:sync', 6);
  const other = await begun(6);
  for (const frame of other.frames) other.source.push(frame);
  await other.group.idle();
  t.is(once.length, 1, 'one for all that came together');
  t.like(once[0], { frames: 10, durableLsn: 100, durationMs: 0 });
  other.host.disk.syncOf = (path) => {
    if (path.endsWith('.seg')) other.host.clock.advance(30);
    return undefined;
  };
  for (const lsn of [101, 102]) other.history.push(RecordKind.trim, { volume: 1, sector: lsn, sectors: 1 });
  for (const frame of seal(other.history, { groupId: groupOf(6), fromLsn: 101 })) other.source.push(frame);
  await other.group.idle();
  t.like(once.at(-1), { durableLsn: 102, durationMs: 30 });
  await other.group.close();
});

test('a stream is paused above the bound of what waits, and goes on below it', async (t) => {
  const { group, source, frames } = await begun(7, { queueBytesMax: 0 });
  source.push(frames[0]!);
  t.true(source.paused, 'a frame waits');
  await group.idle();
  t.false(source.paused);
  await group.close();
  const length = frames[0]?.bytes.length ?? 0;
  const exact = await begun(7, { queueBytesMax: length });
  exact.source.push(exact.frames[0]!);
  t.false(exact.source.paused, 'exactly the bound');
  exact.source.push(exact.frames[1]!);
  t.true(exact.source.paused);
  t.is((await exact.group.status()).receiver.queuedBytes > 0, true);
  await exact.group.idle();
  t.false(exact.source.paused);
  t.is((await exact.group.status()).receiver.queuedBytes, 0);
  await exact.group.close();
});

for (const [what, path, code] of [
  ['a write', 'write', 'device-failed'],
  ['a short write of the medium', 'write', 'short-write'],
  ['a sync', 'sync', 'sync-failed'],
] as const) {
  test(`${what} that fails (${code}) stops a replica: nothing more is taken, acknowledged or lost`, async (t) => {
    const host = memoryHost(8);
    let failing = false;
    const open = host.disk.open.bind(host.disk);
    host.disk.open = (name, mode) => {
      const file = open(name, mode);
      if (!name.endsWith('.seg')) return file;
      const { write, dataSync } = { write: file.write.bind(file), dataSync: file.dataSync.bind(file) };
      const refused = (): Promise<never> => Promise.reject(new TidemarkError(code, 'injected'));
      file.write = (...args) => (failing && path === 'write' ? refused() : write(...args));
      file.dataSync = () => (failing && path === 'sync' ? refused() : dataSync());
      return file;
    };
    const halted = heard(t, 'tidemark:replica:halted', 8);
    const { group, source, frames, history } = await begun(8, {}, host);
    source.push(frames[0]!);
    await group.idle();
    failing = true;
    source.push(frames[1]!);
    source.push(frames[2]!);
    await group.idle();
    t.like(source.last, { state: 'stopped', reason: `${code}: injected`, durableLsn: 10 });
    t.true(halted.some(({ state, reason }) => state === 'stopped' && reason === `${code}: injected`));
    t.true(source.paused);
    failing = false;
    source.push(frames[1]!);
    await group.idle();
    host.clock.advance(10_000);
    await group.idle();
    t.like((await group.status()).receiver, { state: 'stopped', queuedBytes: 0, earlyFrames: 0 });
    t.is(source.last?.durableLsn, 10);
    await group.close();
    const again = await begun(8, {}, memoryHost(9, host.disk.copy()));
    t.true(again.group.headLsn >= 10);
    for (const frame of seal(history, { groupId: groupOf(8), fromLsn: again.group.headLsn + 1 }))
      again.source.push(frame);
    await again.group.idle();
    t.is(again.group.headLsn, history.lastLsn);
    await again.group.close();
  });
}

test('a frame that is refused is counted and told, and what would have come next is asked for again', async (t) => {
  const { host, group, source, frames, history } = await begun(10);
  const rejected = heard(t, 'tidemark:replica:rejected', 10);
  source.push(frames[0]!);
  const rotten = Uint8Array.from(frames[1]!.bytes);
  rotten[100]! ^= 1;
  source.push({ ...frames[1]!, bytes: rotten });
  await group.idle();
  const { receiver } = await group.status();
  t.is(receiver.rejected, 1);
  t.regex(receiver.lastRejection, /^frame-damaged: /);
  t.is(receiver.missingFrom, 11);
  t.is(source.last?.missingFrom, 11);
  t.true(rejected.some(({ code }) => code === 'frame-damaged'));
  const [foreign] = seal(history, { fromLsn: 11, groupId: 'cd'.repeat(16) });
  source.push(foreign!);
  await group.idle();
  t.regex((await group.status()).receiver.lastRejection, /^frame-foreign: /);
  t.is((await group.status()).receiver.rejected, 2);
  source.push(frames[1]!);
  await group.idle();
  t.like((await group.status()).receiver, { headLsn: 20, missingFrom: 0 });
  const [stale] = seal(history, {
    groupId: groupOf(10),
    fromLsn: 21,
    incarnation: { counter: 0, nonce: '0'.repeat(16) },
  });
  source.push(stale!);
  await group.idle();
  t.is((await group.status()).receiver.missingFrom, 0, 'a source that was replaced is asked for nothing');
  host.clock.advance(1000);
  await group.close();
});

test('a full replica says so once, asks for room again and again, and takes up where it was', async (t) => {
  const told = heard(t, 'tidemark:replica:full', 11);
  const { host, group, source, frames } = await begun(11);
  source.push(frames[0]!);
  await group.idle();
  const needed = frames[1]!.bytes.length;
  host.disk.capacity = host.disk.used() + needed - 1;
  source.push(frames[1]!);
  await group.idle();
  t.like(source.last, { state: 'replica-full', reason: `${needed - 1} bytes are left above the reserve` });
  t.true(source.paused);
  t.is(group.headLsn, 10);
  host.clock.advance(999);
  host.disk.capacity += 1;
  await group.idle();
  host.clock.advance(1);
  await group.idle();
  t.is(source.last?.state, 'replica-full', 'exactly its bytes: no room beside it');
  host.disk.capacity += 4096;
  host.clock.advance(999);
  await group.idle();
  t.is(group.headLsn, 10);
  host.clock.advance(1);
  await group.idle();
  t.is(group.headLsn, 20);
  t.is((await group.status()).receiver.state, 'receiving');
  t.false(source.paused);
  t.deepEqual(
    told.map(({ full }) => full),
    [true, false],
  );
  await group.close();
});

test('what came before a stop is durable when it has ended, what comes later is not taken', async (t) => {
  const { host, group, source, frames } = await begun(12);
  source.push(frames[0]!);
  source.push(frames[1]!);
  const durable: number[] = [];
  const stop = group.onDurable((lsn) => durable.push(lsn));
  await group.idle();
  t.deepEqual(durable.at(-1), 20);
  stop();
  source.push(frames[2]!);
  await group.idle();
  t.deepEqual(durable.at(-1), 20, 'who has left is told no more');
  const { feedbacks } = source;
  await group.close();
  const sent = feedbacks.length;
  source.push(frames[3]!);
  host.clock.advance(10_000);
  t.is(feedbacks.length, sent);
  const again = await begun(12, {}, memoryHost(13, host.disk.copy()));
  t.is(again.group.headLsn, 30);
  t.is(again.source.start?.durableLsn, 30);
  t.is(again.source.start?.resumeOffset, String(frames[2]!.lastLsn));
  t.like((await again.group.status()).receiver.durable, { heartbeatMs: 4711, incarnation: START, epoch: 1 });
  await again.group.close();
});
