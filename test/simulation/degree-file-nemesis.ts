import { JOURNAL_DIRECTORY } from './names.ts';
import type { SeededRandom } from './seeded-random.ts';
import type { World } from './world.ts';

const NAME = `${JOURNAL_DIRECTORY}/degree.state`;
const FAILING_MICROS = [1_000, 3_000_000, 10_000_000];
const LOOK_MICROS = 20_000;
const START_LOOK_MICROS = 1_000;
const CUT_MICROS_MAX = 4_000_000;

/**
 * The degree was written down and its name is there, only that the directory cannot be synced; and the source is killed,
 * or loses its power, before it has said again what is so. The next start finds one degree or the other.
 */
export class DegreeFileNemesis {
  readonly #world: World;
  readonly #random: SeededRandom;
  readonly #share: number;
  #failingUntilMicros = 0;
  #ended = false;

  constructor(world: World, random: SeededRandom, share: number) {
    this.#world = world;
    this.#random = random;
    this.#share = share;
    const { disk } = world.source.machine;
    disk.onNamed = (path): void => {
      if (path === NAME) this.#named();
    };
    // one that was asked for right behind it
    disk.refusesNames = (paths): boolean => this.#isFailing && paths.at(-1) === NAME;
  }

  end(): void {
    this.#ended = true;
  }

  get #isFailing(): boolean {
    return !this.#ended && this.#world.scheduler.nowMicros < this.#failingUntilMicros;
  }

  #named(): void {
    const world = this.#world;
    const random = this.#random;
    const { scheduler, network, source } = world;
    const state = source.group?.status().degree.state;
    if (this.#ended || this.#isFailing || state === undefined) return;
    // guests go on alone: what the next start has to know most of all
    const isAlone = state !== 'degraded' && this.#says('degraded');
    if (!random.chance(isAlone ? this.#share : this.#share / 8)) return;
    const micros = random.between(1, random.pick(FAILING_MICROS));
    this.#failingUntilMicros = scheduler.nowMicros + micros;
    scheduler.trace('degree file', micros);
    // the other side comes back, and is relied on as before
    if (random.chance(0.8)) network.blocked = 'none';
    this.#look(random.chance(0.8) ? 'kill' : 'losePower', random.chance(0.8));
  }

  #says(state: string): boolean {
    const content = this.#world.source.machine.disk.files.get(NAME);
    const bytes = Buffer.alloc(content?.size ?? 0);
    content?.read(bytes, 0);
    return bytes.includes(state);
  }

  /** Ends the source when the failing ends, or as soon as a replica relies on the promise, `isEarly`. */
  #look(how: 'kill' | 'losePower', isEarly: boolean): void {
    const { replicas, scheduler } = this.#world;
    scheduler.after(LOOK_MICROS, () => {
      if (this.#ended) return;
      const relies = replicas.some(({ group }) => group?.rpoClaim.rpo === 'zero');
      if (this.#isFailing && !(relies && isEarly)) {
        this.#look(how, isEarly);
        return;
      }
      this.#failingUntilMicros = 0;
      this.#world.crash('source', how);
      if (this.#random.chance(0.7)) this.#cutNextRun();
    });
  }

  /** What the next run answers reaches nobody. */
  #cutNextRun(): void {
    const { network, scheduler, source } = this.#world;
    scheduler.after(START_LOOK_MICROS, () => {
      if (this.#ended) return;
      if (source.group === undefined) {
        this.#cutNextRun();
        return;
      }
      network.blocked = 'both';
      scheduler.after(this.#random.between(1, CUT_MICROS_MAX), () => {
        network.blocked = 'none';
      });
    });
  }
}
