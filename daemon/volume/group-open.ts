import { TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice } from '../../journal/block-device.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Journal } from '../../journal/journal.ts';
import type { Marks } from '../../journal/marks.ts';
import { type Lsn, SECTOR_BYTES } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { decodeVolumeAdded, encodeSeedEnd, encodeVolumeAdded } from '../../journal/record-bodies.ts';
import type { Backing } from '../backing/backing.ts';
import { checkStamp, plainIdentity, readStamp, type StampState, writeStamp } from '../backing/backing-stamp.ts';
import { anchorsOf, replayFrom, type WrittenOut } from './checkpoint.ts';
import type { GroupOptions, VolumeOptions } from './group-options.ts';
import { ProtectedVolume, type VolumeGroup } from './protected-volume.ts';
import { replayJournal } from './recovery-replay.ts';
import { isEmpty } from './seeding.ts';
import { type RegisteredVolume, VolumeRegistry } from './volume-registry.ts';

export interface OpenedVolume {
  readonly volume: ProtectedVolume;
  readonly registered: RegisteredVolume;
  readonly backing: Backing;
}

/** The volumes of a group on their way from what the directory says to being open. */
export class OpenedVolumes {
  readonly registry: VolumeRegistry;
  /** Where replay and write-out begin. */
  readonly writtenOut: WrittenOut;
  readonly volumes: OpenedVolume[] = [];
  /** Backings by volume id, for the destager. */
  readonly targets: Map<number, BlockDevice> = new Map();
  /** `openHolds`: requests whose pieces are still arriving are counted. */
  journalPressure: (openHolds: boolean) => number = () => 0;
  hasRoomForSeed: (bytes: number) => boolean = () => true;
  readonly #byId: Map<number, ProtectedVolume> = new Map();
  readonly #host: Host;
  readonly #options: GroupOptions;
  readonly #marks: Marks;
  readonly #journal: Journal;

  constructor(
    host: Host,
    options: GroupOptions,
    marks: Marks,
    journal: Journal,
    registry: VolumeRegistry,
    writtenOut: WrittenOut,
  ) {
    this.registry = registry;
    this.writtenOut = writtenOut;
    this.#host = host;
    this.#options = options;
    this.#marks = marks;
    this.#journal = journal;
  }

