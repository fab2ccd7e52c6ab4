import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { readAcknowledged } from '../../daemon/ship/acknowledged.ts';
import { ChainCheckpoints } from '../../daemon/ship/chain-checkpoints.ts';
import { chainOver } from '../../daemon/ship/chain-walk.ts';
import { journalFrames } from '../../daemon/ship/journal-frames.ts';
import { settleFarSide } from '../../daemon/ship/settle.ts';
import { decodeShipState, encodeShipState, loadShipState } from '../../daemon/ship/ship-state.ts';
import { Shipper } from '../../daemon/ship/shipper.ts';
import { CHAIN_START, type Chain } from '../../journal/chain.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import { FrameView } from '../../journal/frame-view.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { Journal } from '../../journal/journal.ts';
import type { Lsn } from '../../journal/position.ts';
import { RECORD_HEADER_BYTES, RecordKind } from '../../journal/record.ts';
import { encodeHeartbeat } from '../../journal/record-bodies.ts';
import { MemorySink } from './memory-sink.ts';

const GROUP_ID = 'c0c1c2c3c4c5c6c7c8c9cacbcccdcecf';
const host = realHost();

/** A journal in a directory of its own, and a shipper on it that can be restarted. */
class Rig {
  readonly directory: string;
  journal!: Journal;
  shipper!: Shipper;
  sink!: MemorySink;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async open(t: ExecutionContext, directory = mkdtempSync(join(tmpdir(), 'tidemark-ship-'))): Promise<Rig> {
    const rig = new Rig(directory);
    t.teardown(() => rmSync(directory, { recursive: true, force: true }));
    await rig.openJournal();
    await rig.journal.begin();
    await rig.startShipper();
    return rig;
  }

  async openJournal(): Promise<void> {
    this.journal = await Journal.open(host, {
      directory: this.directory,
      groupId: GROUP_ID,
      groupName: 'ship',
      fileBytes: 256 * 1024,
      budgetBytes: 16 * 1024 * 1024,
      syncIntervalMs: 20,
    });
  }

  async startShipper(replicas = [{ name: 'dr1', required: true }]): Promise<void> {
    this.sink = new MemorySink();
    this.shipper = await Shipper.open(host, {
      directory: this.directory,
      journal: this.journal,
      marks: this.journal.marks,
      identity: {
        groupId: GROUP_ID,
        groupName: 'ship',
        epoch: this.journal.epoch,
        incarnation: this.journal.incarnation!,
        frameVersion: FRAME_VERSION,
      },
      sinks: [this.sink],
      replicas,
      sealer: { targetBytes: 64 * 1024 },
    });
  }

  async restart(): Promise<void> {
    await this.shipper.close();
    await this.journal.close();
    await this.openJournal();
    await this.journal.begin();
    await this.startShipper();
  }

  /** Appends `count` writes and waits until they are durable; returns the last LSN. */
  async write(count: number): Promise<Lsn> {
    for (let i = 0; i < count; i++) this.append();
    await this.journal.sync();
    return this.journal.lastLsn;
  }

  append(): void {
    const lsn = this.journal.lastLsn + 1;
    this.journal.append(RecordKind.write, {
      volume: 1,
      sector: lsn * 8,
      sectors: 8,
      body: new Uint8Array(4096).fill(lsn),
    });
  }

  async close(): Promise<void> {
    await this.shipper.close();
    await this.journal.close();
  }
}

/** Waits until the marks of the journal fulfil a condition. */
function untilMarks(rig: Rig, condition: () => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    // The product's timers do not keep the process alive, this one does.
    const timer = setTimeout(() => reject(new Error('the marks did not move within 30 s')), 30_000);
    const stop = rig.journal.marks.onMove(look);
    function look(): void {
      if (!condition()) return;
      stop();
      clearTimeout(timer);
      resolve();
    }
    look();
  });
}

