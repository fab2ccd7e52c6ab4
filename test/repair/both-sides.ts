import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { settleFarSide } from '../../daemon/ship/settle.ts';
import { Shipper } from '../../daemon/ship/shipper.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { Journal } from '../../journal/journal.ts';
import { RecordKind } from '../../journal/record.ts';
import { encodeVolumeAdded } from '../../journal/record-bodies.ts';
import type { FrameSink, FrameSource } from '../../journal/stream.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../replica/replica-group.ts';

export const GROUP_ID: string = 'a1b2c3d4e5f60718293a4b5c6d7e8f90';
const RECORDS = 240;
const host = realHost();

/** A real journal with a shipper, and a real replica, joined by a stream that the test brings. */
export interface Streams {
  sink(): FrameSink;
  source(): FrameSource;
}

export function temporary(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-repair-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export function openJournal(directory: string): Promise<Journal> {
  return Journal.open(host, {
    directory,
    groupId: GROUP_ID,
    groupName: 'both',
    fileBytes: 256 * 1024,
    budgetBytes: 32 * 1024 * 1024,
    syncIntervalMs: 20,
  });
}

export function openReplica(directory: string, onReopen: () => void = () => undefined): Promise<ReplicaGroup> {
  return ReplicaGroup.open(host, {
    ...REPLICA_DEFAULTS,
    directory,
    groupId: GROUP_ID,
    replica: 'r',
    segmentBytes: 32 * 1024,
    reserveBytes: 1024 * 1024,
    onReopen,
  });
}

export async function ship(directory: string, journal: Journal, sink: FrameSink): Promise<Shipper> {
  return Shipper.open(host, {
    directory,
    journal,
    marks: journal.marks,
    identity: {
      groupId: GROUP_ID,
      groupName: 'both',
      epoch: journal.epoch,
      incarnation: journal.incarnation!,
      frameVersion: FRAME_VERSION,
    },
    sinks: [sink],
    replicas: [
      { name: 'r', required: true },
      // never comes: so a topic is not trimmed, and has what is damaged at the other one
      { name: 'away', required: false },
    ],
    sealer: { targetBytes: 32 * 1024 },
  });
}

export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = performance.now() + 60_000; !(await holds()); ) {
    if (performance.now() > end) throw new Error(`not within 60 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Bytes that do not shrink. */
export function block(lsn: number): Buffer {
  const bytes = Buffer.alloc(4096);
  for (let at = 0; at < bytes.length; at++) bytes[at] = Math.imul(at + 1, (lsn * 2_654_435_761) | 1) >>> 17;
  return bytes;
}

/** Every block reads as it was written, or the error's code is given back. */
export async function readBack(group: ReplicaGroup, fromLsn: number, lastLsn: number): Promise<string> {
  const view = group.openView({ lsn: lastLsn, owner: 'test', scratchBytesMax: 0 });
  try {
    for (let lsn = fromLsn; lsn <= lastLsn; lsn++) {
      const bytes = Buffer.alloc(4096);
      await view.volumes[0]?.device.read(lsn * 4096, bytes);
      if (!bytes.equals(block(lsn))) return `wrong bytes of record ${lsn}`;
    }
    return 'right';
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  } finally {
    await group.views.close(view.id);
  }
}

/**
 * Damage at the replica, and segments that are gone, are put back from the far side while both run; damage at the source is put back at its next
 * start; after each the other goes on.
 */
export async function damageOnBothSides(t: ExecutionContext, streams: Streams): Promise<void> {
  const [at, there] = [temporary(t), temporary(t)];
  let journal = await openJournal(at);
  await journal.begin();
  const body = encodeVolumeAdded({ id: 1, name: 'v', size: 8 * 1024 * 1024, blockBytes: 512 });
  journal.append(RecordKind.volumeAdded, { body });
  const firstLsn = journal.lastLsn + 1;
  const write = async (count: number): Promise<void> => {
    for (let index = 0; index < count; index++) {
      const lsn = journal.lastLsn + 1;
      journal.append(RecordKind.write, { volume: 1, sector: lsn * 8, sectors: 8, body: block(lsn) });
    }
    await journal.sync();
  };
  await write(RECORDS);
  let shipper = await ship(at, journal, streams.sink());
  let group = await openReplica(there);
  group.start(streams.source());
  await until('the replica holds everything', () => group.headLsn === journal.lastLsn);
  t.is(await readBack(group, firstLsn, journal.lastLsn), 'right');
  await group.close();

  const segments = join(there, 'segments');
  const [segment] = readdirSync(segments).filter((name) => name.endsWith('.seg'));
  const bytes = readFileSync(join(segments, segment!));
  const middle = Math.floor(bytes.length / 2);
  bytes.fill(0, middle, middle + 1024);
  writeFileSync(join(segments, segment!), bytes);
  group = await openReplica(there);
  t.is(group.headLsn, journal.lastLsn);
  t.is(await readBack(group, firstLsn, journal.lastLsn), 'frame-damaged');
  await until('the damage is named', async () => (await group.status()).damage.length === 1);
  group.start(streams.source());
  const refusals = new Set<string>();
  await until('the damage is put back', async () => {
    const { damage, refusalOf } = await group.status();
    for (const { fromLsn } of damage) refusals.add(refusalOf(fromLsn));
    return damage.length === 0;
  }).catch((error: unknown) => {
    t.log(...refusals);
    throw error;
  });
  await group.close();
  group = await openReplica(there);
  t.is(await readBack(group, firstLsn, journal.lastLsn), 'right');
  await group.close();

  const held = readdirSync(segments).filter((name) => name.endsWith('.seg'));
  t.true(held.length > 2, `${held.length} segments`);
  for (const name of held.slice(0, -1)) rmSync(join(segments, name));
  let reopen = 0;
  group = await openReplica(there, () => (reopen += 1));
  t.is(group.headLsn, journal.lastLsn);
  t.is(await readBack(group, firstLsn, journal.lastLsn), 'frame-damaged');
  group.start(streams.source());
  await until('segments that are gone are put back', () => reopen > 0);
  await group.close();
  group = await openReplica(there);
  t.deepEqual((await group.status()).damage, []);
  t.is(await readBack(group, firstLsn, journal.lastLsn), 'right');
  group.start(streams.source());

  await write(20);
  await until('the replica follows', () => group.headLsn === journal.lastLsn);
  const lastLsn = journal.lastLsn;
  const victim = journal.addressOf(lastLsn - 10);
  await shipper.close();
  await journal.close();
  const sequence = Math.floor(victim / (256 * 1024));
  const file = join(at, `journal-${sequence.toString(16).padStart(16, '0')}.tmj`);
  const spoilt = readFileSync(file);
  spoilt.fill(0, victim % (256 * 1024), (victim % (256 * 1024)) + 3 * 4096);
  writeFileSync(file, spoilt);
  journal = await openJournal(at);
  t.is(journal.report.damage.length, 1);
  const settled = await settleFarSide(host, {
    journal,
    directory: at,
    groupId: GROUP_ID,
    groupName: 'both',
    sinks: [streams.sink()],
    timeoutMs: 30_000,
  });
  t.like(settled, { answered: 1, mended: 1, unmended: [] });
  await journal.begin({ highestLsn: settled.highestLsn });
  shipper = await ship(at, journal, streams.sink());
  await write(20);
  await until('the replica follows again', () => group.headLsn === journal.lastLsn);
  t.is(shipper.status().state, 'streaming');
  t.is(await readBack(group, firstLsn, lastLsn), 'right');
  await shipper.close();
  await group.close();
  await journal.close();
}
