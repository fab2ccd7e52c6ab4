import { TidemarkError } from '../../journal/base/errors.ts';
import { SECTOR_BYTES } from '../../journal/position.ts';
import type { ReplicaGroup } from '../../replica/replica-group.ts';
import { openRawTarget } from '../../replica/restore/raw-file-target.ts';
import { runRestore } from '../../replica/restore/restore-run.ts';
import type { GroupView } from '../../replica/view/view-manager.ts';
import type { LifeOptions } from './life-options.ts';
import { REPLICA_RESERVE_BYTES } from './names.ts';
import type { ReplicaNode } from './replica-node.ts';
import type { Scheduler } from './scheduler.ts';
import { fillSectors, identifySectors } from './sector-pattern.ts';
import type { SeededRandom } from './seeded-random.ts';
import { compareSectors, type SourceModel } from './source-model.ts';
import { must } from './violation.ts';

const SCRATCH_BYTES = 256 * 1024;
const FULL_MICROS_MAX = 3_000_000;
/** What a failing or full disk of the replica may answer; the product says so and goes on. */
const DISK_TROUBLE: readonly string[] = ['no-space', 'device-failed', 'sync-failed', 'short-write'];
const DAMAGE: readonly string[] = ['frame-damaged', 'journal-damaged', 'verification-failed'];

/** A view that somebody keeps open, with what it must show. */
interface HeldView {
  readonly view: GroupView;
  /** By volume: sectors written into the scratch, as ids. */
  readonly scratch: ReadonlyMap<number, Map<number, number>> | undefined;
}

/** What people do with a replica while it receives: views kept open, scratch writes, restores, history that ages out. */
export class ReplicaLife {
  readonly #replica: ReplicaNode;
  readonly #life: LifeOptions;
  readonly #model: SourceModel;
  readonly #scheduler: Scheduler;
  readonly #random: SeededRandom;
  /** Everything here ends with the process it was begun in. */
  #group: ReplicaGroup | undefined;
  #held: HeldView | undefined;
  #busy = false;
  #restores = 0;
  readonly #wholeBytes: number;

  constructor(replica: ReplicaNode, life: LifeOptions, model: SourceModel, scheduler: Scheduler, random: SeededRandom) {
    this.#replica = replica;
    this.#wholeBytes = replica.machine.disk.capacityBytes;
    this.#life = life;
    this.#model = model;
    this.#scheduler = scheduler;
    this.#random = random;
  }

