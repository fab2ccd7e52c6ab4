import test from 'ava';
import { BaseImage } from '../../replica/base/base-image.ts';
import { BaseImages } from '../../replica/base/base-images.ts';
import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { Scheduler } from '../simulation/scheduler.ts';
import { GROUP } from './support/history.ts';

const UNIT = 64 * 1024;
const PLACE = { directory: '/base', groupId: GROUP };

test('what a failed sync of the base may have left on the medium is made zeroes again, and never comes back', async (t) => {
  for (let seed = 1; seed <= 8; seed++) {
    const scheduler = new Scheduler(seed);
    const machine = new SimulatedMachine('r', scheduler, NO_DISK_FAULTS, 4 << 20);
    const done = async <T>(work: Promise<T>): Promise<T> => {
      let isDone = false;
      void work
        .catch(() => undefined)
        .finally(() => {
          isDone = true;
        });
      await scheduler.runUntil(() => isDone, 60_000_000);
      return work;
    };
    let base = await done(BaseImage.open(machine.start().host, PLACE, 1));
    await done(base.write(0, new Uint8Array(2 * UNIT).fill(7)));
    await done(base.sync());
    await done(base.zero(0, UNIT));
    machine.disk.faults = { ...NO_DISK_FAULTS, syncFails: 1 };
    await t.throwsAsync(done(base.sync()), { code: 'sync-failed' });
    machine.disk.faults = NO_DISK_FAULTS;
    // the move is done again
    await done(base.zero(0, UNIT));
    await done(base.sync());
    machine.losePower();
    base = await done(BaseImage.open(machine.start().host, PLACE, 1));
    const bytes = new Uint8Array(UNIT).fill(1);
    await done(base.read(0, bytes));
    t.true(
      bytes.every((byte) => byte === 0),
      `seed ${seed}`,
    );
    await done(base.write(512, new Uint8Array(512).fill(9)));
    await done(base.read(0, bytes));
    t.true(
      bytes.every((byte, at) => byte === (at >= 512 && at < 1024 ? 9 : 0)),
      `seed ${seed}: written to`,
    );
  }
});

test('a base that could not be opened is tried again by who asks next; status and close go on without it', async (t) => {
  const scheduler = new Scheduler(1);
  const machine = new SimulatedMachine('r', scheduler, NO_DISK_FAULTS, 4 << 20);
  const done = async <T>(work: Promise<T>): Promise<T> => {
    let isDone = false;
    void Promise.allSettled([work]).then(() => {
      isDone = true;
    });
    await scheduler.runUntil(() => isDone, 60_000_000);
    return work;
  };
  const { host } = machine.start();
  const base = await done(BaseImage.open(host, PLACE, 1));
  await done(base.write(0, new Uint8Array(UNIT).fill(7)));
  await done(base.sync());
  await done(base.close());
  const bases = new BaseImages(host, PLACE);
  machine.disk.faults = { ...NO_DISK_FAULTS, readFails: 1 };
  await t.throwsAsync(done(bases.of(1)), { code: 'device-failed' });
  t.is(await done(bases.dataBytes()), 0);
  machine.disk.faults = NO_DISK_FAULTS;
  t.is((await done(bases.of(1))).dataBytes, UNIT);
  t.is(await done(bases.dataBytes()), UNIT);
  await done(bases.close());
});
