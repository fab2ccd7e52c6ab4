import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { type Settled, settleFarSide } from '../../daemon/ship/settle.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { CHAIN_START, type Chain } from '../../journal/chain.ts';
import { FrameSealer, type SealRecord } from '../../journal/frame-sealer.ts';
import { Journal } from '../../journal/journal.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { FIRST_BOOT, type TestHost, testHost } from '../journal/journal-fixture.ts';
import { MemorySink } from './memory-sink.ts';

const GROUP_ID = 'e0c1c2c3c4c5c6c7c8c9cacbcccdcee0';

/** A far side whose every step the test sees. */
class FarSide extends MemorySink {
  readonly asked: Lsn[] = [];
  closing = 0;
  failure: Error | undefined;
  /** Waits before each frame. */
  before: (index: number, signal: AbortSignal) => Promise<void> = () => Promise.resolve();

  override settle(): Promise<{ highestLsn: Lsn }> {
    return this.failure === undefined ? super.settle() : Promise.reject(this.failure);
  }

  override async *fetch(fromLsn: Lsn = 0, signal: AbortSignal = AbortSignal.abort()): AsyncIterable<Uint8Array> {
    this.asked.push(fromLsn);
    for (const [index, bytes] of this.farFrames.entries()) {
      await this.before(index, signal);
      yield bytes;
    }
  }

  override async close(): Promise<void> {
    this.closing++;
    for (let turns = 0; turns < 5; turns++) await new Promise(setImmediate);
    await super.close();
  }
}

interface Place {
  readonly host: TestHost;
  readonly journal: Journal;
  readonly records: SealRecord[];
  settle(...sinks: FarSide[]): Promise<Settled>;
  /** Frames with these last LSNs, from `fromLsn` on, of the history as `change` makes it. */
  frames(
    fromLsn: Lsn,
    lastLsns: readonly Lsn[],
    change?: (record: SealRecord) => SealRecord,
    groupId?: string,
  ): Uint8Array[];
}

/** A journal of ten records, opened anew and not begun; the history goes on to record 30. */
async function place(t: ExecutionContext): Promise<Place> {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-settle-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const options = {
    directory,
    groupId: GROUP_ID,
    groupName: 'settle',
    fileBytes: 256 * 1024,
    budgetBytes: 16 * 1024 * 1024,
    syncIntervalMs: 20,
  };
  const first = await Journal.open(testHost(), options);
  await first.begin();
  for (let lsn = 2; lsn <= 10; lsn++) {
    first.append(RecordKind.write, { volume: 1, sector: lsn, sectors: 1, body: new Uint8Array(512).fill(lsn) });
  }
  await first.sync();
  const records: SealRecord[] = [];
  const reader = first.reader(0);
  for (let batch = reader.next(first.endAddress); batch !== undefined; batch = reader.next(first.endAddress)) {
    for (const record of batch) {
      records.push({ ...record, payload: Uint8Array.from(record.payload), time: batch.time });
    }
  }
  await reader.close();
  const incarnation = first.incarnation!;
  await first.close();
  for (let lsn = 11; lsn <= 30; lsn++) {
    const last = records[9]!;
    records.push({ ...last, lsn, sector: lsn, time: last.time + lsn, payload: new Uint8Array(512).fill(lsn) });
  }
  const host = testHost(FIRST_BOOT);
  const journal = await Journal.open(host, options);
  t.teardown(() => journal.close());
  return {
    host,
    journal,
    records,
    settle: (...sinks) =>
      settleFarSide(host, { journal, directory, groupId: GROUP_ID, groupName: 'settle', sinks, timeoutMs: 1000 }),
    frames: (fromLsn, lastLsns, change = (record) => record, groupId = GROUP_ID) => {
      const sealer = new FrameSealer(
        { groupId, epoch: 1, incarnation },
        { chunkBytes: 4096, targetBytes: 65_536, compress: false },
      );
      let chain: Chain = CHAIN_START;
      const frames: Uint8Array[] = [];
      let next = 1;
      for (const lastLsn of [...(fromLsn > 1 ? [fromLsn - 1] : []), ...lastLsns]) {
        sealer.begin(next, chain);
        for (; next <= lastLsn; next++) sealer.add(change(records[next - 1]!));
        const frame = sealer.seal(lastLsn);
        chain = frame.chainAfter;
        if (frame.firstLsn >= fromLsn) frames.push(frame.bytes);
      }
      return frames;
    },
  };
}

function holding(lsn: Lsn | undefined, frames: Uint8Array[] = []): FarSide {
  const side = new FarSide();
  side.farLsn = lsn;
  side.farFrames = frames;
  return side;
}

/** What a lost tail looks like when it has come back. */
async function readAll(journal: Journal): Promise<string[]> {
  const reader = journal.reader(0);
  const found: string[] = [];
  for (let batch = reader.next(journal.endAddress); batch !== undefined; batch = reader.next(journal.endAddress)) {
    for (const { lsn, sector, payload } of batch) found.push(`${lsn} ${sector} ${payload[0]} ${batch.time}`);
  }
  await reader.close();
  return found;
}

