import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { readGivenWord, writeGivenWord } from '../../daemon/ship/given-word.ts';
import { type Settled, settleFarSide } from '../../daemon/ship/settle.ts';
import { Shipper } from '../../daemon/ship/shipper.ts';
import { VolumeRegistry } from '../../daemon/volume/volume-registry.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { chainString } from '../../journal/chain.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { Host } from '../../journal/host/host.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { Journal } from '../../journal/journal.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { decodeGap, type GapBody } from '../../journal/record-bodies.ts';
import { SECOND_BOOT, testHost } from '../journal/journal-fixture.ts';
import { MemorySink } from './memory-sink.ts';

/* Records that nobody holds any more, given up between recovery and the first record of a run. */

const GROUP_ID = 'd0c1c2c3c4c5c6c7c8c9cacbcccdced0';
const FILE_BYTES = 256 * 1024;
const PLACE = (directory: string) => ({ directory, groupId: GROUP_ID });
const REASON = 'Ada: nobody has them';

function openJournal(directory: string, host: Host = realHost()): Promise<Journal> {
  const options = { directory, groupId: GROUP_ID, groupName: 'lost', fileBytes: FILE_BYTES };
  return Journal.open(host, { ...options, budgetBytes: 16 * 1024 * 1024, syncIntervalMs: 20 });
}

interface Past {
  readonly directory: string;
  readonly lastLsn: Lsn;
  readonly addressOf: (lsn: Lsn) => number;
  /** Everything, as frames of few records. */
  readonly frames: readonly FrameView[];
}

/**
 * A journal of 150 writes (record 60 is a trim) that was shipped whole, stopped cleanly, and a volume of it. Behind
 * `idleAfter` nobody wrote for a while.
 */
async function past(t: ExecutionContext, idleAfter?: Lsn): Promise<Past> {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-lost-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const journal = await openJournal(directory);
  await journal.begin();
  const registry = VolumeRegistry.load(realHost(), PLACE(directory));
  registry.add('root', 1024 * 1024, undefined).standing = 'protected';
  await registry.save();
  const sink = new MemorySink();
  const shipper = await ship(journal, directory, sink);
  sink.seek(1);
  for (let lsn = journal.lastLsn + 1; lsn <= 150; lsn++) {
    const place = { volume: 1, sector: (lsn % 64) * 8, sectors: 8 };
    if (lsn === 60) journal.append(RecordKind.trim, place);
    else journal.append(RecordKind.write, { ...place, body: new Uint8Array(4096).fill(lsn) });
    await journal.sync();
    // an idle journal proves its end by a batch without records, which may come before the record has been sent
    const { endAddress } = journal;
    await sink.sent(lsn);
    while (lsn === idleAfter && journal.endAddress === endAddress) await setTimeout(5);
  }
  // so that ship.state is written, with chains up to the end
  sink.hold(30);
  const addresses = new Map<Lsn, number>();
  for (let lsn = 1; lsn <= 150; lsn++) addresses.set(lsn, journal.addressOf(lsn));
  await shipper.close();
  await journal.close();
  if (!existsSync(join(directory, 'ship.state'))) throw new Error('nothing was released');
  return { directory, lastLsn: 150, addressOf: (lsn) => addresses.get(lsn) ?? 0, frames: sink.frames };
}

function ship(journal: Journal, directory: string, sink: MemorySink, host: Host = realHost()): Promise<Shipper> {
  const { epoch, incarnation } = journal;
  return Shipper.open(host, {
    directory,
    journal,
    marks: journal.marks,
    identity: { groupId: GROUP_ID, groupName: 'lost', epoch, incarnation: incarnation!, frameVersion: FRAME_VERSION },
    sinks: [sink],
    replicas: [{ name: 'dr1', required: true }],
  });
}

/** Zeroes [from, to) of the journal's address space. */
function rot(directory: string, from: number, to: number): void {
  for (const name of readdirSync(directory).filter((one) => one.startsWith('journal-'))) {
    const start = Number.parseInt(name.slice(8, 24), 16) * FILE_BYTES;
    if (to <= start || from >= start + FILE_BYTES) continue;
    const bytes = readFileSync(join(directory, name));
    bytes.fill(0, Math.max(0, from - start), Math.min(FILE_BYTES, to - start));
    writeFileSync(join(directory, name), bytes);
  }
}

/** A far side that holds the first `lsn` records. */
function holding({ frames }: Past, lsn: Lsn): MemorySink {
  const sink = new MemorySink();
  sink.farLsn = lsn;
  sink.farFrames = frames.filter(({ lastLsn }) => lastLsn <= lsn).map(({ bytes }) => bytes);
  return sink;
}

