import test, { type ExecutionContext } from 'ava';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import type { SealedFrame } from '../../journal/frame-sealer.ts';
import { REPLICA_DEFAULTS, ReplicaGroup, type ReplicaGroupOptions } from '../../replica/replica-group.ts';
import { GROUP, HandSource, History, Model, START, seal } from './support/history.ts';
import { type MemoryHost, memoryHost, SeededRandom } from './support/memory-host.ts';

/* Segments that are gone whole are made anew of what the far side gives, by proof. */

const RECORDS = 400;
const SEGMENTS = '/replica/segments';

function open(host: MemoryHost, change: Partial<ReplicaGroupOptions> = {}): Promise<ReplicaGroup> {
  return ReplicaGroup.open(host, {
    ...REPLICA_DEFAULTS,
    directory: '/replica',
    groupId: GROUP,
    replica: 'r1',
    segmentBytes: 64 * 1024,
    reserveBytes: 4096,
    memtableEntries: 64,
    ...change,
  });
}

/** A stream whose far side gives frames again, from whichever frame holds the LSN. */
class GivingSource extends HandSource {
  readonly frames: readonly SealedFrame[];
  asked = 0;

  constructor(frames: readonly SealedFrame[]) {
    super();
    this.frames = frames;
  }

  async *fetch(fromLsn: number): AsyncGenerator<Uint8Array> {
    await Promise.resolve();
    this.asked += 1;
    const oldest = this.frames[0]?.firstLsn ?? 0;
    if (fromLsn < oldest) throw new TidemarkError('trimmed', `the oldest is ${oldest}`);
    for (const frame of this.frames) if (frame.lastLsn >= fromLsn) yield frame.bytes;
  }
}

function madeHistory(seed: number, count = RECORDS): History {
  const history = new History(seed);
  history.addVolumes();
  return history.fill(count);
}

async function received(history: History, change: Partial<ReplicaGroupOptions> = {}): Promise<MemoryHost> {
  const host = memoryHost(history.lastLsn);
  const group = await open(host, change);
  const source = new HandSource();
  group.start(source);
  for (const frame of seal(history)) {
    source.push(frame);
    await group.idle();
  }
  await group.close();
  return host;
}

function segments(host: MemoryHost): string[] {
  return host.disk
    .list(SEGMENTS)
    .filter((name) => name.endsWith('.seg'))
    .map((name) => `${SEGMENTS}/${name}`);
}

/** The first LSN that a segment holds. */
function beginOf(host: MemoryHost, path: string): number {
  return Number(host.disk.files.get(path)!.bytes.readBigUInt64LE(40));
}

/** Every disk at many points: the model's bytes, or refused; returns the first LSN that was refused, 0: none. */
async function firstRefused(t: ExecutionContext, group: ReplicaGroup, history: History): Promise<number> {
  const model = new Model();
  for (let lsn = 12; lsn <= group.headLsn; lsn += 23) {
    model.advance(history, lsn);
    const view = group.openView({ lsn, owner: 't', scratchBytesMax: 0 });
    try {
      for (const { volume, device } of view.volumes) {
        const bytes = Buffer.alloc(volume.size);
        await device.read(0, bytes);
        if (!bytes.equals(model.disk(volume.id))) t.fail(`wrong bytes at LSN ${lsn}`);
      }
    } catch (error) {
      if (!hasCode(error, 'frame-damaged')) throw error;
      return lsn;
    } finally {
      await group.views.close(view.id);
    }
  }
  return 0;
}