async function untilState(rig: Rig, state: string): Promise<void> {
  for (const end = performance.now() + 30_000; rig.shipper.status().state !== state; ) {
    if (performance.now() > end) throw new Error(`the shipper is ${rig.shipper.status().state}, not ${state}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function lsnsOf(sink: MemorySink): Lsn[] {
  return sink.frames.flatMap((frame) => Array.from({ length: frame.recordCount }, (_, i) => frame.firstLsn + i));
}

test('what is durable is shipped in order, whole, and what is not durable never', async (t) => {
  const rig = await Rig.open(t);
  const last = await rig.write(100);
  rig.sink.seek(1);
  await rig.sink.sent(last);
  t.deepEqual(
    lsnsOf(rig.sink),
    Array.from({ length: last }, (_, i) => i + 1),
  );
  const writes = rig.sink.frames.flatMap((frame) => {
    const payloads: number[] = [];
    frame.forEach((record, i) => {
      if (record.kind === RecordKind.write) payloads.push(frame.payloadOf(i)[77]!, record.lsn & 0xff);
    });
    return payloads;
  });
  t.is(writes.length, 200);
  t.true(writes.every((value, i) => i % 2 === 1 || value === writes[i + 1]));
  rig.append();
  // Whatever makes it look again, it does not look beyond the mark.
  rig.sink.openWindow(1 << 30);
  rig.sink.seek(last + 1);
  t.is(rig.sink.frames.at(-1)!.lastLsn, last);
  await rig.journal.sync();
  await rig.sink.sent(last + 1);
  t.true(rig.sink.frames.every((frame) => frame.lastLsn <= frame.sourceDurableLsn));
  await rig.close();
});

test('marks follow what the stream took and what the replica holds and proved', async (t) => {
  const rig = await Rig.open(t);
  const { marks } = rig.journal;
  t.deepEqual(rig.shipper.status().backlog, { records: null, bytes: null, seconds: null });
  const last = await rig.write(50);
  rig.sink.seek(1);
  await rig.sink.sent(last);
  t.is(marks.lsn('accepted'), 0);
  rig.sink.accept(last);
  t.is(marks.lsn('accepted'), last);
  t.is(marks.lsn('replicated'), 0);
  const middle = rig.sink.frames[0]!.lastLsn;
  rig.sink.hold(middle);
  t.is(marks.lsn('replicated'), middle);
  t.is(marks.address('shipped'), 0);
  rig.sink.hold(last);
  await untilMarks(rig, () => marks.address('shipped') > 0);
  // Behind the last record the journal may hold watermarks, which are not shipped.
  t.true(marks.address('durable') - marks.address('shipped') < 4096);
  t.is(rig.sink.trimmedLsn, last);
  t.like(rig.shipper.status(), {
    state: 'streaming',
    replicatedLsn: last,
    backlog: { records: 0, bytes: 0, seconds: 0 },
  });
  await rig.close();
});

test('a full window holds back, and the linger is cut short when nothing is under way', async (t) => {
  const rig = await Rig.open(t);
  rig.sink.windowBytes = 0;
  const last = await rig.write(60);
  rig.sink.seek(1);
  t.is(rig.sink.frames.length, 0);
  rig.sink.openWindow(1 << 30);
  await rig.sink.sent(last);
  t.true(rig.sink.frames.every((frame) => frame.payloadBytes + frame.recordCount * 40 <= 64 * 1024));
  await rig.close();
});

test('the source restarts in mid-stream: the chain goes on, whatever became of ship.state', async (t) => {
  const rig = await Rig.open(t);
  const first = await rig.write(80);
  rig.sink.seek(1);
  await rig.sink.sent(first);
  rig.sink.hold(first);
  const chain = rig.sink.chainAt(first);
  const middle = rig.sink.chainAt(40);
  await rig.restart();
  const last = await rig.write(20);
  rig.sink.hold(first, { chain });
  t.is(rig.journal.marks.lsn('replicated'), 0, 'not proven yet');
  rig.sink.seek(first + 1);
  await rig.sink.sent(last);
  t.is(rig.journal.marks.lsn('replicated'), first, 'proven by the walk to the position');
  t.is(rig.sink.frames[0]!.incarnation.counter, 2);
  await rig.close();
  unlinkSync(join(rig.directory, 'ship.state'));
  await rig.openJournal();
  await rig.journal.begin();
  await rig.startShipper();
  rig.sink.hold(40, { chain: middle });
  rig.sink.seek(41);
  await rig.sink.sent(last);
  t.is(rig.journal.marks.lsn('replicated'), 40);
  await rig.close();
});

test('bytes that rot in the journal are never sealed into a frame', async (t) => {
  const rig = await Rig.open(t);
  const last = await rig.write(40);
  const { address } = rig.journal.append(RecordKind.write, {
    volume: 1,
    sector: 0,
    sectors: 8,
    body: new Uint8Array(4096).fill(1),
  });
  await rig.journal.sync();
  const file = join(rig.directory, readdirSync(rig.directory).find((name) => name.endsWith('.tmj'))!);
  const bytes = readFileSync(file);
  bytes[address + RECORD_HEADER_BYTES + 2000]! ^= 1;
  writeFileSync(file, bytes);
  rig.sink.seek(1);
  await rig.sink.sent(last);
  await untilState(rig, 'stopped');
  t.like(rig.shipper.status(), { code: 'journal-damaged' });
  t.regex(rig.shipper.status().reason, new RegExp(`record ${last + 1}: .*body crc is wrong`));
  t.is(lsnsOf(rig.sink).at(-1), last);
  await rig.close();
});

test('a seek back sends the same records again', async (t) => {
  const rig = await Rig.open(t);
  const last = await rig.write(70);
  rig.sink.seek(1);
  await rig.sink.sent(last);
  const chain = rig.sink.chainAt(last);
  rig.sink.seek(33);
  await rig.sink.sent(last);
  t.is(rig.sink.chainAt(last), chain);
  t.is(lsnsOf(rig.sink).filter((lsn) => lsn === 33).length, 2);
  await rig.close();
});

test('released journal files may go; who needs them is told needs-resync with both positions', async (t) => {
  const rig = await Rig.open(t);
  const last = await rig.write(400);
  rig.sink.seek(1);
  await rig.sink.sent(last);
  const middle = rig.sink.frames.find((frame) => frame.lastLsn > 300)!.lastLsn;
  rig.sink.hold(middle);
  const { marks } = rig.journal;
  await untilMarks(rig, () => marks.address('shipped') > 0);
  rig.journal.recycleBelow(marks.address('shipped'));
  t.true(rig.journal.oldestLsn > 1);
  const chain = rig.sink.chainAt(middle);
  rig.sink.seek(1);
  t.like(rig.shipper.status(), { state: 'needs-resync', code: 'needs-resync' });
  t.regex(rig.shipper.status().reason, new RegExp(`record 1, the oldest .* ${rig.journal.oldestLsn}`));
  await rig.restart();
  rig.sink.hold(middle, { chain });
  rig.sink.seek(middle + 1);
  await rig.sink.sent(last);
  t.is(rig.shipper.status().state, 'streaming');
  t.is(rig.journal.marks.lsn('replicated'), middle);
  rig.sink.seek(last + 1000);
  t.regex(rig.shipper.status().reason, /the far side holds records up to/);
  await rig.close();
});

test('a stream that stopped after it was asked for too much is named first: nobody is told to seed anew for it', async (t) => {
  const rig = await Rig.open(t);
  const last = await rig.write(200);
  rig.sink.seek(1);
  await rig.sink.sent(last);
  rig.sink.hold(last);
  await untilMarks(rig, () => rig.journal.marks.address('shipped') > 0);
  rig.journal.recycleBelow(rig.journal.marks.address('shipped'));
  rig.sink.seek(1);
  t.is(rig.shipper.status().code, 'needs-resync');
  rig.sink.stop('frame-foreign', 'the topic belongs to another group');
  t.like(rig.shipper.status(), { state: 'stopped', code: 'frame-foreign' });
  t.regex(
    rig.shipper.status().reason,
    /^the topic belongs to another group; before that: the far side needs record 1,/,
  );
  rig.sink.seek(last + 1);
  t.like(rig.shipper.status(), { state: 'streaming', code: null });
  await rig.close();
});

test('whatever the journal still holds can be sent again, from its oldest record on, over further starts', async (t) => {
  const rig = await Rig.open(t);
  const { fileBytes } = rig.journal;
  const sent: FrameView[] = [];
  rig.sink.seek(1);
  for (let run = 1; run <= 3; run++) {
    // with one sync for a few records a watermark of its own closes many a file
    while (rig.journal.endAddress < (2 * run + 1) * fileBytes) await rig.write(1 + (rig.journal.lastLsn % 4));
    const { lastLsn } = rig.journal;
    await rig.sink.sent(lastLsn);
    sent.push(...rig.sink.frames);
    const chain = rig.sink.chainAt(lastLsn);
    rig.sink.hold(lastLsn, { chain });
    await untilMarks(rig, () => rig.journal.marks.address('shipped') >= 2 * run * fileBytes);
    rig.journal.recycleBelow(2 * run * fileBytes);
    await rig.restart();
    const { journal } = rig;
    t.is(journal.oldestAddress, 2 * run * fileBytes);
    const known = new ChainCheckpoints(await loadShipState(host.disk, rig.directory, GROUP_ID), fileBytes);
    for (const fromLsn of [journal.oldestLsn, journal.oldestLsn + 1]) {
      const frames = journalFrames(journal, known, rig.sink.identity!, fromLsn);
      const again = FrameView.open((await frames.next()).value!);
      await frames.return(undefined);
      t.is(again.firstLsn, fromLsn);
      const before = sent.find((frame) => frame.firstLsn <= fromLsn && frame.lastLsn >= fromLsn)!;
      t.deepEqual(again.chainAt(fromLsn), before.chainAt(fromLsn));
    }
    rig.sink.seek(lastLsn + 1);
  }
  await rig.close();
});

test('a replica that holds less than it acknowledged is an alarm until it has everything again', async (t) => {
  const rig = await Rig.open(t);
  const last = await rig.write(90);
  rig.sink.seek(1);
  await rig.sink.sent(last);
  rig.sink.hold(last);
  const early = rig.sink.frames[0]!.lastLsn;
  rig.sink.hold(early);
  const status = rig.shipper.status();
  t.like(status, { state: 'needs-resync', code: 'needs-resync' });
  t.like(status.replicas[0], { durableLsn: early, provenLsn: early, lostFromLsn: last });
  t.is(status.backlog.records, last - early);
  rig.sink.seek(early + 1);
  await rig.sink.sent(last);
  rig.sink.hold(last);
  t.like(rig.shipper.status(), { state: 'streaming', code: null });
  await rig.close();
});

test('a replica that lost data while the source was down is an alarm, over further starts, until it has everything again', async (t) => {
  const rig = await Rig.open(t);
  const last = await rig.write(90);
  rig.sink.seek(1);
  await rig.sink.sent(last);
  const { frames } = rig.sink;
  const early = frames[0]!.lastLsn;
  const restart = async (holds: Lsn): Promise<void> => {
    await rig.restart();
    rig.sink.frames.push(...frames);
    t.is(rig.shipper.status().replicas[0]?.durableLsn, null, 'what it said in an earlier run is not what it holds now');
    rig.sink.seek(holds + 1);
    rig.sink.hold(holds);
  };
  rig.sink.hold(last);
  await restart(last);
  t.like(rig.shipper.status(), { state: 'streaming', code: null });
  for (const _ of [1, 2]) {
    await restart(early);
    const status = rig.shipper.status();
    t.like(status, { state: 'needs-resync', code: 'needs-resync' });
    t.regex(status.reason, new RegExp(`lost what it had acknowledged up to ${last}`));
    t.like(status.replicas[0], { durableLsn: early, lostFromLsn: last });
    t.true(status.replicatedLsn <= early);
  }
  await rig.sink.sent(last);
  rig.sink.hold(last);
  t.like(rig.shipper.status(), { state: 'streaming', code: null });
  await restart(last);
  t.like(rig.shipper.status(), { state: 'streaming', code: null });
  await rig.close();
});

test('what a replica acknowledged is durable a second later, without a stop', async (t) => {
  const rig = await Rig.open(t);
  const last = await rig.write(90);
  rig.sink.seek(1);
  await rig.sink.sent(last);
  rig.sink.hold(last);
  const place = { directory: rig.directory, groupId: GROUP_ID };
  const keepAlive = setInterval(() => undefined, 50);
  while (readAcknowledged(host, place).length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  clearInterval(keepAlive);
  t.deepEqual(readAcknowledged(host, place), [{ name: 'dr1', acknowledgedLsn: last, lostFromLsn: 0 }]);
  await rig.close();
});

test('what a replica lost is not released, however much it had acknowledged before', async (t) => {
  const rig = await Rig.open(t);
  const last = await rig.write(90);
  rig.sink.seek(1);
  await rig.sink.sent(last);
  const { marks } = rig.journal;
  rig.sink.hold(last);
  t.is(marks.address('shipped'), 0, 'ship.state is written first, and later');
  const early = rig.sink.frames[0]!.lastLsn;
  rig.sink.hold(early);
  t.is(rig.shipper.status().replicatedLsn, early);
  await untilMarks(rig, () => marks.address('shipped') > 0);
  t.true(marks.address('shipped') <= rig.journal.addressOf(early + 1), `${marks.address('shipped')}`);
  await rig.close();
  t.true(marks.address('shipped') <= rig.journal.addressOf(early + 1), 'nor at the stop');
});

test('what a replica held when the shipper stopped is released by the time it has stopped', async (t) => {
  const rig = await Rig.open(t);
  const last = await rig.write(90);
  rig.sink.seek(1);
  await rig.sink.sent(last);
  rig.sink.hold(last);
  const { marks } = rig.journal;
  t.is(marks.address('shipped'), 0);
  await rig.shipper.close();
  t.true(marks.address('shipped') > 0);
  await rig.journal.close();
});

test('another chain at the same position is divergence: nothing is sent or released', async (t) => {
  const rig = await Rig.open(t);
  const last = await rig.write(40);
  rig.sink.seek(1);
  await rig.sink.sent(last);
  const frames = rig.sink.frames.length;
  rig.sink.hold(last, { chain: '00000000deadbeef' });
  t.like(rig.shipper.status(), { state: 'diverged', code: 'divergence', replicatedLsn: 0 });
  await rig.write(5);
  rig.sink.seek(last + 1);
  t.is(rig.shipper.status().state, 'diverged');
  t.is(rig.sink.frames.length, frames);
  await rig.close();
});

test('unregistered readers are reported, newer epochs and incarnations stop the source', async (t) => {
  const rig = await Rig.open(t);
  const last = await rig.write(10);
  rig.sink.seek(1);
  await rig.sink.sent(last);
  rig.sink.hold(last, { replica: 'dr9' });
  t.deepEqual(rig.shipper.status().unregistered, ['dr9']);
  t.is(rig.journal.marks.lsn('replicated'), 0);
  rig.sink.hold(last, { incarnation: 9 });
  t.like(rig.shipper.status(), { state: 'stopped', code: 'stale-incarnation' });
  rig.sink.seek(last + 1);
  rig.sink.hold(last, { epoch: 77 });
  t.like(rig.shipper.status(), { state: 'stopped', code: 'stale-epoch' });
  t.is(rig.journal.marks.lsn('replicated'), 0);
  await rig.close();
});

test('a replica that holds more than the journal is never followed', async (t) => {
  const rig = await Rig.open(t);
  const last = await rig.write(10);
  rig.sink.seek(1);
  await rig.sink.sent(last);
  rig.sink.hold(last + 5, { chain: '0123456789abcdef' });
  t.like(rig.shipper.status(), { state: 'needs-resync', code: 'needs-resync', replicatedLsn: 0 });
  t.true(rig.shipper.status().reason.includes(`up to ${last + 5}, this journal only up to ${last}`));
  await rig.close();
});

test('lag in seconds is the age of the newest heartbeat at the replica, unknown before there is one', async (t) => {
  const rig = await Rig.open(t);
  rig.sink.seek(1);
  const first = await rig.write(10);
  await rig.sink.sent(first);
  rig.sink.hold(first - 3);
  t.like(rig.shipper.status().backlog, { records: 3, seconds: null });
  // As old as the clock itself.
  const beat = { monotonicMs: 0, wallMicros: host.clock.wallMicros() };
  rig.journal.append(RecordKind.heartbeat, { body: encodeHeartbeat(beat) });
  const last = await rig.write(5);
  await rig.sink.sent(last);
  rig.sink.hold(last - 2);
  const { seconds, records, bytes } = rig.shipper.status().backlog;
  t.is(records, 2);
  t.true(bytes !== null && bytes >= 2 * 4096, `${bytes}`);
  const age = host.clock.monotonicMs() / 1000;
  t.true(seconds !== null && seconds > 0 && age - seconds < 5, `${seconds} of ${age}`);
  await rig.close();
});

test('before a new incarnation the far side is asked, and what was lost here comes back', async (t) => {
  const rig = await Rig.open(t);
  const kept = await rig.write(30);
  await rig.shipper.close();
  await rig.journal.close();
  const copy = mkdtempSync(join(tmpdir(), 'tidemark-ship-'));
  cpSync(rig.directory, copy, { recursive: true });
  await rig.openJournal();
  await rig.journal.begin();
  await rig.startShipper();
  const last = await rig.write(20);
  rig.sink.seek(1);
  await rig.sink.sent(last);
  const far = rig.sink.frames.map((frame) => frame.bytes);
  await rig.close();

  const lost = await reopen(t, copy);
  t.is(lost.lastLsn, kept);
  const sink = new MemorySink();
  sink.farLsn = last;
  sink.farFrames = far;
  const options = { journal: lost, directory: copy, groupId: GROUP_ID, groupName: 'ship', timeoutMs: 1000 };
  const settled = await settleFarSide(host, { ...options, sinks: [sink] });
  t.like(settled, { highestLsn: last, answered: 1, restored: last - kept });
  t.true(sink.closed);
  t.is((await lost.begin(settled)).counter, 3);
  t.is(lost.lastLsn, last + 1);
  const frames = far.map((bytes) => FrameView.open(bytes));
  for (let lsn = kept + 1; lsn <= last; lsn++) {
    const reader = lost.reader(lost.addressOf(lsn));
    const batch = reader.next(lost.endAddress);
    const frame = frames.find(({ firstLsn, lastLsn }) => firstLsn <= lsn && lsn <= lastLsn);
    t.is(batch?.time, frame?.record(lsn - frame.firstLsn).time, `LSN ${lsn} keeps its time, which its chain covers`);
    await reader.close();
  }
  await lost.close();
});

test('what was lost here comes back although damage hides the chain before it, when the same start sealed it, and from no other', async (t) => {
  for (const [whose, restores] of [
    ['ours', true],
    ['of another', false],
  ] as const) {
    const rig = await Rig.open(t);
    const kept = await rig.write(30);
    await rig.shipper.close();
    const copy = mkdtempSync(join(tmpdir(), 'tidemark-ship-'));
    cpSync(rig.directory, copy, { recursive: true });
    const victim = rig.journal.addressOf(12);
    await rig.startShipper();
    const last = await rig.write(20);
    rig.sink.seek(1);
    await rig.sink.sent(last);
    const far = rig.sink.frames.map((frame) => frame.bytes);
    await rig.close();
    rmSync(join(copy, 'ship.state'), { force: true });
    const name = readdirSync(copy).find((one) => one === `journal-${'0'.repeat(16)}.tmj`)!;
    const bytes = readFileSync(join(copy, name));
    bytes[victim + 200]! ^= 1;
    writeFileSync(join(copy, name), bytes);

    const lost = await reopen(t, copy);
    t.is(lost.lastLsn, kept);
    const sink = new MemorySink();
    sink.farLsn = last;
    // nobody has the damaged records any more
    sink.farFrames = far.filter((frame) => FrameView.open(frame).lastLsn > kept);
    if (whose === 'of another') {
      const counter = lost.report.incarnation.counter;
      Object.assign(lost.report, { incarnation: { counter, nonce: 'fe'.repeat(8) } });
    }
    const options = { journal: lost, directory: copy, groupId: GROUP_ID, groupName: 'ship', timeoutMs: 1000 };
    const settled = await settleFarSide(host, { ...options, sinks: [sink] });
    t.like(settled, { highestLsn: last, answered: 1, restored: restores ? last - kept : 0 }, whose);
    t.is(lost.lastLsn, restores ? last : kept);
    if (!restores) await t.throwsAsync(lost.begin(settled), { code: 'needs-resync' });
    await lost.close();
  }
});

async function reopen(t: ExecutionContext, directory: string): Promise<Journal> {
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return Journal.open(host, {
    directory,
    groupId: GROUP_ID,
    groupName: 'ship',
    fileBytes: 256 * 1024,
    budgetBytes: 16 * 1024 * 1024,
    syncIntervalMs: 20,
  });
}

test('what the far side holds is not taken over when it does not continue what is here', async (t) => {
  const one = await Rig.open(t);
  const other = await Rig.open(t);
  await one.write(10);
  other.append();
  other.journal.append(RecordKind.flush, {});
  const last = await other.write(20);
  other.sink.seek(1);
  await other.sink.sent(last);
  const sink = new MemorySink();
  sink.farLsn = last;
  sink.farFrames = other.sink.frames.map((frame) => frame.bytes);
  await other.close();
  await one.close();
  const journal = await reopen(t, one.directory);
  const options = { journal, directory: one.directory, groupId: GROUP_ID, groupName: 'ship', timeoutMs: 1000 };
  await t.throwsAsync(settleFarSide(host, { ...options, sinks: [sink] }), { code: 'divergence' });
  await journal.close();
});

test('what an earlier start sent behind the end of this journal is passed over at a start, and is no divergence', async (t) => {
  const one = await Rig.open(t);
  const zombie = await Rig.open(t);
  await one.write(10);
  const last = await zombie.write(20);
  zombie.sink.seek(1);
  await zombie.sink.sent(last);
  const frames = zombie.sink.frames.map((frame) => frame.bytes);
  await zombie.close();
  await one.close();
  const second = await reopen(t, one.directory);
  await second.begin();
  await second.sync();
  await second.close();
  const journal = await reopen(t, one.directory);
  const sink = new MemorySink();
  sink.farLsn = last;
  sink.farFrames = frames;
  const options = { journal, directory: one.directory, groupId: GROUP_ID, groupName: 'ship', timeoutMs: 1000 };
  const { lastLsn } = journal;
  const settled = await settleFarSide(host, { ...options, sinks: [sink] });
  t.like(settled, { highestLsn: lastLsn, answered: 1, restored: 0 });
  t.is((await journal.begin(settled)).counter, 3);
  t.is(journal.lastLsn, lastLsn + 1);
  await journal.close();
});

test('a replica right behind what was given up goes on, in this run and after a restart', async (t) => {
  const rig = await Rig.open(t);
  rig.sink.windowBytes = 0;
  await rig.write(200);
  const fileBytes = 256 * 1024;
  const chains: Chain[] = [];
  const reader = rig.journal.reader(0);
  let chain = CHAIN_START;
  for (let batch = reader.next(rig.journal.endAddress); batch; batch = reader.next(rig.journal.endAddress)) {
    for (const record of batch) {
      chain = chainOver(chain, record, batch.time);
      chains[record.lsn] = chain;
    }
  }
  await reader.close();
  for (const file of [1, 2]) {
    await rig.shipper.keepChainAt(file * fileBytes);
    rig.journal.recycleBelow(file * fileBytes);
  }
  const { oldestLsn } = rig.journal;
  t.true(oldestLsn > 50, `${oldestLsn}`);
  for (let run = 0; run < 2; run++) {
    rig.sink.windowBytes = 1 << 30;
    rig.sink.seek(oldestLsn);
    await rig.sink.sent(rig.journal.lastLsn);
    t.is(rig.shipper.status().code, null);
    t.is(rig.sink.frames[0]?.firstLsn, oldestLsn);
    t.deepEqual(rig.sink.frames[0]?.chainBefore, chains[oldestLsn - 1]);
    if (run === 0) await rig.restart();
  }
  await rig.close();
});

test('ship.state: any flipped bit is found; a damaged one counts as missing', async (t) => {
  const checkpoints = [1, 2, 3].map((i) => ({ lsn: i * 10, address: i * 4096, chain: { low: i, high: 2 ** 31 + i } }));
  const bytes = encodeShipState(GROUP_ID, checkpoints);
  t.deepEqual(decodeShipState(bytes, GROUP_ID), checkpoints);
  t.throws(() => decodeShipState(bytes, '00'.repeat(16)), { code: 'journal-foreign' });
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const damaged = bytes.slice();
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    t.throws(() => decodeShipState(damaged, GROUP_ID), { code: 'journal-damaged' });
  }
  const rig = await Rig.open(t);
  const last = await rig.write(30);
  await rig.shipper.close();
  writeFileSync(join(rig.directory, 'ship.state'), bytes.subarray(0, 40));
  await rig.startShipper();
  rig.sink.seek(1);
  await rig.sink.sent(last);
  rig.sink.hold(last);
  await untilMarks(rig, () => rig.journal.marks.address('shipped') > 0);
  t.true(decodeShipState(readFileSync(join(rig.directory, 'ship.state')), GROUP_ID).length > 0);
  await rig.close();
});

test('checkpoints: spaced, bounded, the newest exact, pinned ones kept', (t) => {
  const checkpoints = new ChainCheckpoints([], 1 << 30);
  const chain = { low: 1, high: 2 };
  for (let i = 1; i <= 20_000; i++) {
    checkpoints.note({ lsn: i, chain, address: i * 300_000 });
    if (i === 777) checkpoints.pin(checkpoints.before(777)!);
    if (checkpoints.before(i)!.lsn !== i) t.fail(`the newest is ${checkpoints.before(i)!.lsn}, not ${i}`);
  }
  t.true(checkpoints.list.length <= 2049, `${checkpoints.list.length}`);
  t.is(checkpoints.before(777)!.lsn, 777);
  t.true(checkpoints.before(10_000)!.lsn > 9_900);
  checkpoints.dropBelow(777 * 300_000);
  t.is(checkpoints.before(777)!.lsn, 777);
  t.is(checkpoints.before(776), undefined);
});