interface Told {
  readonly writtenOutTo?: number;
  readonly sinks: readonly MemorySink[];
  readonly host?: Host;
}

/** A start up to where the first record of the run would come. */
async function settle(journal: Journal, directory: string, told: Told): Promise<Settled> {
  const host = told.host ?? realHost();
  const word = readGivenWord(host, PLACE(directory));
  const seedAllAnew = async (): Promise<void> => {
    const registry = VolumeRegistry.load(host, PLACE(directory));
    registry.seedAllAnew();
    await registry.save();
  };
  const writtenOutTo = told.writtenOutTo ?? journal.endAddress;
  const place = { journal, directory, groupId: GROUP_ID, groupName: 'lost', sinks: told.sinks, timeoutMs: 1000 };
  if (word === undefined) return settleFarSide(host, place);
  return settleFarSide(host, { ...place, giveUp: { word, writtenOutTo, seedAllAnew, replicas: ['dr1'] } });
}

async function sayWord(directory: string, fromLsn: Lsn, toLsn: Lsn, address: number): Promise<void> {
  await writeGivenWord(realHost(), PLACE(directory), { reason: REASON, stretches: [{ fromLsn, toLsn, address }] });
}

function isSeededAnew(directory: string): boolean {
  return VolumeRegistry.load(realHost(), PLACE(directory)).all.every(
    ({ standing, reseedFromLsn }) => standing === 'seeding' && reseedFromLsn === 0,
  );
}

interface Content {
  readonly lost: Lsn[];
  readonly gaps: GapBody[];
}

/** Reads everything; every write holds what it held, and no LSN is left out. */
async function contentOf(t: ExecutionContext, journal: Journal): Promise<Content> {
  const content: Content = { lost: [], gaps: [] };
  const reader = journal.reader(journal.oldestAddress);
  let next = 1;
  for (let batch = reader.next(journal.endAddress); batch !== undefined; batch = reader.next(journal.endAddress)) {
    for (const { kind, lsn, payload } of batch) {
      t.is(lsn, next++);
      if (kind === RecordKind.write) t.true(payload.every((byte) => byte === lsn % 256));
      if (kind !== RecordKind.lost) continue;
      content.lost.push(lsn);
      if (payload.length > 0) content.gaps.push(decodeGap(payload));
    }
  }
  await reader.close();
  t.is(next, journal.lastLsn + 1);
  return content;
}

const range = (from: Lsn, to: Lsn): Lsn[] => Array.from({ length: to - from + 1 }, (_, index) => from + index);

test('what a replica still holds of the lost records is put back, in place of the rest stands a gap, and shipping goes on', async (t) => {
  const was = await past(t);
  const { directory, addressOf, frames } = was;
  rot(directory, addressOf(100), addressOf(111));
  await sayWord(directory, 100, 110, addressOf(100));
  const journal = await openJournal(directory);
  const settled = await settle(journal, directory, { sinks: [holding(was, 105), holding(was, 20)] });
  const gap = { fromLsn: 106, toLsn: 110, reason: REASON };
  t.deepEqual(settled.givenUp, { given: [gap], mended: 0 });
  t.deepEqual(settled.unmended, []);
  t.is(readGivenWord(realHost(), PLACE(directory)), undefined);
  t.true(isSeededAnew(directory));
  await journal.begin({ highestLsn: settled.highestLsn });
  t.deepEqual(await contentOf(t, journal), { lost: range(106, 110), gaps: [gap] });
  const sink = new MemorySink();
  const shipper = await ship(journal, directory, sink);
  sink.seek(106);
  await sink.sent(journal.lastLsn);
  const held = frames.find(({ lastLsn }) => lastLsn === 105);
  t.deepEqual(sink.frames[0]?.chainBefore, held?.chainAfter, 'it continues what the replica holds');
  t.deepEqual(
    sink.frames.flatMap((view) => range(view.firstLsn, view.lastLsn)),
    range(106, journal.lastLsn),
  );
  t.is(FrameView.open(sink.frames[0]!.bytes).layout.header.flags, 1, 'a replica that does not know of gaps refuses it');
  sink.hold(journal.lastLsn);
  t.is(shipper.status().state, 'streaming');
  t.is(shipper.status().replicas[0]?.provenLsn, journal.lastLsn);
  sink.seek(140);
  await sink.sent(journal.lastLsn);
  t.is(sink.chainAt(145), chainString(sink.frames[0]!.chainAt(145)), 'no chain from before the gap is used');
  sink.seek(1);
  await sink.sent(journal.lastLsn);
  await shipper.close();
  await journal.close();
});

