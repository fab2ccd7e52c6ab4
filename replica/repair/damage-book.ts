import type { Lsn } from '../../journal/position.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { replicaChannel } from '../replica-channels.ts';
import type { LostStretch } from '../store/lost-stretch.ts';
import type { Damage, StateKeeper } from '../store/replica-state.ts';
import type { FrameRef } from '../store/segment-info.ts';

/** A frame that cannot be read where it stands. */
export interface DamagedFrame extends Damage {
  readonly segment: number;
  readonly offset: number;
  /** In the frame, which may begin below the first LSN that is counted in it. */
  readonly records: number;
  /** The index was built without its record list: nothing from `fromLsn` on is certain before it is built again. */
  readonly unindexed: boolean;
  /** The catalog was brought forward without its control records. */
  readonly uncatalogued?: boolean;
  /** Another stands in for it; the index is built again at the next opening. */
  readonly repaired?: boolean;
}

const damageChannel = replicaChannel('tidemark:replica:damage');
const repairedChannel = replicaChannel('tidemark:replica:repaired');

/** Which frames of history are damaged, durable in the group's state, and told when that changes. */
export class DamageBook {
  readonly #group: string;
  readonly #keeper: StateKeeper;
  readonly #headLsn: Lsn;
  #frames: readonly DamagedFrame[];
  /** As they stand in the state on disk. */
  #durable: readonly DamagedFrame[];
  /** In the state: with those whose segments stand again while the index is not built again with them. */
  #lost: readonly LostStretch[];
  #gone: readonly LostStretch[] = [];
  /** Told when there is something new to be asked for. */
  onFound: () => void = () => undefined;

  /** `headLsn`: the newest record that is held. */
  constructor(group: string, keeper: StateKeeper, headLsn: Lsn) {
    this.#group = group;
    this.#headLsn = headLsn;
    this.#keeper = keeper;
    this.#frames = keeper.state.damage.filter(isFrame);
    this.#durable = this.#frames;
    this.#lost = keeper.state.damage.filter(isLost);
  }

  /** Not repaired yet. */
  get open(): readonly DamagedFrame[] {
    return this.#frames.filter(({ repaired }) => repaired !== true);
  }

  /** Gone with their segments, and not put back yet. */
  get gone(): readonly LostStretch[] {
    return this.#gone;
  }

