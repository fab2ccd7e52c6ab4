import test from 'ava';
import { RecordKind } from '../../journal/record.ts';
import { encodeBookmark, encodeGap, encodeSeedEnd, encodeVolumeAdded } from '../../journal/record-bodies.ts';
import { CatalogBuilder, EMPTY_CATALOG } from '../../replica/catalog/catalog.ts';
import { clipCatalog } from '../../replica/catalog/clip-catalog.ts';
import { volumeAt } from '../../replica/catalog/volume-at.ts';
import { applyNote } from '../../replica/receive/record-feed.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../replica/replica-group.ts';
import { GROUP, HandSource, History, seal } from './support/history.ts';
import { type MemoryHost, memoryHost } from './support/memory-host.ts';

/* Stretches of history in which a volume's content is no point. */

async function opened(host: MemoryHost): Promise<{ group: ReplicaGroup; source: HandSource }> {
  const options = { ...REPLICA_DEFAULTS, directory: '/replica', groupId: GROUP, replica: 'r1', reserveBytes: 4096 };
  const group = await ReplicaGroup.open(host, options);
  const source = new HandSource();
  group.start(source);
  return { group, source };
}

function refusal(group: ReplicaGroup, lsn: number): string {
  try {
    group.openView({ lsn, owner: 't', scratchBytesMax: 0 });
    return '';
  } catch (error) {
    return (error as Error).message;
  }
}

function add(history: History, id: number, starts: 'empty' | 'seeded'): void {
  const body = { id, name: `v${id}`, size: 64 * 512, blockBytes: 512, starts };
  history.push(RecordKind.volumeAdded, { payload: encodeVolumeAdded(body) });
}

function seed(history: History, volume: number, sector: number): void {
  history.push(RecordKind.seed, { volume, sector, sectors: 1, payload: new Uint8Array(512).fill(volume) });
}

test('a volume that is to be seeded is no point from its first record on, over restarts, beside other volumes', async (t) => {
  const history = new History(1);
  add(history, 1, 'empty');
  add(history, 2, 'seeded');
  const host = memoryHost(1);
  const first = await opened(host);
  for (const frame of seal(history)) first.source.push(frame);
  await first.group.idle();
  t.is(refusal(first.group, 1), '');
  t.regex(refusal(first.group, 2), /v2 is not consistent at LSN 2: seeding; it has not ended yet/);
  await first.group.close();

  const second = await opened(host);
  t.regex(refusal(second.group, 2), /seeding/, 'a restart before the first block came');
  seed(history, 2, 0);
  add(history, 3, 'seeded');
  seed(history, 3, 0);
  seed(history, 2, 1);
  history.push(RecordKind.seedEnd, { payload: encodeSeedEnd({ volume: 2 }) });
  for (const frame of seal(history, { fromLsn: 3 })) second.source.push(frame);
  await second.group.idle();
  for (let lsn = 2; lsn <= 7; lsn += 1) t.regex(refusal(second.group, lsn), /seeding/, `LSN ${lsn}`);
  t.notThrows(() => second.group.openView({ lsn: 7, volumes: ['v2'], owner: 't', scratchBytesMax: 0 }));
  history.push(RecordKind.seedEnd, { payload: encodeSeedEnd({ volume: 3 }) });
  for (const frame of seal(history, { fromLsn: 8 })) second.source.push(frame);
  await second.group.idle();
  t.is(refusal(second.group, 8), '');
  t.is(second.group.catalog.events.filter(({ kind }) => kind === 'seeding').length, 2);
  await second.group.close();
});

