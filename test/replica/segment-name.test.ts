import test from 'ava';
import { SegmentStore } from '../../replica/store/segment-store.ts';
import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { newGroup, sealFrames } from '../kafka/stream-ends.ts';
import { Scheduler } from '../simulation/scheduler.ts';

const DIRECTORY = '/replica/g/segments';

test('a segment made by a start that was killed survives a power loss after the next one', async (t) => {
  for (let seed = 1; seed <= 20; seed++) {
    const scheduler = new Scheduler(seed);
    const machine = new SimulatedMachine('replica', scheduler, NO_DISK_FAULTS, 1 << 26);
    const group = newGroup();
    const [frame] = sealFrames(group, 1, 1024);
    if (frame === undefined) throw new Error('one frame was sealed');
    const open = (): Promise<SegmentStore> => {
      const { host } = machine.start();
      return SegmentStore.open(host, {
        directory: DIRECTORY,
        groupId: group.groupId,
        segmentBytes: 65_536,
        durableLsn: 0,
      });
    };
    const inTime = async <T>(promise: Promise<T>): Promise<T> => {
      let settled = false;
      promise.then(
        () => (settled = true),
        () => (settled = true),
      );
      await scheduler.runUntil(() => settled, 10_000_000);
      return promise;
    };
    const { bytes, firstLsn, lastLsn } = frame;
    const first = await inTime(open());
    await inTime(first.append(bytes, { firstLsn, lastLsn, firstTime: 1, lastTime: 2, records: 2 }));
    machine.kill();
    t.is((await inTime(open())).lastLsn, lastLsn);
    machine.losePower();
    t.is((await inTime(open())).lastLsn, lastLsn, `seed ${seed}`);
  }
});
