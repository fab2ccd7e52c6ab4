import test from 'ava';
import { SECTOR_BYTES } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { type StandbyStamp, type StandbyState, writeStamp } from '../../replica/standby/standby-stamp.ts';
import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { StandbyCheck } from './checkers/standby-check.ts';
import { History } from './history.ts';
import { GROUP_ID, REPLICA_DIRECTORY } from './names.ts';
import { Scheduler } from './scheduler.ts';
import { FOREIGN_SECTOR, fillSectors } from './sector-pattern.ts';
import { SourceModel } from './source-model.ts';
import { Violation } from './violation.ts';

const DIRECTORY = `${REPLICA_DIRECTORY}/standby`;
const SECTORS = 4;

/** Four records, each of which writes the sector of its number. */
function fourWrites(): SourceModel {
  const history = new History(new Map([[1, SECTORS]]));
  for (let lsn = 1; lsn <= SECTORS; lsn++) {
    const ids = Uint32Array.of(lsn);
    const change = { volume: 1, sector: lsn - 1, ids };
    const place = { volume: 1, sector: lsn - 1, sectors: 1 };
    history.append({
      lsn,
      kind: RecordKind.write,
      flags: 0,
      requestId: lsn,
      ...place,
      ids,
      content: '',
      changes: [change],
    });
  }
  return new SourceModel(history, () => undefined);
}

/** What the checker says of an image with these sectors, stamped at LSN 0. */
async function verdict(
  state: StandbyState,
  ids: readonly number[],
  crash: 'kill' | 'power' | 'power, then kill',
  { toldLsn = 0, ...edit }: Partial<StandbyStamp> & { readonly toldLsn?: number } = {},
): Promise<string> {
  const scheduler = new Scheduler(1);
  const machine = new SimulatedMachine('r', scheduler, NO_DISK_FAULTS, 1 << 20);
  const { host } = machine.start();
  const bytes = new Uint8Array(SECTORS * SECTOR_BYTES);
  for (const [sector, id] of ids.entries()) {
    if (id === FOREIGN_SECTOR) bytes.fill(0xee, sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
    else if (id > 0) fillSectors(new DataView(bytes.buffer), sector * SECTOR_BYTES, SECTOR_BYTES, id, 1, sector);
  }
  host.disk.makeDirectory(DIRECTORY);
  const volumes = [{ id: 1, name: 'v1', file: 'v1.raw', sizeBytes: bytes.length, unsettled: '' }];
  const at = { lsn: 0, readFromLsn: 1, settleToLsn: 0, copied: {} };
  let written = false;
  const write = async (): Promise<void> => {
    const file = host.disk.open(`${DIRECTORY}/v1.raw`, 'create');
    file.writeSync(bytes, 0, bytes.length, 0);
    await file.dataSync();
    const { bootId } = host;
    await writeStamp(host.disk, DIRECTORY, { format: 1, groupId: GROUP_ID, state, ...at, bootId, volumes, ...edit });
    written = true;
  };
  void write();
  await scheduler.runUntil(() => written, 60_000_000);
  const check = new StandbyCheck(machine, fourWrites());
  check.told(toldLsn);
  try {
    if (crash !== 'kill') {
      machine.losePower();
      check.afterCrash(SECTORS, true);
    }
    if (crash === 'power, then kill') machine.start();
    if (crash !== 'power') {
      machine.kill();
      check.afterCrash(SECTORS, false);
    }
    return check.looked === 0 ? 'not looked at' : 'fine';
  } catch (error) {
    if (error instanceof Violation) return error.message;
    throw error;
  }
}

test('an image that is written to is one position for as long as the machine runs that its stamp names', async (t) => {
  const prefix = [1, 2, 0, 0];
  const mixture = [0, 2, 0, 4];
  t.is(await verdict('applying', prefix, 'kill'), 'fine');
  t.regex(await verdict('applying', mixture, 'kill'), /no LSN from 0 to 4/);
  t.is(await verdict('applying', mixture, 'power'), 'fine');
  // a process that was killed before it could stamp what the power loss has left has said nothing new
  t.is(await verdict('applying', mixture, 'power, then kill'), 'fine');
  t.regex(await verdict('settled', prefix, 'power, then kill'), /stamped as that of LSN 0/);
});

test('of a mixture nothing is older than its stamp says, nor of a copy what it calls copied', async (t) => {
  for (const crash of ['kill', 'power'] as const) {
    t.is(await verdict('settling', [0, 2, 0, 4], crash), 'fine');
    t.is(await verdict('settling', [1, 2, 0, 4], crash, { lsn: 2 }), 'fine');
    t.regex(await verdict('settling', [1, 0, 0, 4], crash, { lsn: 2 }), /1:1 .* settling from LSN 2 on is 0/);
    t.is(await verdict('copying', [1, 0, 0, 0], crash, { lsn: 2, copied: { 1: 512 } }), 'fine');
    t.regex(
      await verdict('copying', [1, 0, 0, 0], crash, { lsn: 2, copied: { 1: 1024 } }),
      /1:1 .* copying from LSN 2/,
    );
  }
});

test('a write that failed in the middle of a sector leaves it torn when power goes: one sector, and none that was told', async (t) => {
  const torn = FOREIGN_SECTOR;
  t.is(await verdict('applying', [1, torn, 0, 0], 'power'), 'fine');
  t.is(await verdict('applying', [1, torn, 0, 0], 'power', { toldLsn: 1 }), 'fine');
  t.regex(
    await verdict('applying', [1, torn, 0, 0], 'power', { toldLsn: 2 }),
    /1:1 .* older than LSN 2, which was synced/,
  );
  t.regex(await verdict('applying', [1, torn, torn, 0], 'power'), /1:2 .* older than LSN 0/);
  t.regex(await verdict('settled', [torn, 0, 0, 0], 'power'), /stamped as that of LSN 0, and is not/);
});