for (const [what, lost, hurt] of [
  ['one record without a payload', [60, 60], (at: Past['addressOf']) => [at(60), at(61)]],
  ['the rest of a file', [56, 61], (at: Past['addressOf']) => [at(56), FILE_BYTES]],
  ['the end of a file and the header of the next', [56, 66], (at: Past['addressOf']) => [at(56), at(67)]],
  ['a file behind its header', [62, 123], (at: Past['addressOf']) => [at(62), at(124)]],
] as const) {
  test(`given up: ${what}; every LSN stays, and a start afterwards finds nothing damaged`, async (t) => {
    const was = await past(t);
    const { directory, addressOf } = was;
    const [from = 0, to = 0] = hurt(addressOf);
    rot(directory, from, to);
    let journal = await openJournal(directory);
    const [damage] = journal.report.damage;
    const stretch = journal.damageAt(damage?.address ?? from);
    t.true(
      stretch !== undefined && stretch.fromLsn >= lost[0] && stretch.fromLsn <= lost[0] + 6,
      `${stretch?.fromLsn}`,
    );
    const { fromLsn = 0, toLsn = 0, address = 0 } = stretch ?? {};
    await sayWord(directory, fromLsn, toLsn, address);
    const settled = await settle(journal, directory, { sinks: [holding(was, 40)] });
    t.like(settled.givenUp?.given[0], { fromLsn, toLsn });
    await journal.begin();
    t.deepEqual((await contentOf(t, journal)).lost, range(fromLsn, toLsn));
    await journal.close();
    journal = await openJournal(directory, { ...realHost(), bootId: SECOND_BOOT });
    t.deepEqual(journal.report.damage, []);
    await journal.begin();
    const sink = new MemorySink();
    const shipper = await ship(journal, directory, sink);
    sink.seek(41);
    await sink.sent(journal.lastLsn);
    await shipper.close();
    await journal.close();
  });
}

test('two stretches with nothing but a proof of the end between them are given up, each by its own part of the word', async (t) => {
  const was = await past(t, 105);
  const { directory, addressOf } = was;
  const between = addressOf(106) - 64;
  rot(directory, addressOf(100), between);
  rot(directory, addressOf(106), addressOf(111));
  const stretches = [
    { fromLsn: 100, toLsn: 105, address: addressOf(100) },
    { fromLsn: 106, toLsn: 110, address: addressOf(106) },
  ];
  await writeGivenWord(realHost(), PLACE(directory), { reason: REASON, stretches });
  const journal = await openJournal(directory);
  for (const one of stretches) t.like(journal.damageAt(one.address), { fromLsn: one.fromLsn, toLsn: one.toLsn });
  const settled = await settle(journal, directory, { sinks: [holding(was, 40)] });
  const given = stretches.map(({ fromLsn, toLsn }) => ({ fromLsn, toLsn, reason: REASON }));
  t.deepEqual(settled.givenUp, { given, mended: 0 });
  t.is(readGivenWord(realHost(), PLACE(directory)), undefined);
  await journal.begin();
  t.deepEqual((await contentOf(t, journal)).lost, range(100, 110));
  await journal.close();
});

test('nothing is given up while somebody may hold it: the word waits, the damage stays, no volume is seeded', async (t) => {
  const was = await past(t);
  const { directory, addressOf } = was;
  rot(directory, addressOf(100), addressOf(111));
  const silent = holding(was, 20);
  silent.settle = () => Promise.reject(new TidemarkError('stream-unavailable', 'nobody there'));
  const ahead = holding(was, 99);
  ahead.farLsn = 108;
  const acknowledged = async (acknowledgedLsn: Lsn): Promise<void> => {
    const host = testHost();
    const journal = await openJournal(directory, host);
    await journal.begin();
    const sink = new MemorySink();
    const shipper = await ship(journal, directory, sink, host);
    sink.seek(60);
    sink.hold(acknowledgedLsn, { chain: '0'.repeat(16) });
    await shipper.close();
    await journal.close();
  };
  const cases: readonly (readonly [
    string,
    Told & { told?: readonly [Lsn, Lsn]; before?: () => Promise<void> },
    RegExp,
  ])[] = [
    ['one is away', { sinks: [holding(was, 99), silent] }, /not everybody could be asked/],
    ['one says that it holds more', { sinks: [ahead] }, /somebody holds records up to 108/],
    ['more is damaged than was told', { sinks: [holding(was, 99)], told: [100, 109] }, /more than was given up/],
    ['the disks need them', { sinks: [holding(was, 99)], writtenOutTo: addressOf(105) }, /needed by the disks/],
    ['one acknowledged them once', { sinks: [holding(was, 99)], before: () => acknowledged(107) }, /up to 107/],
  ];
  for (const [what, { told = [100, 110], before, ...rest }, why] of cases) {
    await before?.();
    await sayWord(directory, told[0], told[1], addressOf(100));
    const journal = await openJournal(directory);
    const settled = await settle(journal, directory, rest);
    t.regex(settled.givenUp?.waiting ?? '', why, what);
    t.like(journal.damageAt(addressOf(100)), { fromLsn: 100, toLsn: 110 }, what);
    t.false(isSeededAnew(directory), what);
    t.true(readGivenWord(realHost(), PLACE(directory)) !== undefined, what);
    await journal.close();
  }
  const journal = await openJournal(directory);
  const all = await settle(journal, directory, { sinks: [holding(was, 150)] });
  t.deepEqual(all.givenUp, { given: [], mended: 1 });
  t.is(all.mended, 1);
  t.deepEqual((await contentOf(t, journal)).lost, []);
  t.false(isSeededAnew(directory), 'who comes after all gives them back, and nothing is given up');
  t.is(readGivenWord(realHost(), PLACE(directory)), undefined);
  await journal.close();
});