test('what the far side holds beyond our end is asked for right behind it and comes back as it was', async (t) => {
  for (const [from, lastLsns] of [
    [11, [20, 30]],
    [5, [8, 10, 25, 30]],
    [9, [14, 30]],
    [1, [30]],
  ] as const) {
    const at = await place(t);
    const side = holding(30, at.frames(from, lastLsns));
    const settled = await at.settle(side);
    t.deepEqual(settled, { highestLsn: 30, answered: 1, restored: 20, mended: 0, unmended: [] });
    t.deepEqual(side.asked, [11]);
    t.true(side.closed && side.closing === 1, 'closed, and waited for');
    t.deepEqual(
      (await readAll(at.journal)).slice(1),
      at.records.slice(1).map(({ lsn, sector, payload, time }) => `${lsn} ${sector} ${payload[0]} ${time}`),
    );
  }
});

test('nothing is asked of a far side that holds no more than we do; who does not answer is not counted', async (t) => {
  for (const [lsn, highestLsn] of [
    [undefined, 0],
    [3, 3],
    [10, 10],
  ] as const) {
    const at = await place(t);
    const mute = new FarSide();
    mute.failure = new TidemarkError('stream-unavailable', 'nobody is there');
    const side = holding(lsn);
    t.like(await at.settle(mute, side), { highestLsn, answered: 1, restored: 0 });
    t.deepEqual([side.asked, mute.asked], [[], []]);
    t.true(side.closed && mute.closed);
    t.is(at.journal.lastLsn, 10);
  }
  const broken = await place(t);
  const side = new FarSide();
  side.failure = new Error('a bug');
  await t.throwsAsync(broken.settle(side), { message: 'a bug' });
  t.true(side.closed);
});

test('of several far sides the one that holds most is asked', async (t) => {
  const at = await place(t);
  const frames = at.frames(11, [20, 30]);
  const sides = [holding(20), holding(30, frames), holding(30), holding(5)];
  t.like(await at.settle(...sides), { highestLsn: 30, answered: 4, restored: 20 });
  t.deepEqual(
    sides.map(({ asked }) => asked.length),
    [0, 1, 0, 0],
  );
  t.true(sides.every(({ closed }) => closed));
});

test('what does not continue our end is divergence, also when it begins right behind it', async (t) => {
  const other = (record: SealRecord): SealRecord =>
    record.lsn === 10 ? { ...record, payload: new Uint8Array(512).fill(99) } : record;
  for (const from of [11, 10, 1]) {
    const at = await place(t);
    const side = holding(30, at.frames(from, [20, 30], other));
    await t.throwsAsync(at.settle(side), { code: 'divergence' }, `from ${from}`);
    t.is(at.journal.lastLsn, 10, 'nothing of it is taken');
    t.true(side.closed);
  }
});

test('frames of another group, with a hole, or damaged are not taken', async (t) => {
  const foreign = await place(t);
  const otherGroup = foreign.frames(11, [30], undefined, 'ff'.repeat(16));
  await t.throwsAsync(foreign.settle(holding(30, otherGroup)), { code: 'frame-foreign' });
  const gap = await place(t);
  await t.throwsAsync(gap.settle(holding(30, gap.frames(12, [30]))), { code: 'gap' });
  t.is(gap.journal.lastLsn, 10);
  const later = await place(t);
  const [first, , third] = later.frames(11, [15, 20, 30]);
  await t.throwsAsync(later.settle(holding(30, [first!, third!])), { code: 'gap' });
  t.is(later.journal.lastLsn, 15, 'what continued our end is ours again');
  const damaged = await place(t);
  const [bytes] = damaged.frames(11, [30]);
  bytes![bytes!.length - 5]! ^= 1;
  await t.throwsAsync(damaged.settle(holding(30, [bytes!])), { code: 'frame-damaged' });
  t.is(damaged.journal.lastLsn, 10);
});

test('each frame has its time: a far side that falls silent is asked no longer', async (t) => {
  const at = await place(t);
  const side = holding(30, at.frames(11, [15, 20, 30]));
  const aborted: boolean[] = [];
  side.before = async (_index, signal) => {
    // just in time, each of them
    at.host.clock.advance(999);
    await new Promise(setImmediate);
    aborted.push(signal.aborted);
  };
  t.like(await at.settle(side), { restored: 20 });
  t.deepEqual(aborted, [false, false, false]);
  const silent = await place(t);
  const gone = holding(30, silent.frames(11, [15, 20, 30]));
  gone.before = async (index, signal) => {
    if (index === 0) return;
    silent.host.clock.advance(1000);
    await new Promise(setImmediate);
    if (signal.aborted) throw new TidemarkError('stream-unavailable', 'asked no longer');
  };
  await t.throwsAsync(silent.settle(gone), { code: 'stream-unavailable' });
  t.is(silent.journal.lastLsn, 15);
});
