import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { ChainCheckpoints } from '../../daemon/ship/chain-checkpoints.ts';
import { mendStretch } from '../../daemon/ship/mend-stretch.ts';
import { settleFarSide } from '../../daemon/ship/settle.ts';
import { Shipper } from '../../daemon/ship/shipper.ts';
import { unshippedPlace } from '../../daemon/ship/unshipped-place.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import { FrameSealer } from '../../journal/frame-sealer.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { NeededPlace } from '../../journal/gone-files.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { Journal } from '../../journal/journal.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { MemorySink } from './memory-sink.ts';

const GROUP_ID = 'd0c1c2c3c4c5c6c7c8c9cacbcccdced0';
const FILE_BYTES = 256 * 1024;
const host = realHost();

interface Rig {
  readonly directory: string;
  readonly journal: Journal;
  readonly sink: MemorySink;
  /** Ends what is running; the journal stays as it is. */
  readonly shipper: Shipper;
}

async function openRig(
  t: ExecutionContext,
  directory?: string,
  replicas = [{ name: 'dr1', required: true }],
): Promise<Rig> {
  const place = directory ?? mkdtempSync(join(tmpdir(), 'tidemark-mend-'));
  t.teardown(() => rmSync(place, { recursive: true, force: true }));
  const journal = await openJournal(place);
  await journal.begin();
  const sink = new MemorySink();
  const shipper = await Shipper.open(host, {
    directory: place,
    journal,
    marks: journal.marks,
    identity: {
      groupId: GROUP_ID,
      groupName: 'mend',
      epoch: journal.epoch,
      incarnation: journal.incarnation!,
      frameVersion: FRAME_VERSION,
    },
    sinks: [sink],
    replicas,
    sealer: { targetBytes: 64 * 1024 },
  });
  t.teardown(async () => {
    await shipper.close();
    await journal.close();
  });
  return { directory: place, journal, sink, shipper };
}

function openJournal(directory: string, unshipped?: NeededPlace): Promise<Journal> {
  return Journal.open(host, {
    directory,
    groupId: GROUP_ID,
    groupName: 'mend',
    fileBytes: FILE_BYTES,
    budgetBytes: 16 * 1024 * 1024,
    syncIntervalMs: 20,
    unshipped,
  });
}

async function write({ journal }: Rig, count: number): Promise<Lsn> {
  for (let i = 0; i < count; i++) {
    const lsn = journal.lastLsn + 1;
    const body = new Uint8Array(4096).fill(lsn);
    journal.append(RecordKind.write, { volume: 1, sector: lsn * 8, sectors: 8, body });
  }
  await journal.sync();
  return journal.lastLsn;
}

function spoil(directory: string, address: number, change: (bytes: Buffer) => void): void {
  const sequence = Math.floor(address / FILE_BYTES);
  const names = readdirSync(directory).filter((name) => name.startsWith('journal-'));
  const path = join(directory, names.find((name) => Number.parseInt(name.slice(8, 24), 16) === sequence) ?? '');
  const bytes = readFileSync(path);
  const before = Buffer.from(bytes);
  change(bytes.subarray(address % FILE_BYTES));
  if (!before.equals(bytes)) writeFileSync(path, bytes);
}