for (const [what, keeps] of [
  ['killed', [1]],
  ['power lost', [0, 0.3, 0.6, 0.9]],
] as const) {
  test(`at any write or sync of giving up: the damage is there with the word, or the gap with the seed behind it: ${what}`, async (t) => {
    const was = await past(t);
    const { directory, addressOf } = was;
    // two files, and what the replica holds of it
    rot(directory, addressOf(50), addressOf(67));
    const probe = await openJournal(directory);
    const stretch = probe.damageAt(addressOf(50));
    await probe.close();
    const { fromLsn = 0, toLsn = 0, address = 0 } = stretch ?? {};
    await sayWord(directory, fromLsn, toLsn, address);
    let random = 7;
    const chance = (): number => {
      random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
      return random / 2 ** 32;
    };
    let finished = 0;
    let died = 0;
    for (let dieAt = 0; finished < keeps.length && dieAt < 100; dieAt++) {
      for (const keep of keeps) {
        const place = mkdtempSync(join(tmpdir(), 'tidemark-lost-'));
        try {
          cpSync(directory, place, { recursive: true });
          const host = testHost(SECOND_BOOT);
          const journal = await openJournal(place, host);
          let operations = 0;
          host.disk.fault = () => (operations++ >= dieAt ? 'EIO' : undefined);
          try {
            await settle(journal, place, { sinks: [holding(was, 52)], host });
            finished++;
          } catch {
            died++;
          }
          const hasWord = existsSync(join(place, 'give-up.state'));
          t.true(hasWord || isSeededAnew(place), `${dieAt}`);
          if (operations > dieAt) mixSectors(directory, place, () => chance() < keep);
          host.disk.fault = () => undefined;
          await journal.close();
          const again = await openJournal(place, { ...realHost(), bootId: `${SECOND_BOOT.slice(0, -1)}3` });
          const visible = await lostSoFar(again);
          t.true(visible.length === 0 || isSeededAnew(place), `${dieAt}: a gap and no seed behind it`);
          await settle(again, place, { sinks: [holding(was, 52)] });
          await again.begin();
          t.deepEqual((await contentOf(t, again)).lost, range(53, toLsn), `${dieAt}`);
          t.true(isSeededAnew(place));
          t.is(readGivenWord(realHost(), PLACE(place)), undefined);
          await again.close();
        } finally {
          rmSync(place, { recursive: true, force: true });
        }
      }
    }
    t.true(died >= 5 * keeps.length && finished === keeps.length, `${died} ${finished}`);
  });
}

/** What a power loss leaves of the journal's files: sectors as they were, or as they were written since. */
function mixSectors(before: string, now: string, keepsNew: () => boolean): void {
  for (const name of readdirSync(now).filter((one) => one.startsWith('journal-'))) {
    const old = readFileSync(join(before, name));
    const bytes = readFileSync(join(now, name));
    for (let at = 0; at < bytes.length; at += 512) {
      const sector = old.subarray(at, at + 512);
      if (!sector.equals(bytes.subarray(at, at + 512)) && !keepsNew()) sector.copy(bytes, at);
    }
    writeFileSync(join(now, name), bytes);
  }
}

/** LSNs of LOST records that can be read, from the beginning to the end, over what cannot. */
async function lostSoFar(journal: Journal): Promise<Lsn[]> {
  const found: Lsn[] = [];
  const reader = journal.reader(journal.oldestAddress);
  for (;;) {
    try {
      const batch = reader.next(journal.endAddress);
      if (batch === undefined) break;
      for (const { kind, lsn } of batch) if (kind === RecordKind.lost) found.push(lsn);
    } catch {
      if (reader.skipDamage(journal.endAddress) === undefined) break;
    }
  }
  await reader.close();
  return found;
}