  /** 0: there is room; 1: a bound is reached, in memory or in the journal. */
  pressure(openHolds = true): number {
    if (this.#journal.poisonedBy !== undefined) return 0;
    return Math.max(this.overlayBytes / this.#options.overlayBytesMax, this.journalPressure(openHolds));
  }

  get overlayBytes(): number {
    return this.volumes.reduce((sum, { volume }) => sum + (volume.overlay.isEmpty ? 0 : volume.overlay.bytes), 0);
  }

  byId(id: number): ProtectedVolume | undefined {
    return this.#byId.get(id);
  }

  /** The disks of known volumes are what they were: nothing was written yet when this refuses one. */
  async verify(shared: VolumeGroup): Promise<void> {
    for (const registered of this.registry.all) {
      const wanted = this.#options.volumes.find(({ name }) => name === registered.name);
      if (wanted === undefined) {
        if (registered.standing === 'detached') continue;
        throw new TidemarkError('precondition-failed', `volume ${registered.name} is in the journal: detach it first`);
      }
      await this.#verifyOne(registered, wanted);
      const isKnown = registered.reseedFromLsn === undefined;
      if (registered.standing === 'detached') registered.standing = isKnown ? 'protected' : 'seeding';
      this.add(shared, registered, wanted);
    }
    for (const { volume, registered } of this.volumes) {
      if (registered.standing === 'protected') await this.#stamp(volume, 'dirty');
    }
    await this.registry.save();
  }

  add(shared: VolumeGroup, registered: RegisteredVolume, wanted: VolumeOptions): OpenedVolume {
    const volume = new ProtectedVolume(shared, registered.id, registered.name, wanted.backing);
    volume.overlay.deadBelow = this.#marks.address('applied');
    const opened: OpenedVolume = { volume, registered, backing: wanted.backing };
    this.volumes.push(opened);
    this.#byId.set(registered.id, volume);
    this.targets.set(registered.id, wanted.backing);
    return opened;
  }

  /**
   * What the backings still need can be read, when the far side has given back what it could. Throws `journal-damaged`:
   * which records cannot.
   */
  assertReadable(): void {
    const { checkpoint } = this.writtenOut;
    for (const { address } of this.#journal.report.damage) {
      const lost = this.#journal.damageAt(address, anchorsOf(this.writtenOut));
      if (lost === undefined || lost.toLsn < lost.fromLsn || lost.resumeAddress <= checkpoint.address) continue;
      const { fromLsn, toLsn, reason } = lost;
      throw new TidemarkError(
        'journal-damaged',
        `records ${fromLsn} to ${toLsn} cannot be read, and the backings do not hold them: ${reason}`,
        { details: { fromLsn, toLsn, address } },
      );
    }
  }

  /** Rebuilds the overlays from the journal above the checkpoint. */
  async replay(writeOut: (lsn: Lsn) => Promise<void>): Promise<void> {
    const reader = this.#journal.reader(this.writtenOut.checkpoint.address);
    try {
      await replayJournal(reader, {
        end: this.#journal.endAddress,
        applied: this.writtenOut.applied.address,
        overlay: (id) => this.byId(id)?.overlay,
        onRecord: (record) => {
          if (record.kind === RecordKind.volumeAdded) this.registry.learn(decodeVolumeAdded(record.payload));
          if (record.kind !== RecordKind.seed) return;
          const seeding = this.registry.byId(record.volume);
          if (seeding?.standing !== 'seeding' || isOfSeedBefore(seeding, record.lsn)) return;
          seeding.seededBytes = Math.max(seeding.seededBytes, (record.sector + record.sectors) * SECTOR_BYTES);
        },
        overlayBytes: () => this.overlayBytes,
        overlayBytesMax: this.#options.overlayBytesMax / 2,
        writeOut: async (lsn) => {
          await writeOut(lsn);
          const applied = this.#marks.address('applied');
          for (const { volume } of this.volumes) volume.forgetBelow(applied);
        },
      });
    } finally {
      await reader.close();
    }
  }

  /** All of the volume's content is in the journal or is zeroes: from now on it is protected. */
  async protect(volume: ProtectedVolume, registered: RegisteredVolume): Promise<void> {
    await this.#stamp(volume, 'dirty');
    registered.standing = 'protected';
    registered.seededBytes = volume.size;
    registered.reseedFromLsn = undefined;
    await this.registry.save();
  }

  /** History is about to lose records: every volume is to be seeded anew. Durable when it resolves. */
  async seedAllAnew(): Promise<void> {
    this.registry.seedAllAnew();
    await this.registry.save();
  }

  /** Its content must stay as it is until it is journalled, over restarts too. */
  async beginSeeding(volume: ProtectedVolume): Promise<void> {
    await this.#stamp(volume, 'clean');
    await this.registry.save();
  }

  async #verifyOne(registered: RegisteredVolume, wanted: VolumeOptions): Promise<void> {
    if (wanted.id !== undefined && wanted.id !== registered.id) {
      throw new TidemarkError(
        'invalid-argument',
        `volume ${wanted.name} has the id ${registered.id}, not ${wanted.id}`,
      );
    }
    const stamp = readStamp(this.#host, this.#options.journal, registered.id);
    const found = (await wanted.backing.identity?.()) ?? plainIdentity(wanted.backing.size);
    if (stamp !== undefined) checkStamp(wanted.name, stamp, found, this.#journal.report.lastLsn);
    checkBacking(wanted, registered.size);
  }

  async #stamp(volume: ProtectedVolume, state: StampState): Promise<void> {
    const backing: Backing = volume.backing;
    const identity = (await backing.identity?.()) ?? plainIdentity(volume.size);
    const { lsn } = this.writtenOut.checkpoint;
    await writeStamp(this.#host, this.#options.journal, volume.id, { state, lsn, identity });
  }
}

/** A seed record that a seed anew does not begin with; none counts before it has begun. */
function isOfSeedBefore({ reseedFromLsn }: RegisteredVolume, lsn: Lsn): boolean {
  return reseedFromLsn !== undefined && (reseedFromLsn === 0 || lsn < reseedFromLsn);
}

/** What the directory says about volumes and the checkpoint. Throws `journal-damaged` when that cannot be. */
export function recoverVolumes(host: Host, options: GroupOptions, marks: Marks, journal: Journal): OpenedVolumes {
  const registry = VolumeRegistry.load(host, options.journal);
  const writtenOut = replayFrom(host, options.journal, journal);
  const { applied, checkpoint } = writtenOut;
  if (applied.address > journal.endAddress || applied.lsn > journal.lastLsn) {
    throw new TidemarkError(
      'journal-damaged',
      `the journal ends at record ${journal.lastLsn}, but the backings hold record ${applied.lsn}`,
    );
  }
  marks.advanceAddress('applied', applied.address);
  marks.advanceAddress('checkpoint', checkpoint.address);
  marks.advanceLsn('checkpoint', checkpoint.lsn);
  return new OpenedVolumes(host, options, marks, journal, registry, writtenOut);
}

/** New volumes come in: checked to be empty, or to be seeded (rule 11); told by a durable VOLUME_ADDED record first. */
export async function admitVolumes(
  options: GroupOptions,
  journal: Journal,
  opened: OpenedVolumes,
  shared: VolumeGroup,
): Promise<void> {
  for (const wanted of options.volumes) {
    if (opened.volumes.some(({ volume }) => volume.name === wanted.name)) continue;
    checkBacking(wanted, wanted.backing.size);
    const learnt = opened.registry.find(wanted.name);
    if (learnt !== undefined) checkBacking(wanted, learnt.size);
    if (wanted.seed !== true && !(await isEmpty(wanted.backing))) {
      const why = `volume ${wanted.name}: the disk is not empty; seed it, or give an empty one`;
      throw new TidemarkError('backing-not-empty', why, { details: { volume: wanted.name } });
    }
    const registered = learnt ?? opened.registry.add(wanted.name, wanted.backing.size, wanted.id);
    if (learnt === undefined) {
      const body = volumeAddedBody(registered, wanted.seed === true ? 'seeded' : 'empty');
      journal.append(RecordKind.volumeAdded, { body });
      await journal.sync();
    } else if (wanted.seed !== true) {
      // The start that was killed may have said that a seed follows: of a disk that is empty now all of it is there.
      journal.append(RecordKind.seedEnd, { body: encodeSeedEnd({ volume: registered.id }) });
      await journal.sync();
    }
    const { volume } = opened.add(shared, registered, wanted);
    if (wanted.seed === true) await opened.beginSeeding(volume);
    else await opened.protect(volume, registered);
  }
}

export function volumeAddedBody({ id, name, size }: RegisteredVolume, starts: 'empty' | 'seeded'): Uint8Array {
  return encodeVolumeAdded({ id, name, size, blockBytes: SECTOR_BYTES, starts });
}

function checkBacking(wanted: VolumeOptions, size: number): void {
  if (wanted.backing.readOnly) {
    throw new TidemarkError('read-only', `volume ${wanted.name}: the disk was opened for reading only`);
  }
  for (const found of [wanted.backing.size, wanted.size ?? size]) {
    if (found === size) continue;
    throw new TidemarkError(
      'unsupported',
      `volume ${wanted.name} has ${size} bytes, not ${found}: resizing a protected volume is not supported`,
      { details: { volume: wanted.name } },
    );
  }
}
