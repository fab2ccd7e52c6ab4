import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { FrameMaker, type SealJob, type SealPart, type SealPlace } from '../../daemon/ship/frame-maker.ts';
import { LocalSealing } from '../../daemon/ship/seal-runner.ts';
import { ThreadSealing } from '../../daemon/source/seal-thread.ts';
import { CHAIN_START, chainString } from '../../journal/chain.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import { SEALER_DEFAULTS, type SealerOptions } from '../../journal/frame-sealer.ts';
import { FrameView } from '../../journal/frame-view.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { Journal } from '../../journal/journal.ts';
import { RecordKind } from '../../journal/record.ts';
import { encodeHeartbeat } from '../../journal/record-bodies.ts';
import { SeededRandom } from '../simulation/seeded-random.ts';

const GROUP_ID = 'd0d1d2d3d4d5d6d7d8d9dadbdcdddedf';
const SEALER: SealerOptions = { ...SEALER_DEFAULTS, targetBytes: 64 * 1024 };
const host = realHost();

interface Bench {
  readonly journal: Journal;
  readonly directory: string;
  readonly start: SealPlace;
  readonly random: SeededRandom;
  maker(): FrameMaker;
  job(place: SealPlace, change?: Partial<SealJob>): SealJob;
}

/** A durable journal of several files with records of all lengths, in batches of one to forty. */
async function benchOf(t: ExecutionContext, seed: number, batches: number): Promise<Bench> {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-seal-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const random = new SeededRandom(seed);
  const journal = await Journal.open(host, {
    directory,
    groupId: GROUP_ID,
    groupName: 'seal',
    fileBytes: 1024 * 1024,
    budgetBytes: 64 * 1024 * 1024,
    syncIntervalMs: 20,
  });
  t.teardown(() => journal.close());
  await journal.begin();
  for (let batch = 0; batch < batches; batch++) {
    if (random.below(10) === 0) {
      const body = encodeHeartbeat({ monotonicMs: batch, wallMicros: batch });
      journal.append(RecordKind.heartbeat, { body });
    }
    const sectors = 1 + random.below(random.below(4) === 0 ? 128 : 8);
    const body = Buffer.alloc(sectors * 512, `record of batch ${batch}, `);
    journal.append(RecordKind.write, { volume: 1, sector: batch, sectors, body });
  }
  await journal.sync();
  const identity = {
    groupId: GROUP_ID,
    groupName: 'seal',
    epoch: journal.epoch,
    incarnation: journal.incarnation!,
    frameVersion: FRAME_VERSION,
  };
  return {
    journal,
    directory,
    random,
    start: { address: journal.oldestAddress, nextLsn: 1, chain: CHAIN_START },
    maker: () => new FrameMaker((from) => journal.reader(from), journal.fileBytes, identity, SEALER),
    job: (place, change = {}) => ({
      place,
      fromLsn: 1,
      limit: journal.marks.address('durable'),
      durableLsn: journal.marks.lsn('durable'),
      frameBytesMax: 1 << 30,
      readBytesMax: 1 << 30,
      flush: true,
      ...change,
    }),
  };
}

/** Frames that hold every record once, in order, in one chain from the beginning to the end of the journal. */
function assertWhole(t: ExecutionContext, { journal }: Bench, frames: readonly FrameView[], fromLsn = 1): void {
  let next = fromLsn;
  let chain = frames[0] === undefined ? '' : chainString(frames[0].chainBefore);
  for (const frame of frames) {
    frame.verifyPayload();
    t.deepEqual([frame.firstLsn, chainString(frame.chainBefore)], [next, chain]);
    next = frame.lastLsn + 1;
    chain = chainString(frame.chainAfter);
  }
  t.is(next, journal.lastLsn + 1);
}

function framesOf(parts: readonly SealPart[]): FrameView[] {
  return parts.flatMap(({ frame }) => (frame === undefined ? [] : [FrameView.open(Uint8Array.from(frame.bytes))]));
}

test('however a history is cut into jobs, and whoever does them, each record is sealed once, in order, in one chain', async (t) => {
  for (let seed = 1; seed <= 6; seed++) {
    const bench = await benchOf(t, seed, 300);
    const { random, journal } = bench;
    const makers = [bench.maker(), bench.maker()];
    const parts: SealPart[] = [];
    let place = bench.start;
    for (let jobs = 0; place.nextLsn <= journal.lastLsn; jobs++) {
      t.true(jobs < 3000, 'a job brings something at last');
      const limit =
        jobs % 2 === 0 ? journal.marks.address('durable') : journal.addressOf(1 + random.below(journal.lastLsn));
      const change = { limit, readBytesMax: 1 + random.below(200_000), frameBytesMax: 1 + random.below(100_000) };
      const job = bench.job(place, { ...change, flush: random.below(3) === 0 });
      // now and then nobody wants the rest of a job, and the next begins where the last part taken ended
      let wanted = random.below(4) === 0 ? 1 + random.below(3) : 1000;
      for (const part of makers[random.below(2)]!.run(job)) {
        t.is(part.error, undefined);
        parts.push(part);
        place = part.place;
        if (--wanted === 0) break;
      }
    }
    assertWhole(t, bench, framesOf(parts));
    const heartbeats = new Set(parts.flatMap((part) => part.heartbeats.map(({ lsn }) => lsn)));
    t.true(heartbeats.size > 10);
    for (const { lsn, address, beginsFile } of parts.flatMap(({ passed }) => passed)) {
      if (beginsFile) t.is(address % journal.fileBytes, 0);
      else if (lsn < journal.lastLsn) t.true(journal.addressOf(lsn + 1) >= address, 'a batch begins there or behind');
    }
  }
});