test('records that the source gave up and the replica holds stay points, in the same frame or another, over restarts', async (t) => {
  const history = new History(2);
  add(history, 1, 'empty');
  seed(history, 1, 0);
  history.push(RecordKind.seedEnd, { payload: encodeSeedEnd({ volume: 1 }) });
  history.push(RecordKind.gap, { payload: encodeGap({ fromLsn: 2, toLsn: 3, reason: 'out of room' }) });
  const gap = { fromLsn: 2, toLsn: 5, reason: 'out of room' };
  history.push(RecordKind.write, { volume: 1, sector: 3, sectors: 1, payload: new Uint8Array(512).fill(9) });
  history.push(RecordKind.gap, { payload: encodeGap(gap) });
  const host = memoryHost(2);
  const first = await opened(host);
  for (const frame of seal(history, { toLsn: 5 })) first.source.push(frame);
  for (const frame of seal(history, { fromLsn: 6 })) first.source.push(frame);
  await first.group.idle();
  for (const lsn of [3, 4, 5, 6]) t.is(refusal(first.group, lsn), '');
  // killed: the catalog is built again from the frames
  const second = await opened(memoryHost(4, host.disk.copy()));
  for (const lsn of [3, 4, 5, 6]) t.is(refusal(second.group, lsn), '');
  t.deepEqual(
    second.group.catalog.events.filter(({ kind }) => kind === 'gap').map(({ text }) => text),
    ['2-3: out of room; all of it is held here', '2-5: out of room; all of it is held here'],
  );
  await second.group.close();
});

test('what was stepped over is no point, also when the catalog is built again; what was held before it is one', async (t) => {
  const history = new History(3);
  add(history, 1, 'empty');
  history.push(RecordKind.write, { volume: 1, sector: 3, sectors: 1, payload: new Uint8Array(512).fill(9) });
  history.push(RecordKind.write, { volume: 1, sector: 4, sectors: 1, payload: new Uint8Array(512).fill(9) });
  history.push(RecordKind.gap, { payload: encodeGap({ fromLsn: 2, toLsn: 3, reason: 'out of room' }) });
  const host = memoryHost(3);
  const first = await opened(host);
  for (const frame of seal(history, { toLsn: 2 })) first.source.push(frame);
  for (const frame of seal(history, { fromLsn: 4 })) first.source.push(frame);
  await first.group.idle();
  const check = (group: ReplicaGroup): void => {
    t.is(group.headLsn, 4);
    t.is(refusal(group, 2), '');
    t.regex(refusal(group, 4), /gap 2-3: out of room/);
  };
  check(first.group);
  const second = await opened(memoryHost(4, host.disk.copy()));
  check(second.group);
  await second.group.close();
});

test('lost records: no point from the first of them on, whatever seed ends behind them, until one that began behind them with a blank', async (t) => {
  const history = new History(5);
  add(history, 1, 'seeded');
  seed(history, 1, 0);
  const gap = { fromLsn: 3, toLsn: 5, reason: 'Ada: nobody has them' };
  history.push(RecordKind.lost, { payload: encodeGap(gap) });
  history.push(RecordKind.lost, {});
  history.push(RecordKind.lost, {});
  seed(history, 1, 2);
  // of the seed that lacks records
  history.push(RecordKind.seedEnd, { payload: encodeSeedEnd({ volume: 1 }) });
  add(history, 2, 'empty');
  history.push(RecordKind.write, { volume: 1, sector: 3, sectors: 1, payload: new Uint8Array(512).fill(9) });
  add(history, 1, 'seeded');
  history.push(RecordKind.blank, { volume: 1, sector: 0, sectors: 64 });
  seed(history, 1, 4);
  history.push(RecordKind.seedEnd, { payload: encodeSeedEnd({ volume: 1 }) });
  const host = memoryHost(5);
  const first = await opened(host);
  for (const frame of seal(history)) first.source.push(frame);
  await first.group.idle();
  const at = (group: ReplicaGroup, lsn: number) =>
    group.openView({ lsn, volumes: ['v1'], owner: 't', scratchBytesMax: 0 });
  const check = async (group: ReplicaGroup): Promise<void> => {
    for (let lsn = 3; lsn <= 12; lsn += 1) {
      t.throws(
        () => at(group, lsn),
        { code: 'precondition-failed', message: /gap 3-5: Ada: nobody has them|seeding/ },
        `${lsn}`,
      );
    }
    t.throws(() => at(group, 8), { message: /gap 3-5: Ada: nobody has them; the next point is LSN 13/ });
    t.notThrows(() => group.openView({ lsn: 9, volumes: ['v2'], owner: 't', scratchBytesMax: 0 }));
    const events = group.catalog.events.filter(({ kind }) => kind === 'gap');
    t.deepEqual(
      events.map(({ lsn, text }) => [lsn, text]),
      [[3, '3-5: Ada: nobody has them']],
    );
    const view = group.openView({ lsn: 13, owner: 't', scratchBytesMax: 0 });
    const bytes = Buffer.alloc(64 * 512, 0xee);
    await view.volumes.find(({ volume }) => volume.name === 'v1')?.device.read(0, bytes);
    const expected = Buffer.alloc(64 * 512);
    expected.fill(1, 4 * 512, 5 * 512);
    t.true(bytes.equals(expected), 'nothing from before the blank shines through');
    await group.views.close(view.id);
  };
  await check(first.group);
  const second = await opened(memoryHost(6, host.disk.copy()));
  await check(second.group);
  await second.group.close();
  await first.group.close();
});

