import { STAMP_NAME, type StandbyStamp } from '../../replica/standby/standby-stamp.ts';
import { type NodeName, REPLICA_DIRECTORY } from './names.ts';
import type { ReplicaNode } from './replica-node.ts';
import type { SeededRandom } from './seeded-random.ts';
import type { World } from './world.ts';

const PATH = `${REPLICA_DIRECTORY}/standby/${STAMP_NAME}`;
const AFTER_MICROS = [0, 300, 5_000, 40_000];
/** Of other stamps: they come all the time. */
const SHARE_OF_POINTS = 0.02;

/** Kills a replica, or takes its power, soon after its standby image was stamped: most of all as a mixture, or as no point. */
export class StampNemesis {
  readonly #world: World;
  readonly #name: NodeName;
  readonly #replica: ReplicaNode;
  readonly #random: SeededRandom;
  readonly #share: number;
  #left: number;

  /** `share`: of the stamps of a mixture; `times`: at most. */
  constructor(world: World, name: NodeName, random: SeededRandom, share: number, times: number) {
    this.#world = world;
    this.#name = name;
    this.#replica = world.node(name) as ReplicaNode;
    this.#random = random;
    this.#share = share;
    this.#left = times;
    this.#replica.machine.disk.onNamed = (path): void => {
      if (path === PATH) this.#stamped();
    };
  }

  end(): void {
    this.#left = 0;
  }

  #stamped(): void {
    const random = this.#random;
    const { scheduler } = this.#world;
    const { machine } = this.#replica;
    const content = machine.disk.files.get(PATH);
    if (content === undefined || this.#left === 0) return;
    const bytes = new Uint8Array(content.size);
    content.read(bytes, 0);
    const { lsn, state } = JSON.parse(Buffer.from(bytes).toString('utf8').split('\n')[0] ?? '') as StandbyStamp;
    const isMixture = state === 'copying' || state === 'settling' || !this.#replica.isSeeded(lsn);
    if (!random.chance(isMixture ? this.#share : SHARE_OF_POINTS)) return;
    const { process } = machine;
    const how = random.chance(0.6) ? 'losePower' : 'kill';
    this.#left--;
    scheduler.after(random.between(0, random.pick(AFTER_MICROS)), () => {
      if (machine.process === process) this.#world.crash(this.#name, how);
    });
  }
}
