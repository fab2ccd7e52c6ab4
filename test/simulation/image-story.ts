import type { Lsn } from '../../journal/position.ts';
import { STAMP_NAME } from '../../replica/standby/standby-stamp.ts';
import { type NodeName, REPLICA_DIRECTORY } from './names.ts';
import type { ReplicaNode } from './replica-node.ts';
import { segmentFiles } from './rot.ts';
import type { SeededRandom } from './seeded-random.ts';
import { StampNemesis } from './stamp-nemesis.ts';
import { must } from './violation.ts';
import type { World } from './world.ts';

const IMAGE = `${REPLICA_DIRECTORY}/standby/`;
/** In a segment's header, as replica/store has it. */
const FIRST_LSN_AT = 40;
const HEADER_BYTES = 48;
const POLL_MICROS = 40_000;
const PATIENCE_MICROS = 400_000_000;
/** What the replica told last is released in the journal. */
const RELEASED_MICROS = 3_000_000;
const ROUNDS_OF_WRITES = 120;
const MORE_WRITES_MAX = 40;
const CRASHES_MAX = 3;
const UP_MICROS = [1_000, 30_000, 400_000];

/**
 * Somebody takes files of a replica away while it is down: the newest of its history, which the source still has, or one of
 * the standby image. What comes up then dies a few times on its way. Begins when all is well, and leaves it so.
 */
export class ImageStory {
  readonly #world: World;
  readonly #replica: ReplicaNode;
  readonly #name: NodeName;
  readonly #random: SeededRandom;

  constructor(world: World, name: 'replica' | 'second', random: SeededRandom) {
    this.#world = world;
    this.#replica = world.node(name) as ReplicaNode;
    this.#name = name;
    this.#random = random;
  }

  async play(times: number): Promise<void> {
    const random = this.#random;
    for (let count = 0; count < times && !this.#replica.rotten; count++) {
      await this.#write();
      await this.#level();
      // some more is on its way, or is being applied
      for (let left = random.below(MORE_WRITES_MAX); left > 0; left--) await this.#writeALittle();
      await this.#down();
      await this.#pause(RELEASED_MICROS);
      if (random.chance(0.7)) this.#takeSegments();
      else this.#takeFile();
      await this.#comeUp();
    }
  }

  async #down(): Promise<void> {
    const random = this.#random;
    const world = this.#world;
    world.heldDown.add(this.#name);
    if (random.chance(0.3)) await this.#replica.stop();
    await this.#event(() => world.crash(this.#name, random.chance(0.6) ? 'kill' : 'losePower'));
  }

  /** From some segment on, as long as the source can send all of it again. */
  #takeSegments(): void {
    const { source } = this.#world;
    const { disk } = this.#replica.machine;
    const oldestLsn = source.group?.journal.oldestLsn ?? Number.MAX_SAFE_INTEGER;
    const segments = segmentFiles(disk).map((path) => ({ path, firstLsn: firstLsnOf(disk.files.get(path)) }));
    const mayGo = segments.slice(1).filter(({ firstLsn }) => firstLsn > oldestLsn);
    if (mayGo.length === 0) return;
    const { firstLsn } = this.#random.pick(this.#random.chance(0.6) ? mayGo.slice(-1) : mayGo);
    for (const one of mayGo) if (one.firstLsn >= firstLsn) this.#take(one.path);
    this.#replica.loses();
  }

  #takeFile(): void {
    const files = [...this.#replica.machine.disk.files.keys()].filter((path) => path.startsWith(IMAGE));
    const images = files.filter((path) => path.endsWith('.raw')).sort();
    if (images.length === 0 || !files.includes(`${IMAGE}${STAMP_NAME}`)) return;
    this.#replica.standby.taken();
    this.#take(this.#random.pick(images));
  }

  /** For good: whoever did it has synced. */
  #take(path: string): void {
    const { disk } = this.#replica.machine;
    this.#world.scheduler.trace(`taken ${path}`);
    disk.files.delete(path);
  }

  async #comeUp(): Promise<void> {
    const world = this.#world;
    const random = this.#random;
    const stamps = new StampNemesis(world, this.#name, random.fork(), 0.5, random.below(CRASHES_MAX + 1));
    world.heldDown.delete(this.#name);
    await this.#event(() => world.startSoon(this.#name));
    for (let count = random.below(CRASHES_MAX + 1); count > 0; count--) {
      await this.#until('the replica is started', () => this.#replica.machine.running);
      await this.#pause(random.between(1, random.pick(UP_MICROS)));
      if (random.chance(0.3)) await this.#writeALittle();
      await this.#event(() => world.crash(this.#name, random.chance(0.5) ? 'kill' : 'losePower'));
    }
    await this.#level();
    stamps.end();
  }

  async #write(): Promise<void> {
    for (let count = 0; count < ROUNDS_OF_WRITES; count++) await this.#writeALittle();
  }

  async #writeALittle(): Promise<void> {
    const { options, source } = this.#world;
    for (const client of source.clients) if (this.#random.chance(0.5)) client.act();
    await this.#pause(Math.min(options.actMicros, 4000));
  }

  async #level(): Promise<void> {
    const { model, source } = this.#world;
    await this.#until('requests of guests are answered', () => source.clients.every(({ busy }) => busy === 0));
    model.catchUp();
    const goal = model.history.lastLsn;
    await this.#until(`the replica has LSN ${goal}`, () => (this.#replica.group?.headLsn ?? 0) >= goal);
  }

  #pause(micros: number): Promise<void> {
    return new Promise((resolve) => {
      this.#world.scheduler.after(micros, resolve);
    });
  }

  /** In an event of its own: what a process does at this moment it still does. */
  #event(action: () => void): Promise<void> {
    return new Promise((resolve) => {
      this.#world.scheduler.after(0, () => {
        action();
        resolve();
      });
    });
  }

  async #until(what: string, isSo: () => boolean): Promise<void> {
    const { scheduler, source } = this.#world;
    for (const end = scheduler.nowMicros + PATIENCE_MICROS; !isSo(); ) {
      must('L1', scheduler.nowMicros < end, () => {
        return `it never comes to this: ${what}; ${JSON.stringify(source.ship)} ${source.group?.journal.oldestLsn}`;
      });
      await this.#pause(POLL_MICROS);
    }
  }
}

function firstLsnOf(content: { read(into: Uint8Array, position: number): unknown } | undefined): Lsn {
  const bytes = new Uint8Array(HEADER_BYTES);
  content?.read(bytes, 0);
  return Number(new DataView(bytes.buffer).getBigUint64(FIRST_LSN_AT, true));
}
