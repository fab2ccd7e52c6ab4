import { journalFileName } from '../../journal/file-reads.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import { JOURNAL_DIRECTORY } from './names.ts';
import type { SeededRandom } from './seeded-random.ts';
import type { World } from './world.ts';

/** A batch of the journal, with the bit of it that turns. */
export interface RottenBatch {
  readonly from: JournalAddress;
  readonly end: JournalAddress;
  readonly fromLsn: Lsn;
  readonly toLsn: Lsn;
}

interface Turned {
  readonly batch: RottenBatch;
  readonly path: string;
  readonly position: number;
  readonly bit: number;
  /** The batch as it stands with the turned bit. */
  readonly content: string;
}

/** Bits of batches of the source's journal turn, and turn back where nobody has written over them meanwhile. */
export class BitRot {
  readonly #world: World;
  readonly #random: SeededRandom;
  #turned: Turned[] = [];

  constructor(world: World, random: SeededRandom) {
    this.#world = world;
    this.#random = random;
  }

  /** Runs of batches behind what is held, in order and apart; the first begins in what is held, when `beginsHeld`. */
  pick(
    heldLsn: Lsn,
    options: { readonly stretches: number; readonly batchesMax: number; readonly beginsHeld: boolean },
  ): RottenBatch[] {
    const batches = this.#batches();
    const behind = batches.filter(({ fromLsn }) => fromLsn > heldLsn);
    const chosen = new Set<RottenBatch>();
    for (let count = 0; count < options.stretches && behind.length > 0; count++) {
      const at = this.#random.below(behind.length);
      for (const one of behind.slice(at, at + this.#random.between(1, options.batchesMax))) chosen.add(one);
    }
    const [first] = behind;
    const held = batches.filter(({ fromLsn, toLsn }) => fromLsn <= heldLsn && toLsn >= heldLsn - 8);
    if (options.beginsHeld && first !== undefined) for (const one of [...held.slice(-2), first]) chosen.add(one);
    return [...chosen].sort((a, b) => a.from - b.from);
  }

  /** One that is held. */
  pickHeld(heldLsn: Lsn): RottenBatch[] {
    const held = this.#batches().filter(({ toLsn }) => toLsn <= heldLsn);
    return held.length === 0 ? [] : [this.#random.pick(held)];
  }

  /** The newest that no disk has for sure. */
  pickNeeded(checkpoint: JournalAddress): RottenBatch[] {
    return this.#batches(false)
      .filter(({ from }) => from >= checkpoint)
      .slice(0, 1);
  }

  /** Of these, what the journal has not let go. */
  stillThere(batches: readonly RottenBatch[]): RottenBatch[] {
    return batches.filter(({ from }) => this.#world.source.machine.disk.files.has(this.#pathOf(from)));
  }

  turn(batches: readonly RottenBatch[]): void {
    const { source } = this.#world;
    for (const batch of batches) {
      source.rotten = true;
      const at = this.#random.between(batch.from, batch.end - 1);
      const position = at % this.#world.options.journalFileBytes;
      const turned = { batch, path: this.#pathOf(at), position, bit: this.#random.below(8) };
      source.machine.disk.rot(turned.path, turned.position, turned.bit);
      this.#turned.push({ ...turned, content: this.#contentOf(batch) });
    }
  }

  /** Of one batch, or of all. */
  turnBack(batch?: RottenBatch): void {
    const back = this.#turned.filter((one) => batch === undefined || one.batch === batch);
    this.#turned = this.#turned.filter((one) => !back.includes(one));
    for (const one of back) {
      if (this.#contentOf(one.batch) === one.content)
        this.#world.source.machine.disk.rot(one.path, one.position, one.bit);
    }
  }

  /** With records, in the journal still, in order. `isWrittenOut`: in the disks, and a header behind it calls it durable. */
  #batches(isWrittenOut = true): RottenBatch[] {
    const { model, source } = this.#world;
    const writtenOutTo = source.group?.writtenOut.checkpoint.address ?? 0;
    model.catchUp();
    const { follower } = model;
    if (follower === undefined) return [];
    const found: RottenBatch[] = [];
    for (const [index, { from, end, lastLsn }] of follower.batches.entries()) {
      const before = follower.batches[index - 1];
      if (before === undefined) continue;
      if (isWrittenOut && (lastLsn > follower.witnessedLsn || end > writtenOutTo)) continue;
      found.push({ from, end, fromLsn: before.lastLsn + 1, toLsn: lastLsn });
    }
    return this.stillThere(found);
  }

  #pathOf(at: JournalAddress): string {
    return `${JOURNAL_DIRECTORY}/${journalFileName(Math.floor(at / this.#world.options.journalFileBytes))}`;
  }

  #contentOf({ from, end }: RottenBatch): string {
    const bytes = new Uint8Array(end - from);
    this.#world.source.machine.disk.files
      .get(this.#pathOf(from))
      ?.read(bytes, from % this.#world.options.journalFileBytes);
    return Buffer.from(bytes).toString('latin1');
  }
}
