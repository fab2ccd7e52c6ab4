import test from 'ava';
import { SECTOR_BYTES } from '../../journal/position.ts';
import { StandbyFiles } from '../../replica/standby/standby-files.ts';
import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { Scheduler } from '../simulation/scheduler.ts';

const STANDBY = '/standby';

test('a file that a killed run had made and not made as long as its volume is as long on the medium before it is named', async (t) => {
  for (let seed = 1; seed <= 8; seed++) {
    const scheduler = new Scheduler(seed);
    const machine = new SimulatedMachine('r', scheduler, NO_DISK_FAULTS, 1 << 20);
    const { host } = machine.start();
    host.disk.makeDirectory(STANDBY);
    host.disk.open(`${STANDBY}/data.raw`, 'create');
    const files = new StandbyFiles(host, STANDBY);
    let isOpen = false;
    const opening = files.open(
      { id: 2, name: 'data', file: 'data.raw', sizeBytes: 8 * SECTOR_BYTES, unsettled: '' },
      false,
    );
    void opening.then(() => {
      isOpen = true;
    });
    await scheduler.runUntil(() => isOpen, 1_000_000);
    machine.losePower();
    t.is(machine.disk.files.get(`${STANDBY}/data.raw`)?.size, 8 * SECTOR_BYTES, `seed ${seed}`);
  }
});

test('a file that a killed run had made, and as long as its volume, but not synced, is as long on the medium before it is named', async (t) => {
  for (let seed = 1; seed <= 8; seed++) {
    const scheduler = new Scheduler(seed);
    const machine = new SimulatedMachine('r', scheduler, NO_DISK_FAULTS, 1 << 20);
    const first = machine.start().host;
    first.disk.makeDirectory(STANDBY);
    first.disk.open(`${STANDBY}/data.raw`, 'create').truncate(8 * SECTOR_BYTES);
    machine.kill();
    const files = new StandbyFiles(machine.start().host, STANDBY);
    let isOpen = false;
    const opening = files.open(
      { id: 2, name: 'data', file: 'data.raw', sizeBytes: 8 * SECTOR_BYTES, unsettled: '' },
      false,
    );
    void opening.then(() => {
      isOpen = true;
    });
    await scheduler.runUntil(() => isOpen, 1_000_000);
    machine.losePower();
    t.is(machine.disk.files.get(`${STANDBY}/data.raw`)?.size, 8 * SECTOR_BYTES, `seed ${seed}`);
  }
});
