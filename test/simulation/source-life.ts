import { readStamp } from '../../daemon/backing/backing-stamp.ts';
import { ChangeMap } from '../../daemon/volume/change-map.ts';
import type { ProtectedGroup } from '../../daemon/volume/protected-group.ts';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import { SECTOR_BYTES } from '../../journal/position.ts';
import { SimulatedContent } from '../doubles/simulated-content.ts';
import type { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { GROUP_ID, JOURNAL_DIRECTORY } from './names.ts';
import type { RunOptions } from './run-options.ts';
import { fillSectors, identifySectors } from './sector-pattern.ts';
import type { SeededRandom } from './seeded-random.ts';
import { compareSectors, type SourceModel } from './source-model.ts';
import { must } from './violation.ts';

/** Ids of what stood on a disk before it was protected. */
const FIRST_CONTENT_ID = 0xe000_0000;
const PLACE = { directory: JOURNAL_DIRECTORY, groupId: GROUP_ID };
const DISKS = '/source/disks';

/** What happens to the disks behind a group over its life, beside what its guests write. */
export class SourceLife {
  readonly #machine: SimulatedMachine;
  readonly #options: RunOptions;
  readonly #model: SourceModel;
  readonly #random: SeededRandom;
  /** Volumes that are plain disks at present. */
  readonly #away: Set<number> = new Set();
  /** A disk was written to behind our back: how it is put back. The next start must refuse it. */
  #putBack: (() => void) | undefined;
  #detaching = false;

  constructor(machine: SimulatedMachine, options: RunOptions, model: SourceModel, random: SeededRandom) {
    this.#machine = machine;
    this.#options = options;
    this.#model = model;
    this.#random = random;
  }

  /** Not among the volumes of the next start. */
  isAway(volume: number): boolean {
    return this.#away.has(volume);
  }

  get someAway(): boolean {
    return this.#away.size > 0;
  }

  /** The disk has content when it is protected first. */
  isSeeded(volume: number): boolean {
    return this.#options.life.seeded && volume === 1;
  }

  static pathOf(volume: number): string {
    return `${DISKS}/${volume}.raw`;
  }

  /** Time of a disk's last change, as a file system shows it. */
  modified(volume: number): string {
    return String(this.#content(volume)?.modified ?? 0);
  }

  /** Puts content on a disk that is to be seeded, before anybody saw it. */
  prepare(volume: number, sectors: number): void {
    const { disk } = this.#machine;
    if (!this.isSeeded(volume) || this.#content(volume) !== undefined) return;
    const bytes = new Uint8Array(sectors * SECTOR_BYTES);
    const view = new DataView(bytes.buffer);
    for (let sector = 0; sector + 16 <= sectors; sector += 16) {
      if (this.#random.chance(0.4)) continue;
      fillSectors(view, sector * SECTOR_BYTES, 16 * SECTOR_BYTES, FIRST_CONTENT_ID + sector, volume, sector);
    }
    const content = new SimulatedContent();
    content.write(bytes, 0);
    content.endSync(content.beginSync(), true);
    for (const directory of ['/source', DISKS]) disk.directories.add(directory);
    disk.files.set(SourceLife.pathOf(volume), content);
  }

  /** A start was refused. What was changed outside is put back when that was the reason. */
  refused(error: unknown): void {
    if (this.#putBack === undefined || !hasCode(error, 'backing-changed')) return;
    this.#putBack();
    this.#putBack = undefined;
  }

  /** A start took all disks as they are. */
  accepted(): void {
    must('B8', this.#putBack === undefined, () => 'a disk that was written to outside was taken as it is');
  }

  /** Nobody holds the disks: somebody writes to one, maybe. */
  stopped(): void {
    if (!this.#options.life.changedOutside || this.#putBack !== undefined || this.#random.chance(0.5)) return;
    const { id } = this.#random.pick(this.#options.volumes);
    const content = this.#content(id);
    const stamp = readStamp(this.#machine.observe(), PLACE, id);
    if (content === undefined || stamp?.state !== 'clean' || this.isAway(id)) return;
    const { modified } = content;
    const before = new Uint8Array(SECTOR_BYTES);
    content.read(before, 0);
    const write = (bytes: Uint8Array): void => {
      content.write(bytes, 0);
      content.endSync(content.beginSync(), true);
    };
    write(new Uint8Array(SECTOR_BYTES).fill(0x77));
    this.#putBack = () => {
      write(before);
      content.modified = modified;
    };
  }

  /** Gives a volume back as a plain disk, maybe; nothing while one is away. */
  async detach(group: ProtectedGroup, leave: (volume: number) => void): Promise<void> {
    const { life, volumes } = this.#options;
    if (!life.detach || this.#detaching || this.someAway || volumes.length < 2 || this.#random.chance(0.8)) return;
    const { id, sectors } = this.#random.pick(volumes);
    this.#detaching = true;
    leave(id);
    try {
      await group.detach(`v${id}`);
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      return;
    } finally {
      this.#detaching = false;
    }
    this.#away.add(id);
    const stamp = readStamp(this.#machine.observe(), PLACE, id);
    must('B8', stamp?.state === 'detached', () => `volume ${id} was given back with a stamp that says ${stamp?.state}`);
    this.#model.catchUp();
    const bytes = new Uint8Array(sectors * SECTOR_BYTES);
    this.#content(id)?.read(bytes, 0);
    const expected = this.#model.history.rangeAt(stamp.lsn, id, 0, sectors);
    compareSectors('B8', () => `the disk given back at LSN ${stamp.lsn}`, id, identifySectors(bytes, id, 0), expected);
  }

  /** At the next start it is protected again. */
  takeBack(): void {
    this.#away.clear();
  }

  /** Nothing of a start that was killed goes on. */
  down(): void {
    this.#detaching = false;
  }

  /** What was given up is announced, and every change in it is in the durable change map (rule 13). */
  async checkGivenUp(group: ProtectedGroup): Promise<void> {
    const { givenUp } = group.status();
    if (givenUp === undefined) return;
    const volumes = this.#options.volumes.map(({ id, sectors }) => ({ id, size: sectors * SECTOR_BYTES }));
    const map = await ChangeMap.open(this.#machine.observe(), PLACE, volumes);
    for (let lsn = givenUp.fromLsn; lsn <= givenUp.toLsn; lsn++) {
      for (const { volume, sector, ids } of this.#model.history.record(lsn)?.changes ?? []) {
        for (const at of [sector, sector + ids.length - 1]) {
          must('R13', map.isMarked(volume, at), () => `LSN ${lsn} was given up and ${volume}:${at} is not in the map`);
        }
      }
    }
    await map.close();
  }

  #content(volume: number): SimulatedContent | undefined {
    return this.#machine.disk.files.get(SourceLife.pathOf(volume));
  }
}
