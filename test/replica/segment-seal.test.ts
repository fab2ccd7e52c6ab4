import test from 'ava';
import { FrameView } from '../../journal/frame-view.ts';
import { SegmentStore } from '../../replica/store/segment-store.ts';
import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { newGroup, sealFrames } from '../kafka/stream-ends.ts';
import { Scheduler } from '../simulation/scheduler.ts';
import { MemoryDisk, memoryHost } from './support/memory-host.ts';

// Simulation seeds 1126 and 1213 of 2026-11-21: power lost between a seal and the next sync.
test('a footer that reached the disk before the frames it speaks of is no proof of them, and nothing stands behind a hole', async (t) => {
  const kept = new Set<number>();
  for (let seed = 1; seed <= 60; seed++) {
    const scheduler = new Scheduler(seed);
    const machine = new SimulatedMachine('replica', scheduler, NO_DISK_FAULTS, 1 << 26);
    const group = newGroup();
    const frames = sealFrames(group, 12, 4096);
    const open = (): Promise<SegmentStore> =>
      SegmentStore.open(machine.start().host, {
        directory: '/replica/g/segments',
        groupId: group.groupId,
        segmentBytes: 16_384,
        durableLsn: 0,
      });
    const inTime = async <T>(promise: Promise<T>): Promise<T> => {
      let settled = false;
      promise.then(
        () => (settled = true),
        () => (settled = true),
      );
      await scheduler.runUntil(() => settled, 10_000_000);
      return promise;
    };
    const store = await inTime(open());
    for (const { bytes, firstLsn, lastLsn } of frames) {
      await inTime(
        store.append(bytes, { firstLsn, lastLsn, firstTime: 1, lastTime: 2, records: lastLsn - firstLsn + 1 }),
      );
      if (store.wantsSeal) await inTime(store.seal(lastLsn + 1));
      // The names are durable; what the files hold is not.
      await inTime(machine.observe().disk.syncDirectory('/replica/g/segments'));
    }
    machine.losePower();
    const after = await inTime(open());
    let next = 1;
    await inTime(
      (async () => {
        for await (const frame of after.frames(1, after.lastLsn)) {
          const bytes = new Uint8Array(frame.bytes);
          await after.read(frame.segment, frame.offset, bytes);
          const view = FrameView.open(bytes);
          view.verifyChunks();
          t.is(view.firstLsn, next, `seed ${seed}`);
          next = view.lastLsn + 1;
        }
      })(),
    );
    t.is(next, after.lastLsn + 1, `seed ${seed}`);
    kept.add(after.lastLsn);
  }
  t.true(kept.size > 2, `held up to ${[...kept].join(', ')}`);
});

test('a sealed segment in which bytes went missing or came in gives back every frame that is whole', async (t) => {
  const disk = new MemoryDisk();
  const group = newGroup();
  const directory = '/replica/g/segments';
  const options = { directory, groupId: group.groupId, segmentBytes: 1 << 20, durableLsn: 0 };
  const store = await SegmentStore.open(memoryHost(1, disk), options);
  for (const { bytes, firstLsn, lastLsn } of sealFrames(group, 4, 4096)) {
    await store.append(bytes, { firstLsn, lastLsn, firstTime: 1, lastTime: 2, records: lastLsn - firstLsn + 1 });
  }
  const { lastLsn } = store;
  const framesEnd = store.bytes;
  await store.seal(lastLsn + 1);
  await store.close();
  const file = disk.open(`${directory}/${disk.list(directory)[0]}`, 'write');
  const rest = Buffer.alloc(file.size() - framesEnd);
  file.readSync(rest, 0, rest.length, framesEnd);
  file.writeSync(Buffer.concat([Buffer.alloc(512), rest]), 0, 512 + rest.length, framesEnd);
  const after = await SegmentStore.open(memoryHost(2, disk), { ...options, durableLsn: lastLsn });
  let next = 1;
  for await (const frame of after.frames(1, lastLsn)) {
    t.is(frame.firstLsn, next);
    const bytes = new Uint8Array(frame.bytes);
    await after.read(frame.segment, frame.offset, bytes);
    FrameView.open(bytes).verifyChunks();
    next = frame.lastLsn + 1;
  }
  t.is(next, lastLsn + 1);
  await after.close();
});
