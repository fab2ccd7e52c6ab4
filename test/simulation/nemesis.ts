import type { NemesisAction } from './run-options.ts';
import type { SeededRandom } from './seeded-random.ts';
import type { World } from './world.ts';

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
        world.crash('source', 'losePower');
        break;
      case 'kill-replica':
        world.crash('replica', 'kill');
        break;
      case 'power-replica':
        world.crash('replica', 'losePower');
        break;
      case 'cut-network':
        world.network.cutAll();
        break;
      case 'partition':
        world.network.partitioned = true;
        world.scheduler.after(random.between(1000, 15_000_000), () => {
          world.network.partitioned = false;
        });
        break;
      case 'idle':
        world.idle(random.between(100_000, 4_000_000));
        break;
      case 'clock-jump':
        for (const { machine } of [world.source, world.replica]) {
          if (random.chance(0.7)) machine.jumpClock(random.between(-3_600_000_000, 3_600_000_000));
        }
        break;
      case 'stop-source':
        this.#stop('source');
        break;
      case 'stop-replica':
        this.#stop('replica');
        break;
    }
  }

  #stop(name: 'source' | 'replica'): void {
    const node = this.#world[name];
    if (node.group === undefined) return;
    this.#world.watch(node.stop().then(() => this.#world.restart(name)));
  }
}