/** What everybody sent so far, as a replica would give it back. */
function give(sink: MemorySink): void {
  sink.farFrames = sink.frames.map((view) => view.bytes);
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (const end = performance.now() + 30_000; !holds(); ) {
    if (performance.now() > end) throw new Error(`not within 30 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const DAMAGES: readonly (readonly [string, number, (bytes: Buffer) => void])[] = [
  ['a flipped bit in a body', 100, (bytes) => (bytes[0] = (bytes[0] ?? 0) ^ 4)],
  ['a flipped bit in a header', 20, (bytes) => (bytes[0] = (bytes[0] ?? 0) ^ 4)],
  ['zeroed sectors', 0, (bytes) => bytes.fill(0, 0, 20 * 512)],
  ['a lost rest of a file', 0, (bytes) => bytes.fill(0)],
];

for (const [what, offset, change] of DAMAGES) {
  test(`found by the shipper of a running journal: ${what} is put back from the far side, and shipping goes on`, async (t) => {
    const rig = await openRig(t);
    const { journal, sink, shipper, directory } = rig;
    sink.seek(1);
    const lastLsn = await write(rig, 150);
    await sink.sent(lastLsn);
    const before = sink.frames.map((view) => view.bytes);
    const victim = journal.addressOf(40);
    spoil(directory, victim + offset, change);
    // the replica lost everything; nobody has what it needs
    sink.seek(1);
    await until('the damage is named', () => shipper.damage.length > 0);
    t.is(shipper.status().code, 'journal-damaged');
    t.is(shipper.damage[0]?.fromLsn, 40);
    const held = sink.frames.length;
    sink.farFrames = before;
    shipper.mendAt(shipper.damage[0]!.address);
    await sink.sent(lastLsn);
    t.deepEqual(shipper.damage, []);
    t.is(shipper.status().state, 'streaming');
    t.true(sink.frames.length > held);
    const again = await write(rig, 5);
    await sink.sent(again);
    t.is(sink.frames.at(-1)?.lastLsn, again);
  });
}

test('what the far side gives back is written only when it agrees with everything that can be read here', async (t) => {
  const rig = await openRig(t);
  const { journal, sink, shipper, directory } = rig;
  sink.seek(1);
  const lastLsn = await write(rig, 60);
  await sink.sent(lastLsn);
  const real = sink.frames.map((view) => view.bytes);
  const lies: [string, Uint8Array[]][] = [
    ['other bytes in a record', forge(sink.frames, (lsn, payload) => (lsn === 30 ? payload.fill(9) : payload))],
    ['another record before', forge(sink.frames, (lsn, payload) => (lsn === 29 ? payload.fill(9) : payload))],
    ['another record behind', forge(sink.frames, (lsn, payload) => (lsn === 32 ? payload.fill(9) : payload))],
    ['only a part', real.filter((bytes) => FrameView.open(bytes).lastLsn < 30)],
    ['nothing', []],
  ];
  const from = journal.addressOf(30);
  const stretch = (): string => {
    let digest = '';
    spoil(directory, from, (bytes) => (digest = bytes.subarray(0, 8400).toString('base64')));
    return digest;
  };
  spoil(directory, from + 90, (bytes) => bytes.fill(0, 0, 5000));
  const spoilt = stretch();
  sink.seek(1);
  await until('the damage is named', () => shipper.damage.length > 0);
  const { address } = shipper.damage[0]!;
  for (const [what, frames] of lies) {
    sink.farFrames = frames;
    const asked = sink.fetches;
    // waits for the end of the attempt: what is written too much is written by then
    const [refused] = await shipper.askAgain();
    t.true(sink.fetches > asked, `${what} was asked for`);
    t.is(refused?.address, address, `${what} was refused`);
    t.true(stretch() === spoilt, what);
  }
  sink.farFrames = real;
  shipper.mendAt(address);
  await sink.sent(lastLsn);
  t.deepEqual(shipper.damage, []);
});

test('where no chain leads to the damage, the records beside it say whether what comes is ours', async (t) => {
  const rig = await openRig(t);
  const { journal, sink, shipper, directory } = rig;
  sink.seek(1);
  const lastLsn = await write(rig, 60);
  await sink.sent(lastLsn);
  await shipper.close();
  const from = journal.addressOf(30);
  // the first damage breaks the chain from the beginning, and none is known behind the second
  for (const address of [journal.addressOf(10), from])
    spoil(directory, address + 90, (bytes) => bytes.fill(0, 0, 5000));
  const stretch = journal.damageAt(from)!;
  const mend = (farFrames: Uint8Array[]): Promise<number> => {
    const far = new MemorySink();
    far.farFrames = farFrames;
    const checkpoints = new ChainCheckpoints([], journal.fileBytes);
    return mendStretch(host, { journal, groupId: GROUP_ID, sinks: [far], checkpoints, timeoutMs: 1000 }, stretch);
  };
  for (const other of [stretch.fromLsn - 1, stretch.toLsn + 1]) {
    const lie = forge(sink.frames, (lsn, payload) => (lsn === other ? payload.fill(9) : payload));
    await t.throwsAsync(mend(lie), { code: 'divergence' }, `another record ${other}`);
    t.is(journal.damageAt(from)?.fromLsn, stretch.fromLsn);
  }
  t.true((await mend(sink.frames.map((view) => view.bytes))) > 0);
  t.is(journal.damageAt(from), undefined);
});

test('what a replica asks for again is not trimmed from the topic as long as it asks', async (t) => {
  const rig = await openRig(t);
  const { sink } = rig;
  sink.seek(1);
  const lastLsn = await write(rig, 60);
  await sink.sent(lastLsn);
  sink.accept(lastLsn);
  const [first, second] = sink.frames.map((view) => view.lastLsn);
  sink.hold(first!);
  t.is(sink.trimmedLsn, first!);
  for (const held of [second!, lastLsn]) {
    sink.hold(held, { damagedFrom: first! + 2 });
    t.is(sink.trimmedLsn, first! + 1);
  }
  sink.hold(lastLsn);
  t.is(sink.trimmedLsn, lastLsn);
});

/** The same history sealed anew with other payloads: whole in itself. */
function forge(frames: readonly FrameView[], change: (lsn: Lsn, payload: Uint8Array) => Uint8Array): Uint8Array[] {
  const [first] = frames;
  const sealer = new FrameSealer(
    { groupId: GROUP_ID, epoch: first!.epoch, incarnation: first!.incarnation },
    { chunkBytes: 4096, targetBytes: 64 * 1024, compress: false },
  );
  sealer.begin(1, first!.chainBefore);
  const forged: Uint8Array[] = [];
  for (const view of frames) {
    view.forEach((record, index) => sealer.add({ ...record, payload: change(record.lsn, view.payloadOf(index)) }));
    forged.push(sealer.seal(view.sourceDurableLsn).bytes);
  }
  return forged;
}

test('found at a start: what the far side holds is put back before anything is numbered anew', async (t) => {
  const rig = await openRig(t);
  const { directory, sink } = rig;
  sink.seek(1);
  const lastLsn = await write(rig, 150);
  await sink.sent(lastLsn);
  const victim = rig.journal.addressOf(145);
  await rig.shipper.close();
  await rig.journal.close();
  spoil(directory, victim, (bytes) => bytes.fill(0, 0, 9000));
  give(sink);
  const journal = await openJournal(directory);
  t.is(journal.report.damage.length, 1);
  const far = new MemorySink();
  far.farLsn = lastLsn;
  const options = { journal, directory, groupId: GROUP_ID, groupName: 'mend', sinks: [far], timeoutMs: 1000 };
  const alone = await settleFarSide(host, options);
  t.like(alone, { mended: 0, restored: 0 });
  t.deepEqual([alone.unmended[0]?.fromLsn, (alone.unmended[0]?.toLsn ?? 0) >= 145], [145, true]);
  const holder = new MemorySink();
  holder.farLsn = lastLsn;
  holder.farFrames = sink.farFrames;
  t.like(await settleFarSide(host, { ...options, sinks: [far, holder] }), { mended: 1, restored: 0, unmended: [] });
  await journal.begin();
  const reader = journal.reader(journal.oldestAddress);
  let read = 0;
  for (let batch = reader.next(journal.endAddress); batch !== undefined; batch = reader.next(journal.endAddress)) {
    for (const record of batch) {
      if (record.kind === RecordKind.write) t.true(record.payload.every((byte) => byte === record.lsn % 256));
      read = record.lsn;
    }
  }
  await reader.close();
  t.is(read, lastLsn + 1);
  await journal.close();
});

test('a file of the journal that is gone is not stepped over: a replica that needs its records is told to resync', async (t) => {
  const rig = await openRig(t);
  const { directory, sink } = rig;
  sink.seek(1);
  const lastLsn = await write(rig, 220);
  await sink.sent(lastLsn);
  await rig.shipper.close();
  await rig.journal.close();
  const names = readdirSync(directory).filter((name) => name.startsWith('journal-0'));
  t.true(names.length > 3);
  rmSync(join(directory, names[1]!));
  const again = await openRig(t, directory);
  t.true(again.journal.oldestLsn > 60);
  again.sink.seek(50);
  t.like(again.shipper.status(), { state: 'needs-resync', code: 'needs-resync' });
  t.deepEqual(again.sink.frames, []);
});

test('a file of the journal that is gone and that only a replica needs is put back from who has its records', async (t) => {
  const rig = await openRig(t);
  const { directory, sink } = rig;
  sink.seek(1);
  const lastLsn = await write(rig, 260);
  await sink.sent(lastLsn);
  sink.hold(40);
  await rig.shipper.close();
  await rig.journal.close();
  const place = { directory, groupId: GROUP_ID };
  const replicas = [{ name: 'dr1', required: true }];
  const needed = await unshippedPlace(host, place, FILE_BYTES, replicas);
  t.true(needed !== undefined && needed.lsn <= 41 && needed.address < FILE_BYTES);
  t.is((await unshippedPlace(host, place, FILE_BYTES, [...replicas, { name: 'new', required: true }]))?.lsn, 1);
  const names = readdirSync(directory).filter((name) => name.startsWith('journal-0'));
  for (const name of names.slice(1, 3)) rmSync(join(directory, name));
  for (const [held, holder] of [
    ['nobody', new MemorySink()],
    ['another replica', new MemorySink()],
  ] as const) {
    holder.farLsn = lastLsn;
    if (held !== 'nobody') holder.farFrames = sink.frames.map((view) => view.bytes);
    const journal = await openJournal(directory, needed);
    t.is(journal.oldestLsn, 1, held);
    t.is(journal.report.damage.length, 1, held);
    const { fromLsn, toLsn, reason } = journal.report.damage[0]!;
    t.true(fromLsn > 41 && toLsn < lastLsn && toLsn - fromLsn > 50, `${fromLsn} to ${toLsn}`);
    t.is(reason, 'the file is gone, or empty');
    const options = { journal, directory, groupId: GROUP_ID, groupName: 'mend', sinks: [holder], timeoutMs: 1000 };
    const mended = held === 'nobody' ? 0 : 1;
    t.like(await settleFarSide(host, options), { mended, restored: 0 }, held);
    await journal.close();
  }
  const again = await openRig(t, directory);
  t.is(again.journal.oldestLsn, 1);
  again.sink.seek(41);
  await again.sink.sent(lastLsn);
  t.is(again.shipper.status().state, 'streaming');
  // what lies below was given free meanwhile: what else is gone cannot be told from that
  rmSync(join(directory, names[0]!));
  t.is(await unshippedPlace(host, place, FILE_BYTES, replicas), undefined);
});

test('what a replica asks for again is kept in the journal and in the topic until it asks no more', async (t) => {
  const rig = await openRig(t);
  const { journal, sink } = rig;
  sink.seek(1);
  for (let round = 0; round < 10; round++) {
    await write(rig, 15);
    await sink.sent(journal.lastLsn);
  }
  const lastLsn = journal.lastLsn;
  sink.hold(lastLsn, { damagedFrom: 40 });
  t.is(sink.trimmedLsn, 39);
  // longer than what is released waits to be written down
  await new Promise((resolve) => setTimeout(resolve, 1200));
  t.true(journal.marks.address('shipped') <= journal.addressOf(40));
  sink.hold(lastLsn);
  t.is(sink.trimmedLsn, lastLsn);
  await until('it is given free', () => journal.marks.address('shipped') > journal.addressOf(lastLsn - 15));
});

test('what a replica asks for that is not required is kept in the topic; the journal waits for it no more than for its acknowledgements', async (t) => {
  const optional = { name: 'dr2', required: false };
  const rig = await openRig(t, undefined, [{ name: 'dr1', required: true }, optional]);
  const { journal, sink } = rig;
  sink.seek(1);
  for (let round = 0; round < 10; round++) {
    await write(rig, 15);
    await sink.sent(journal.lastLsn);
  }
  const lastLsn = journal.lastLsn;
  // and is never heard again
  sink.hold(lastLsn, { replica: 'dr2', damagedFrom: 40 });
  sink.hold(lastLsn);
  t.is(sink.trimmedLsn, 39);
  await until('it is given free', () => journal.marks.address('shipped') > journal.addressOf(lastLsn - 15));
  t.is(sink.trimmedLsn, 39);
});