test('records below the first that is wanted are read for the chain alone', async (t) => {
  const bench = await benchOf(t, 7, 200);
  const whole = framesOf([...bench.maker().run(bench.job(bench.start))]);
  const middle = whole[Math.floor(whole.length / 2)]!;
  const fromLsn = middle.firstLsn + 1;
  const parts = [...bench.maker().run(bench.job(bench.start, { fromLsn }))];
  const begun = parts.find((part) => part.begun)!;
  t.deepEqual(begun.place.chain, middle.chainAt(fromLsn - 1));
  t.is(parts.indexOf(begun), 0);
  assertWhole(t, bench, framesOf(parts), fromLsn);
});

test('what stands before damage is sealed, and the damage is told with its place', async (t) => {
  const bench = await benchOf(t, 8, 100);
  const { journal } = bench;
  const lsn = 60;
  const address = journal.addressOf(lsn);
  const file = host.disk.open(join(bench.directory, `journal-${'0'.repeat(16)}.tmj`), 'write');
  file.writeSync(Buffer.from([0xee]), 0, 1, address + 90);
  await file.close();
  const parts = [...bench.maker().run(bench.job(bench.start, { flush: false }))];
  const last = parts.at(-1)!;
  t.like(last.error, { code: 'journal-damaged', details: { address } });
  t.is(framesOf(parts).at(-1)!.lastLsn, lsn - 1);
  t.is(last.place.nextLsn, lsn);
});

test('a thread makes the same frames, in memory that is used again, and names what it cannot read', async (t) => {
  const keep = setInterval(() => undefined, 1000);
  t.teardown(() => clearInterval(keep));
  const bench = await benchOf(t, 9, 90);
  const { journal, directory, start } = bench;
  const identity = {
    groupId: GROUP_ID,
    groupName: 'seal',
    epoch: journal.epoch,
    incarnation: journal.incarnation!,
    frameVersion: FRAME_VERSION,
  };
  const local = (): LocalSealing => new LocalSealing(() => bench.maker());
  const here = framesOf([...bench.maker().run(bench.job(start))]);
  for (const releases of [true, false]) {
    const lane = { directory, fileBytes: journal.fileBytes, identity, sealer: SEALER };
    const thread = new ThreadSealing(lane, releases, local());
    let memories = new Set<ArrayBufferLike>();
    for (let round = 0; round < 3; round++) {
      memories = new Set();
      const there = await partsOf(thread, bench.job(start), ({ frame }) => {
        if (frame !== undefined) memories.add(frame.bytes.buffer);
      });
      t.deepEqual(
        framesOf(there).map(({ firstLsn, chainAfter }) => [firstLsn, chainAfter]),
        here.map(({ firstLsn, chainAfter }) => [firstLsn, chainAfter]),
      );
      for (const { frame } of there) frame?.release?.();
    }
    t.is(memories.size === 1, releases);
    await thread.close();
  }
  const lost = new ThreadSealing(
    { directory: `${directory}/gone`, fileBytes: journal.fileBytes, identity, sealer: SEALER },
    true,
    local(),
  );
  const parts = await partsOf(lost, bench.job(start));
  t.is(parts.at(-1)!.error?.code, 'not-found');
  await lost.close();
});

test('frames that nobody releases are made elsewhere when the shared memory is full', async (t) => {
  const keep = setInterval(() => undefined, 1000);
  t.teardown(() => clearInterval(keep));
  const bench = await benchOf(t, 10, 2000);
  const { journal, directory, start } = bench;
  const identity = {
    groupId: GROUP_ID,
    groupName: 'seal',
    epoch: journal.epoch,
    incarnation: journal.incarnation!,
    frameVersion: FRAME_VERSION,
  };
  const lane = { directory, fileBytes: journal.fileBytes, identity, sealer: SEALER };
  const thread = new ThreadSealing(lane, true, new LocalSealing(() => bench.maker()));
  const parts = await partsOf(thread, bench.job(start));
  const frames = parts.filter(({ frame }) => frame !== undefined);
  t.true(frames.length > 20);
  const [inSlots, elsewhere] = [
    frames.filter(({ frame }) => frame!.release),
    frames.filter(({ frame }) => !frame!.release),
  ];
  t.is(inSlots.length, 20);
  t.true(elsewhere.length > 0);
  assertWhole(t, bench, framesOf(parts));
  await thread.close();
});

function partsOf(
  thread: ThreadSealing,
  job: SealJob,
  seen: (part: SealPart) => void = () => undefined,
): Promise<SealPart[]> {
  return new Promise((resolve) => {
    const parts: SealPart[] = [];
    thread.run(job, (part) => {
      parts.push(part);
      seen(part);
      if (part.last) resolve(parts);
      return !part.last;
    });
  });
}