  /** From here on the index is not to be believed, and no point is certain; undefined: all of it is. */
  get unindexedFrom(): Lsn | undefined {
    const unindexed = this.#frames.filter((one) => one.unindexed);
    return lowest([...unindexed, ...this.#lost]);
  }

  /** From here on the catalog lacks what it has not been told; undefined: it lacks nothing. */
  get uncataloguedFrom(): Lsn | undefined {
    return lowest([...this.#frames, ...this.#lost].filter(({ uncatalogued }) => uncatalogued === true));
  }

  /**
   * What is gone with its segments, as this opening finds it; `toldLsn`: as far as the catalog was told. Durable when it
   * resolves: an index that is built without these records must not be believed once their segments stand again.
   */
  async lose(gone: readonly Damage[], toldLsn: Lsn): Promise<void> {
    this.#gone = gone.map((stretch) => {
      const known = this.#lost.filter((one) => overlap(one, stretch));
      const uncatalogued = stretch.toLsn > toldLsn || known.some((one) => one.uncatalogued);
      return { ...stretch, lost: true, uncatalogued };
    });
    const isKnown = (one: LostStretch): boolean =>
      this.#lost.some(
        ({ fromLsn, toLsn, uncatalogued }) =>
          fromLsn === one.fromLsn && toLsn === one.toLsn && uncatalogued === one.uncatalogued,
      );
    const found = this.#gone.filter((one) => !isKnown(one));
    if (found.length === 0) return;
    this.#lost = [...this.#lost, ...found];
    await this.#save();
    for (const { fromLsn, toLsn, where, reason } of found) {
      damageChannel.publish({ group: this.#group, fromLsn, toLsn, where, reason });
    }
  }

  /** Segments stand in its place, durably: the group must be opened anew. */
  refilled(stretch: LostStretch): void {
    const { fromLsn, toLsn, where } = stretch;
    this.#gone = this.#gone.filter((one) => one !== stretch);
    repairedChannel.publish({ group: this.#group, fromLsn, toLsn, where });
  }

  /** A frame could not be read. In memory at once; resolves when it is durable. */
  async note(frame: FrameRef, unindexed: boolean, reason: string, uncatalogued = false): Promise<void> {
    const { segment, offset, firstLsn, lastLsn, records } = frame;
    const known = this.#frames.find((one) => one.segment === segment && one.offset === offset);
    const isNew =
      known?.toLsn !== lastLsn ||
      (unindexed && known.unindexed !== true) ||
      (uncatalogued && known.uncatalogued !== true);
    if (known !== undefined && known.repaired !== true && !isNew) {
      // whoever noted it first may not have come to write it down
      if (!this.#durable.includes(known)) await this.#save();
      return;
    }
    const told = uncatalogued || known?.uncatalogued === true;
    const where = `segment ${segment}, byte ${offset}`;
    const lacks = unindexed || known?.unindexed === true;
    const found = {
      fromLsn: firstLsn,
      toLsn: lastLsn,
      where,
      reason,
      segment,
      offset,
      records,
      unindexed: lacks,
      uncatalogued: told,
    };
    this.#frames = [...this.#frames.filter((one) => one !== known), found];
    if (known === undefined) {
      damageChannel.publish({ group: this.#group, fromLsn: firstLsn, toLsn: lastLsn, where, reason });
    }
    this.onFound();
    await this.#save();
  }

  /** Another frame stands in for it, durably. True when the index has to be built again. */
  async repaired(frame: DamagedFrame): Promise<boolean> {
    const { fromLsn, toLsn, where } = frame;
    const isHere = (one: DamagedFrame): boolean => one.segment === frame.segment && one.offset === frame.offset;
    const others = this.#frames.filter((one) => !isHere(one));
    // while it was put back a run of the index may have been built without it
    const unindexed = frame.unindexed || this.#frames.some((one) => isHere(one) && one.unindexed);
    this.#frames = unindexed ? [...others, { ...frame, unindexed, repaired: true }] : others;
    await this.#save();
    repairedChannel.publish({ group: this.#group, fromLsn, toLsn, where });
    return unindexed;
  }

  /**
   * The index was built again: what was missing in it before is in it now, or among these, which are noted already. So is
   * the catalog: its new content is durable with that, for nothing else tells then that the one before lacked records.
   */
  async indexed(missing: readonly FrameRef[], catalog: () => Catalog): Promise<void> {
    const isMissing = (one: DamagedFrame): boolean =>
      missing.some(({ segment, offset }) => segment === one.segment && offset === one.offset);
    const back = this.#lost.filter((one) => !this.#gone.some((other) => overlap(one, other)));
    const isBack = ({ fromLsn }: Damage): boolean => back.some((one) => one.fromLsn === fromLsn);
    const kept = this.#frames.filter((one) => !one.unindexed || isMissing(one));
    if (this.#lost.length === this.#gone.length && kept.length === this.#frames.length) return;
    this.#lost = this.#gone;
    this.#frames = kept;
    await this.#keeper.update(({ damage }) => ({
      catalog: catalog(),
      // what a file that was put aside was said to be lacking goes with it
      damage: [...damage.filter((one) => !isOurs(one) && !isBack(one)), ...this.#lost, ...this.#frames],
    }));
  }

  /** A damaged end that was cut off has come again, as far as this is durable. */
  async arrived(durableLsn: Lsn): Promise<void> {
    const here = (one: Damage): boolean => !isFrame(one) && one.toLsn > this.#headLsn && one.toLsn <= durableLsn;
    const found = this.#keeper.state.damage.filter(here);
    if (found.length === 0) return;
    await this.#keeper.update(({ damage }) => ({ damage: damage.filter((one) => !here(one)) }));
    for (const { fromLsn, toLsn, where } of found) {
      repairedChannel.publish({ group: this.#group, fromLsn, toLsn, where });
    }
  }

  /** Forgets what retention has taken: records below `neededLsn`, in none of these segments. */
  async forget(segments: ReadonlySet<number>, neededLsn: Lsn): Promise<void> {
    const kept = this.#frames.filter(({ segment, toLsn }) => segments.has(segment) || toLsn >= neededLsn);
    if (kept.length === this.#frames.length) return;
    this.#frames = kept;
    await this.#save();
  }

  async #save(): Promise<void> {
    let frames: readonly DamagedFrame[] = [];
    await this.#keeper.update(({ damage }) => {
      frames = this.#frames;
      return { damage: [...damage.filter((one) => !isOurs(one)), ...this.#lost, ...frames] };
    });
    this.#durable = frames;
  }
}

function isFrame(damage: Damage): damage is DamagedFrame {
  return 'segment' in damage;
}

function isLost(damage: Damage): damage is LostStretch {
  return 'lost' in damage;
}

function isOurs(damage: Damage): boolean {
  return isFrame(damage) || isLost(damage);
}

function overlap(one: Damage, other: Damage): boolean {
  return one.fromLsn <= other.toLsn && one.toLsn >= other.fromLsn;
}

function lowest(damage: readonly Damage[]): Lsn | undefined {
  return damage.length === 0 ? undefined : Math.min(...damage.map(({ fromLsn }) => fromLsn));
}
