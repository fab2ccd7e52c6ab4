import type { SimulatedDisk } from '../doubles/simulated-disk.ts';
import type { NodeName } from './names.ts';
import type { ReplicaNode } from './replica-node.ts';
import { rotReplica, rotSource } from './rot.ts';
import type { NemesisAction } from './run-options.ts';
import type { SeededRandom } from './seeded-random.ts';
import type { World } from './world.ts';

/** A partition may outlast every timeout of the product. */
const PARTITION_MICROS_MAX = 15_000_000;
const FULL_MICROS_MAX = 4_000_000;
const SLOW_MICROS_MAX = 2_000_000;
/** While a disk is slow, every call takes up to this long. */
const SLOW_CALL_MICROS = 400_000;
/** From the answer to a bookmark to the power loss: less than a sync takes, or about as long. */
const MICROS_AFTER_BOOKMARK = [0, 300, 3000];

/** Breaks things, at moments and in an order the seed decides; what it may do was drawn for the run. */
export class Nemesis {
  readonly #world: World;
  readonly #random: SeededRandom;
  #ended = false;

  constructor(world: World, random: SeededRandom) {
    this.#world = world;
    this.#random = random;
  }

  begin(): void {
    const { nemesis, nemesisMicros } = this.#world.options;
    if (nemesis.length === 0) return;
    this.#world.scheduler.after(this.#random.between(1, 2 * nemesisMicros), () => {
      if (this.#ended) return;
      this.#strike(this.#random.pick(nemesis));
      this.begin();
    });
  }

  end(): void {
    this.#ended = true;
  }

  #strike(action: NemesisAction): void {
    const world = this.#world;
    const random = this.#random;
    world.scheduler.trace(action);
    switch (action) {
      case 'kill-source':
        world.crash('source', 'kill');
        break;
      case 'power-source':
        this.#losePower('source');
        break;
      case 'kill-replica':
        world.crash(this.#one(), 'kill');
        break;
      case 'power-replica':
        world.crash(this.#one(), 'losePower');
        break;
      case 'power-both':
        this.#losePower('source', ...this.#some());
        break;
      case 'cut-network':
        world.network.cutAll();
        break;
      case 'lose-answers':
        world.network.loseAnswers();
        break;
      case 'partition':
        this.#partition('both');
        break;
      case 'partition-one-way':
        this.#partition(random.pick(['to-listener', 'to-dialer']));
        break;
      case 'idle':
        world.idle(random.between(100_000, 4_000_000));
        break;
      case 'clock-jump':
        for (const { machine } of [world.source, ...world.replicas]) {
          if (random.chance(0.7)) machine.jumpClock(random.between(-3_600_000_000, 3_600_000_000));
        }
        break;
      case 'fill-source':
        this.#fill(world.source.machine.disk);
        break;
      case 'fill-replica':
        this.#fill(world.node(this.#one()).machine.disk);
        break;
      case 'slow-disk':
        this.#slow(world.node(random.pick<NodeName>(world.names)).machine.disk);
        break;
      case 'rot-replica':
        rotReplica(world, world.node(this.#one()) as ReplicaNode, random);
        break;
      case 'rot-source':
        rotSource(world, random);
        break;
      case 'stop-source':
        this.#stop('source');
        break;
      case 'stop-replica':
        this.#stop(this.#one());
        break;
      case 'cut-off-one':
        this.#cutOff(world.node(this.#one()) as ReplicaNode);
        break;
    }
  }

  /** A replica; no number is drawn where there is one. */
  #one(): 'replica' | 'second' {
    return this.#world.replicas.length > 1 && this.#random.chance(0.5) ? 'second' : 'replica';
  }

  #some(): readonly NodeName[] {
    const isBoth = this.#world.replicas.length > 1 && this.#random.chance(0.5);
    return isBoth ? ['replica', 'second'] : [this.#one()];
  }

  /** Nothing reaches this replica, or nothing of it the source; the others go on. */
  #cutOff({ machine, place }: ReplicaNode): void {
    const { kafka, network, scheduler } = this.#world;
    const { process } = machine;
    network.block(place.address, this.#random.pick(['both', 'both', 'to-listener', 'to-dialer']));
    if (process !== undefined) kafka.cutOff.add(process);
    scheduler.after(this.#random.between(1000, PARTITION_MICROS_MAX), () => {
      network.block(place.address, 'none');
      if (process !== undefined) kafka.cutOff.delete(process);
    });
  }

  /** Now, or very soon after a bookmark was told: what was told before it was durable is lost then. */
  #losePower(...nodes: readonly NodeName[]): void {
    const world = this.#world;
    const lose = (): void => {
      for (const node of nodes) world.crash(node, 'losePower');
    };
    const { bookmarkBeforePowerLoss } = world.options;
    if (bookmarkBeforePowerLoss === 0 || !this.#random.chance(bookmarkBeforePowerLoss)) {
      lose();
      return;
    }
    const micros = this.#random.pick(MICROS_AFTER_BOOKMARK);
    const told = world.source.bookmark(`power${world.scheduler.nowMicros}`);
    world.watch(
      told.then(() => {
        world.scheduler.after(micros, () => {
          if (!this.#ended) lose();
        });
      }),
    );
  }

  #partition(blocked: 'both' | 'to-listener' | 'to-dialer'): void {
    const { network, scheduler } = this.#world;
    network.blocked = blocked;
    scheduler.after(this.#random.between(1000, PARTITION_MICROS_MAX), () => {
      network.blocked = 'none';
    });
  }

  /** Somebody else takes the room on the disk, all of it or nearly, and gives it back some time later. */
  #fill(disk: SimulatedDisk): void {
    const left = this.#random.pick([0, 5000, 200_000]);
    const full = disk.usedBytes() + left;
    if (full >= disk.capacityBytes) return;
    disk.capacityBytes = full;
    this.#world.scheduler.after(this.#random.between(1000, FULL_MICROS_MAX), () => {
      disk.capacityBytes = disk.sizeBytes;
    });
  }

  #slow(disk: SimulatedDisk): void {
    const { latencyMicrosMax } = disk.faults;
    if (latencyMicrosMax === SLOW_CALL_MICROS) return;
    disk.faults = { ...disk.faults, latencyMicrosMax: SLOW_CALL_MICROS };
    this.#world.scheduler.after(this.#random.between(1000, SLOW_MICROS_MAX), () => {
      // Else the run has healed it meanwhile.
      if (disk.faults.latencyMicrosMax === SLOW_CALL_MICROS) disk.faults = { ...disk.faults, latencyMicrosMax };
    });
  }

  #stop(name: NodeName): void {
    const node = this.#world.node(name);
    if (node.group === undefined) return;
    this.#world.watch(node.stop().then(() => this.#world.restart(name)));
  }
}
