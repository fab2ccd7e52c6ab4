import { must } from './violation.ts';
import type { World } from './world.ts';

const WHOLE_VIEWS = 24;

/** When all faults are over and the replica has caught up: every position it offers, every bookmark, the source's disks. */
export async function checkAtEnd(world: World): Promise<void> {
  const { model, replica, scheduler, source } = world;
  if (source.group !== undefined) await source.checkContent(source.group);
  const { group } = replica;
  must('L1', group !== undefined, () => 'the replica is down at the end');
  replica.note();
  const { headLsn, floorLsn } = group;
  for (let lsn = floorLsn + 1; lsn <= headLsn; lsn++) await replica.checkChange(lsn, scheduler.random.chance(0.25));
  for (let count = 0; count < WHOLE_VIEWS; count++)
    await replica.checkView(scheduler.random.between(floorLsn, headLsn));
  await replica.checkView(headLsn);
  const told = new Map(group.bookmarks().map(({ name, lsn }) => [name, lsn]));
  for (const [name, lsn] of model.bookmarks) {
    must('B1', told.get(name) === lsn, () => `bookmark ${name} was told at ${lsn}, the replica has ${told.get(name)}`);
  }
}
