import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Journal } from '../../journal/journal.ts';
import { plainIdentity, writeStamp } from '../backing/backing-stamp.ts';
import type { Destager } from './destager.ts';
import type { OpenedVolume, OpenedVolumes } from './group-open.ts';
import type { ProtectedVolume } from './protected-volume.ts';
import type { SharedSync } from './shared-sync.ts';
import type { StatePlace } from './state-file.ts';

interface DetachParts {
  readonly host: Host;
  readonly place: StatePlace;
  readonly journal: Journal;
  readonly syncs: SharedSync;
  readonly destager: Destager;
  readonly opened: OpenedVolumes;
}

/** Gives volumes of a group back as plain disks (DESIGN rule 8). */
export class GroupDetach {
  readonly #parts: DetachParts;
  /** What is being said about disks on disk now: nobody else may say something about them meanwhile. */
  readonly #stamping: Set<Promise<void>> = new Set();
  /** Could not be held again when detaching them failed: nobody has them. */
  readonly #leftShut: Set<ProtectedVolume> = new Set();
  #stopped = false;

  constructor(parts: DetachParts) {
    this.#parts = parts;
  }

  /**
   * Drained, synced, stamped and closed. Rejects with `precondition-failed` while clients use the volume or it is shut,
   * with `shutting-down` when the group is closed first, and when its backing fails meanwhile; then it stays protected.
   */
  async detach(name: string): Promise<void> {
    const { destager, journal, opened, syncs } = this.#parts;
    const entry = opened.volumes.find(({ volume }) => volume.name === name);
    if (entry === undefined) throw new TidemarkError('not-found', `there is no volume ${name}`);
    const { volume } = entry;
    // Whoever shut it opens it when he is done: a seed's last step, or another who detaches it.
    if (volume.refusal !== undefined && !this.#leftShut.has(volume)) {
      throw new TidemarkError('precondition-failed', `volume ${name}: ${volume.refusalReason}`);
    }
    if (volume.clients > 0) {
      throw new TidemarkError('precondition-failed', `${volume.clients} clients use volume ${name}: disconnect them`);
    }
    this.#leftShut.delete(volume);
    volume.shut('shutting-down', 'the volume is being detached');
    try {
      await syncs.sync();
      await destager.drainTo(journal.lastLsn);
    } catch (error) {
      if (!this.#stopped) volume.open();
      throw error;
    }
    if (this.#stopped) throw new TidemarkError('shutting-down', 'the source is stopping');
    const stamping = this.#giveBack(entry);
    this.#stamping.add(stamping);
    await stamping.finally(() => this.#stamping.delete(stamping));
  }

  /** Begins no more; resolves when what was begun is done, so that the volumes left are the group's. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.allSettled(this.#stamping);
  }

  async #giveBack(entry: OpenedVolume): Promise<void> {
    const { destager, host, opened, place } = this.#parts;
    const { volume, registered, backing } = entry;
    try {
      const identity = (await backing.identity?.()) ?? plainIdentity(volume.size);
      const { lsn } = destager.applied;
      await writeStamp(host, place, volume.id, { state: 'detached', lsn, identity });
      registered.standing = 'detached';
      await opened.registry.save();
    } catch (error) {
      await this.#takeBack(entry);
      throw error;
    }
    opened.volumes.splice(opened.volumes.indexOf(entry), 1);
    opened.targets.delete(volume.id);
    await backing.close();
  }

  /** Nobody writes to a disk whose stamp may say that it is a plain one: the next start would refuse it as changed. */
  async #takeBack({ volume, registered }: OpenedVolume): Promise<void> {
    registered.standing = 'protected';
    try {
      await this.#parts.opened.protect(volume, registered);
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      this.#leftShut.add(volume);
      volume.shut('precondition-failed', `it could not be detached, nor held again: ${error.message}; detach it again`);
      return;
    }
    if (!this.#stopped) volume.open();
  }
}
