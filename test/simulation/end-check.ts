import type { Lsn } from '../../journal/position.ts';
import type { ReplicaNode } from './replica-node.ts';
import { must } from './violation.ts';
import type { World } from './world.ts';

const WHOLE_VIEWS = 8;
/** Positions looked at where the record made its change; a long history is sampled, evenly. */
const CHANGES_CHECKED = 160;
/** Beside every crash and start the frames have borders: the positions around are all looked at. */
const AROUND_BORDER = 2;

/** When all faults are over and the replica has caught up: positions it offers, every bookmark, the source's disks. */
export async function checkAtEnd(world: World): Promise<void> {
  const { replicas, source } = world;
  if (source.group !== undefined) {
    await source.checkContent(source.group);
    await source.life.checkGivenUp(source.group);
  }
  for (const replica of replicas) await checkReplica(world, replica);
}

async function checkReplica(world: World, replica: ReplicaNode): Promise<void> {
  const { model, scheduler } = world;
  const { group } = replica;
  must('L1', group !== undefined, () => 'the replica is down at the end');
  replica.note();
  const { headLsn, floorLsn } = group;
  for (const lsn of positions(world, floorLsn, headLsn)) await replica.checkChange(lsn, scheduler.random.chance(0.25));
  for (let count = 0; count < WHOLE_VIEWS; count++)
    await replica.checkView(scheduler.random.between(floorLsn, headLsn));
  await replica.checkView(headLsn);
  const told = new Map(group.bookmarks().map(({ name, lsn }) => [name, lsn]));
  const { damage } = await group.status();
  for (const [name, lsn] of model.bookmarks) {
    // History that aged out took its bookmarks along, also while the views were looked at; what never arrived was named before.
    if (lsn < group.floorLsn || lsn > headLsn) continue;
    // given up with the records around it
    if (model.history.lost.has(lsn)) continue;
    // what rotted and nobody else has any more is named
    if (replica.rotten && damage.some(({ fromLsn, toLsn }) => fromLsn <= lsn && lsn <= toLsn)) continue;
    must('B1', told.get(name) === lsn, () => `bookmark ${name} was told at ${lsn}, the replica has ${told.get(name)}`);
  }
}

/** In order: an even sample of all, the newest ones, and those around every border. */
function positions({ model, scheduler }: World, floorLsn: Lsn, headLsn: Lsn): Lsn[] {
  const chosen = new Set<Lsn>();
  const step = Math.max(1, (headLsn - floorLsn) / CHANGES_CHECKED);
  for (let from = floorLsn; from < headLsn; from += step) {
    chosen.add(Math.min(headLsn, Math.floor(from + 1 + scheduler.random.below(Math.ceil(step)))));
  }
  for (const border of [...model.borders, headLsn]) {
    for (let lsn = border - AROUND_BORDER; lsn <= border + AROUND_BORDER; lsn++) chosen.add(lsn);
  }
  return [...chosen].filter((lsn) => lsn > floorLsn && lsn <= headLsn).sort((a, b) => a - b);
}