test('a catalog that is cut back into a gap waits for the blank again: a seed that ends before it makes no points', (t) => {
  const body = encodeVolumeAdded({ id: 1, name: 'v1', size: 4096, blockBytes: 512, starts: 'empty' });
  const gap = encodeGap({ fromLsn: 3, toLsn: 4, reason: 'Ada: nobody has them' });
  const nothing = new Uint8Array(0);
  const records: readonly (readonly [RecordKind, Uint8Array])[] = [
    [RecordKind.volumeAdded, body],
    [RecordKind.bookmark, encodeBookmark({ name: 'b', kind: 'crash' })],
    [RecordKind.lost, gap],
    [RecordKind.lost, nothing],
    [RecordKind.seedEnd, encodeSeedEnd({ volume: 1 })],
    [RecordKind.blank, nothing],
    [RecordKind.seedEnd, encodeSeedEnd({ volume: 1 })],
  ];
  const feed = (catalog: CatalogBuilder, fromLsn: number, toLsn: number): void => {
    for (let lsn = fromLsn; lsn <= toLsn; lsn += 1) {
      const [kind, bytes] = records[lsn - 1]!;
      applyNote(catalog, { kind, lsn, time: lsn, volume: 1, body: bytes, afterLsn: lsn - 1 });
      catalog.advance(lsn);
    }
  };
  const whole = new CatalogBuilder(EMPTY_CATALOG);
  feed(whole, 1, 7);
  const points = (catalog: CatalogBuilder, headLsn: number): number[] => {
    const lsns = Array.from({ length: headLsn }, (_, index) => index + 1);
    return lsns.filter((lsn) => {
      try {
        return volumeAt(catalog.snapshot(), 'v1', lsn).size === 4096;
      } catch {
        return false;
      }
    });
  };
  t.deepEqual(points(whole, 7), [1, 2, 7]);
  for (let cutTo = 1; cutTo <= 7; cutTo += 1) {
    const cut = new CatalogBuilder(clipCatalog(whole.snapshot(), cutTo));
    t.deepEqual(
      points(cut, cutTo),
      [1, 2, 7].filter((lsn) => lsn <= cutTo),
      `${cutTo}`,
    );
    for (let toLsn = cutTo + 1; toLsn <= 7; toLsn += 1) {
      feed(cut, toLsn, toLsn);
      t.deepEqual(
        points(cut, toLsn),
        [1, 2, 7].filter((lsn) => lsn <= toLsn),
        `${cutTo} ${toLsn}`,
      );
    }
  }
});
