import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { readGivenWord, writeGivenWord } from '../../daemon/ship/given-word.ts';
import { settleFarSide } from '../../daemon/ship/settle.ts';
import { realHost } from '../../journal/host/real-host.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { encodeSeedEnd, encodeVolumeAdded } from '../../journal/record-bodies.ts';
import {
  block,
  GROUP_ID,
  openJournal,
  openReplica,
  readBack,
  type Streams,
  ship,
  temporary,
  until,
} from './both-sides.ts';

const FILE_BYTES = 256 * 1024;
const SIZE = 8 * 1024 * 1024;
const host = realHost();

function spoil(directory: string, from: number, to: number): void {
  for (let start = from - (from % FILE_BYTES); start < to; start += FILE_BYTES) {
    const sequence = start / FILE_BYTES;
    const file = join(directory, `journal-${sequence.toString(16).padStart(16, '0')}.tmj`);
    const bytes = readFileSync(file);
    bytes.fill(0, Math.max(0, from - start), Math.min(FILE_BYTES, to - start));
    writeFileSync(file, bytes);
  }
}

/**
 * Records of which the stream holds the first (`streamKeeps`) or none, and the replica none, rot at the source: an
 * operator gives up the rest. What the stream has comes back, history goes on behind the gap, and a new seed ends it.
 */
export async function giveUpLostRecords(t: ExecutionContext, streams: Streams, streamKeeps: boolean): Promise<void> {
  const [at, there] = [temporary(t), temporary(t)];
  let journal = await openJournal(at);
  await journal.begin();
  const added = (starts: 'empty' | 'seeded') =>
    encodeVolumeAdded({ id: 1, name: 'v', size: SIZE, blockBytes: 512, starts });
  journal.append(RecordKind.volumeAdded, { body: added('empty') });
  const firstLsn = journal.lastLsn + 1;
  const write = async (count: number): Promise<Lsn> => {
    for (let index = 0; index < count; index++) {
      const lsn = journal.lastLsn + 1;
      journal.append(RecordKind.write, { volume: 1, sector: lsn * 8, sectors: 8, body: block(lsn) });
    }
    await journal.sync();
    return journal.lastLsn;
  };
  const heldLsn = await write(80);
  let shipper = await ship(at, journal, streams.sink());
  let group = await openReplica(there);
  group.start(streams.source());
  await until('the replica holds everything', () => group.headLsn === heldLsn);
  await group.close();

  const streamLsn = await write(20);
  if (streamKeeps) await until('the stream holds it', () => journal.marks.lsn('accepted') === streamLsn);
  await shipper.close();
  await write(60);
  const [fromLsn, toLsn] = [streamLsn - 9, streamLsn + 40];
  const [address, end] = [journal.addressOf(fromLsn), journal.addressOf(toLsn + 1)];
  await journal.close();
  spoil(at, address, end);

  const place = { directory: at, groupId: GROUP_ID };
  await writeGivenWord(host, place, { reason: 'Ada: gone', stretches: [{ fromLsn, toLsn, address }] });
  journal = await openJournal(at);
  group = await openReplica(there);
  group.start(streams.source());
  let seeds = 0;
  const settled = await settleFarSide(host, {
    journal,
    directory: at,
    groupId: GROUP_ID,
    groupName: 'both',
    sinks: [streams.sink()],
    timeoutMs: 30_000,
    giveUp: {
      word: readGivenWord(host, place)!,
      writtenOutTo: journal.endAddress,
      replicas: ['r'],
      seedAllAnew: () => {
        seeds++;
        return Promise.resolve();
      },
    },
  });
  const lostLsn = streamKeeps ? streamLsn + 1 : fromLsn;
  t.deepEqual(settled.givenUp, { given: [{ fromLsn: lostLsn, toLsn, reason: 'Ada: gone' }], mended: 0 });
  t.is(seeds, 1);
  await journal.begin({ highestLsn: settled.highestLsn });
  shipper = await ship(at, journal, streams.sink());
  const behind = await write(10);
  await until('the replica goes on behind the gap', () => group.headLsn >= behind);
  t.is(await readBack(group, firstLsn, heldLsn), 'right');
  const refused = { code: 'precondition-failed', message: /Ada: gone/ };
  for (const lsn of [lostLsn, toLsn, behind]) await t.throwsAsync(readBack(group, lsn, lsn), refused);
  await t.notThrowsAsync(readBack(group, lostLsn - 1, lostLsn - 1));

  journal.append(RecordKind.volumeAdded, { body: added('seeded') });
  journal.append(RecordKind.blank, { volume: 1, sector: 0, sectors: SIZE / 512 });
  const sector = (behind + 5) * 8;
  journal.append(RecordKind.seed, { volume: 1, sector, sectors: 8, body: block(behind + 5) });
  journal.append(RecordKind.seedEnd, { body: encodeSeedEnd({ volume: 1 }) });
  await journal.sync();
  const wholeLsn = journal.lastLsn;
  await until('the replica has the new seed', () => group.headLsn >= wholeLsn);
  await t.throwsAsync(readBack(group, behind, wholeLsn - 1), { code: 'precondition-failed' });
  const view = group.openView({ lsn: wholeLsn, owner: 'test', scratchBytesMax: 0 });
  const expected = Buffer.alloc(SIZE);
  block(behind + 5).copy(expected, sector * 512);
  const bytes = Buffer.alloc(SIZE, 0xee);
  await view.volumes[0]?.device.read(0, bytes);
  t.true(bytes.equals(expected), 'the new seed and nothing else');
  await group.views.close(view.id);
  await until('it is compared', () => shipper.status().replicas[0]?.provenLsn === journal.lastLsn);
  t.is(shipper.status().state, 'streaming');
  await shipper.close();
  await group.close();
  await journal.close();
}