  /** The next thing, when the one before is done. */
  async act(): Promise<void> {
    const { group } = this.#replica;
    if (group !== this.#group) {
      this.#group = group;
      this.#held = undefined;
      this.#busy = false;
    }
    if (group === undefined || this.#busy) return;
    this.#busy = true;
    try {
      await this.#step(group);
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      const named = this.#replica.rotten && DAMAGE.includes(error.code);
      if (this.#replica.group === group && !named && !DISK_TROUBLE.includes(error.code)) throw error;
    } finally {
      if (this.#group === group) this.#busy = false;
    }
  }

  async #step(group: ReplicaGroup): Promise<void> {
    const random = this.#random;
    const life = this.#life;
    if (life.replicaFills && random.chance(0.1)) this.#fill();
    if (life.historyBytes > 0 && random.chance(0.5)) {
      await group.retain();
      const lsn = this.#held?.view.lsn;
      must('V2', lsn === undefined || group.floorLsn <= lsn, () => `floor ${group.floorLsn} passed the view at ${lsn}`);
    }
    if (life.views) await this.#useView(group);
    if (life.restores && random.chance(0.15)) await this.#restore(group);
  }

  /** Others take all the room for a time, the reserve but for some of it too. */
  #fill(): void {
    const { disk } = this.#replica.machine;
    const whole = this.#wholeBytes;
    if (disk.capacityBytes !== whole) return;
    disk.capacityBytes = whole - disk.freeBytes() + this.#random.below(REPLICA_RESERVE_BYTES);
    this.#scheduler.after(this.#random.between(1000, FULL_MICROS_MAX), () => {
      disk.capacityBytes = whole;
    });
  }

  async #useView(group: ReplicaGroup): Promise<void> {
    const random = this.#random;
    const held = this.#held;
    if (held === undefined) {
      const lsn = random.between(group.floorLsn, group.headLsn);
      if (!this.#replica.isSeeded(lsn)) return;
      const scratch = random.chance(0.5);
      if (!this.#replica.hasVolumes(lsn)) return;
      const view = group.openView({ lsn, owner: 'life', scratchBytesMax: scratch ? SCRATCH_BYTES : 0 });
      const written = scratch ? new Map(view.volumes.map(({ volume }) => [volume.id, new Map()])) : undefined;
      this.#held = { view, scratch: written };
      return;
    }
    if (held.scratch !== undefined) {
      try {
        await this.#scribble(held.view, held.scratch);
      } catch (error) {
        // A write that failed may have happened in part: what stands there is nobody's word.
        this.#held = undefined;
        await group.views.close(held.view.id);
        throw error;
      }
    }
    await this.#checkView(held);
    if (!random.chance(0.3)) return;
    this.#held = undefined;
    await group.views.close(held.view.id);
  }

  async #scribble(view: GroupView, scratch: ReadonlyMap<number, Map<number, number>>): Promise<void> {
    const { volume, device } = this.#random.pick(view.volumes);
    const sectors = this.#random.between(1, 8);
    const sector = this.#random.below(device.size / SECTOR_BYTES - sectors + 1);
    const id = this.#model.newId();
    const bytes = new Uint8Array(sectors * SECTOR_BYTES);
    fillSectors(new DataView(bytes.buffer), 0, bytes.length, id, volume.id, sector);
    await device.write(sector * SECTOR_BYTES, bytes);
    for (let index = 0; index < sectors; index++) scratch.get(volume.id)?.set(sector + index, id);
  }

  /** It shows what it showed, whatever was received, dropped or written elsewhere meanwhile. */
  async #checkView({ view, scratch }: HeldView): Promise<void> {
    for (const { volume, device } of view.volumes) {
      const bytes = new Uint8Array(device.size);
      await device.read(0, bytes);
      const sectors = device.size / SECTOR_BYTES;
      const expected = this.#model.history.rangeAt(view.lsn, volume.id, 0, sectors).slice();
      for (const [sector, id] of scratch?.get(volume.id) ?? []) expected[sector] = id;
      const what = (): string => `the view held at LSN ${view.lsn}${scratch === undefined ? '' : ', with scratch'}`;
      compareSectors(
        scratch === undefined ? 'V1' : 'V3',
        what,
        volume.id,
        identifySectors(bytes, volume.id, 0),
        expected,
      );
    }
    this.#replica.viewsChecked++;
  }

  async #restore(group: ReplicaGroup): Promise<void> {
    const { host } = this.#replica;
    const lsn = this.#random.between(group.floorLsn, group.headLsn);
    if (host === undefined || !this.#replica.isSeeded(lsn) || !this.#replica.hasVolumes(lsn)) return;
    const view = group.openView({ lsn, owner: 'restore', scratchBytesMax: 0, kind: 'restore' });
    try {
      const chosen = this.#random.pick(view.volumes);
      const { volume, device } = chosen;
      host.disk.makeDirectory('/restored');
      const path = `/restored/${++this.#restores}.raw`;
      const target = openRawTarget(host, path, device.size, true);
      await runRestore(device, target.device, {
        clock: host.clock,
        readers: 2,
        chunkBytes: 64 * 1024,
        targetZeroed: target.zeroed,
        verify: true,
        signal: new AbortController().signal,
        onProgress: () => undefined,
      });
      await target.finish();
      const bytes = new Uint8Array(device.size);
      const file = this.#replica.machine.observe().disk.open(path, 'read');
      file.readSync(bytes, 0, bytes.length, 0);
      const expected = this.#model.history.rangeAt(lsn, volume.id, 0, device.size / SECTOR_BYTES);
      compareSectors('V1', () => `restored from ${lsn}`, volume.id, identifySectors(bytes, volume.id, 0), expected);
      host.disk.unlink(path);
    } finally {
      await group.views.close(view.id);
    }
  }
}