async function until(host: MemoryHost, holds: () => boolean): Promise<void> {
  for (let round = 0; round < 400; round += 1) {
    if (holds()) return;
    host.clock.advance(500);
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error('it did not come to that');
}

/** Opened, with a far side that holds these frames, until the group asks to be opened anew; then opened anew. */
async function refilled(host: MemoryHost, frames: readonly SealedFrame[]): Promise<ReplicaGroup> {
  let reopen = 0;
  const group = await open(host, { onReopen: () => (reopen += 1) });
  group.start(new GivingSource(frames));
  await until(host, () => reopen > 0);
  await group.close();
  return open(host);
}

const GONE: Readonly<Record<string, (all: readonly string[]) => readonly string[]>> = {
  'the first segment': (all) => all.slice(0, 1),
  'one in the middle': (all) => all.slice(2, 3),
  'three beside one another': (all) => all.slice(1, 4),
  'every other one': (all) => all.filter((_, index) => index % 2 === 0 && index < all.length - 1),
  'all but the newest': (all) => all.slice(0, -1),
};

for (const [what, choose] of Object.entries(GONE)) {
  test(`segments that are gone are put back from the far side: ${what}`, async (t) => {
    const history = madeHistory(31);
    const host = await received(history);
    const all = segments(host);
    t.true(all.length > 5, `${all.length} segments`);
    const gone = choose(all);
    const lostFrom = beginOf(host, gone[0]!);
    for (const path of gone) host.disk.files.delete(path);
    // Other borders than those that stood here.
    const random = new SeededRandom(5);
    const frames = seal(history, { recordsPerFrame: () => 1 + random.below(60) });
    let group = await open(host);
    t.is(group.headLsn, history.lastLsn);
    const source = new GivingSource(frames);
    t.true((await group.status()).damage.some(({ fromLsn }) => fromLsn === lostFrom));
    const refused = await firstRefused(t, group, history);
    t.true(refused >= lostFrom && refused < lostFrom + 23, `${refused}, gone from ${lostFrom}`);
    await group.close();
    t.is(source.asked, 0);

    group = await refilled(host, frames);
    t.deepEqual((await group.status()).damage, []);
    t.is(await firstRefused(t, group, history), 0);
    t.is(group.headLsn, history.lastLsn);
    await group.close();
    t.deepEqual(
      host.disk.list(SEGMENTS).filter((name) => name.endsWith('.tmp')),
      [],
    );
    group = await open(host);
    t.is(await firstRefused(t, group, history), 0, 'once more');
    t.deepEqual((await group.status()).damage, []);
    await group.close();
  });
}

test('segments that are gone, and a catalog that was not told: bookmarks come back with them, and stay', async (t) => {
  const history = madeHistory(32, 100);
  const lsn = history.bookmark('gone');
  history.fill(RECORDS);
  const host = await received(history);
  const path = segments(host).findLast((one) => beginOf(host, one) <= lsn)!;
  host.disk.files.delete(path);
  for (const file of host.disk.files.keys()) {
    if (file.includes('/index/') || file.endsWith('/state')) host.disk.files.delete(file);
  }
  let group = await open(host);
  t.false(group.bookmarks().some(({ name }) => name === 'gone'));
  await group.close();
  group = await refilled(host, seal(history));
  for (const opening of ['first', 'second', 'third']) {
    t.true(
      group.bookmarks().some(({ name }) => name === 'gone'),
      opening,
    );
    t.is(await firstRefused(t, group, history), 0, opening);
    await group.close();
    group = await open(host);
  }
  await group.close();
});

test('a segment that was put aside for its header is put back, and so is one that comes back by itself', async (t) => {
  const history = madeHistory(33);
  const host = await received(history);
  const path = segments(host)[2]!;
  const { bytes } = host.disk.files.get(path)!;
  const footer = host.disk.files.get(path)!.length - 40;
  // Header, first frame and footer: nothing tells where it begins.
  for (const at of [9, 4100, footer]) bytes.writeUInt8(bytes.readUInt8(at) ^ 4, at);
  const group = await refilled(host, seal(history));
  t.true(host.disk.files.has(`${path}.damaged`));
  t.deepEqual((await group.status()).damage, []);
  t.is(await firstRefused(t, group, history), 0);
  await group.close();

  const kept = host.disk.files.get(path)!;
  host.disk.files.delete(path);
  for (const file of host.disk.files.keys()) if (file.includes('/index/')) host.disk.files.delete(file);
  const without = await open(host);
  t.true((await firstRefused(t, without, history)) > 0);
  await without.close();
  host.disk.files.set(path, kept);
  const again = await open(host);
  t.is(await firstRefused(t, again, history), 0, 'the index was built while it was gone');
  t.deepEqual((await again.status()).damage, []);
  await again.close();
});

test('a segment that goes while the group is open is damage, not history that has left the window', async (t) => {
  const history = madeHistory(37, 1600);
  // more than there are descriptors
  const host = await received(history, { segmentBytes: 4096 });
  t.true(segments(host).length > 70, `${segments(host).length} segments`);
  const gone = segments(host).slice(1, 5);
  const lsn = beginOf(host, gone.at(-1)!) - 1;
  let group = await open(host);
  for (const path of gone) host.disk.files.delete(path);
  const view = group.openView({ lsn, owner: 't', scratchBytesMax: 0 });
  const codes = new Set<string>();
  for (const { volume, device } of view.volumes) {
    for (let offset = 0; offset < volume.size; offset += 512) {
      await device.read(offset, Buffer.alloc(512)).catch((error: unknown) => codes.add((error as TidemarkError).code));
    }
  }
  t.deepEqual([...codes], ['journal-damaged']);
  await group.close();
  group = await refilled(host, seal(history));
  t.deepEqual((await group.status()).damage, []);
  t.is(await firstRefused(t, group, history), 0);
  await group.close();
});

test('segments with other records, or with fewer, are never put in place of those that are gone', async (t) => {
  const history = madeHistory(34);
  const host = await received(history);
  const [lost, behind] = segments(host).slice(2, 4) as [string, string];
  const [fromLsn, nextLsn] = [beginOf(host, lost), beginOf(host, behind)];
  host.disk.files.delete(lost);
  const frames = seal(history, { recordsPerFrame: () => 5 });
  const other = madeHistory(35);
  const others = seal(other, { recordsPerFrame: () => 5 });
  const given: readonly [readonly SealedFrame[], string][] = [
    [others, 'divergence'],
    [frames.filter(({ lastLsn }) => lastLsn < nextLsn - 10), 'trimmed'],
    [frames.filter(({ firstLsn }) => firstLsn > fromLsn), 'trimmed'],
    [frames.filter(({ firstLsn }) => firstLsn < fromLsn || firstLsn > fromLsn + 9), 'gap'],
    [seal(history, { groupId: 'cd'.repeat(16) }), 'frame-foreign'],
  ];
  for (const [far, code] of given) {
    const group = await open(host);
    const source = new GivingSource(far);
    group.start(source);
    await until(host, () => source.asked > 1);
    const { damage, refusalOf } = await group.status();
    t.is(damage.length, 1, code);
    t.not(refusalOf(fromLsn), '', code);
    t.is(source.last?.damagedFrom ?? 0, ['divergence', 'trimmed'].includes(code) ? 0 : fromLsn, code);
    t.false(host.disk.files.has(lost), code);
    t.true((await firstRefused(t, group, history)) >= fromLsn, code);
    await group.close();
  }
  // A source that was started again has sealed them anew.
  const later = { counter: 2, nonce: '2'.repeat(16) };
  const half = Math.floor((fromLsn + nextLsn) / 2);
  const two = [
    ...seal(history, { toLsn: half, incarnation: START }),
    ...seal(history, { fromLsn: half + 1, incarnation: later }),
  ];
  const group = await refilled(host, two);
  t.is(await firstRefused(t, group, history), 0);
  await group.close();
});

test('a refill that is killed at any moment, or for which there is no room, leaves nothing that is not proven', async (t) => {
  const history = madeHistory(36);
  const host = await received(history);
  const gone = segments(host).slice(1, 4);
  const lostFrom = beginOf(host, gone[0]!);
  for (const path of gone) host.disk.files.delete(path);
  const frames = seal(history);
  const group = await open(host);
  host.disk.capacity = host.disk.used() + 4096 + 80 * 1024;
  const source = new GivingSource(frames);
  group.start(source);
  await until(host, () => source.asked > 1);
  t.regex((await group.status()).refusalOf(lostFrom), /bytes are left above the reserve|the disk took/);
  t.deepEqual(
    host.disk.list(SEGMENTS).filter((name) => name.endsWith('.tmp')),
    [],
  );
  host.disk.capacity = Number.MAX_SAFE_INTEGER;
  const kills: MemoryHost['disk'][] = [];
  for (let round = 0; round < 4000 && (await group.status()).damage.length > 0; round += 1) {
    if (gone.every((path) => host.disk.files.has(path))) break;
    if (round % 12 === 0 && kills.length < 8) kills.push(host.disk.copy());
    if (round % 50 === 0) host.clock.advance(1000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  kills.push(host.disk.copy());
  await group.close();
  let unfinished = 0;
  for (const [at, disk] of kills.entries()) {
    const survivor = memoryHost(at, disk);
    let one = await open(survivor);
    t.is(one.headLsn, history.lastLsn);
    if ((await firstRefused(t, one, history)) > 0) {
      unfinished += 1;
      await one.close();
      one = await refilled(survivor, frames);
    }
    t.is(await firstRefused(t, one, history), 0, `kill ${at}`);
    await one.close();
  }
  t.true(unfinished > 0 && unfinished < kills.length, `${unfinished} of ${kills.length} were not finished`);
});
