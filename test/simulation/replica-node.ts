import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';
import { type Lsn, SECTOR_BYTES } from '../../journal/position.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../replica/replica-group.ts';
import type { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { StandbyCheck } from './checkers/standby-check.ts';
import type { ModelChange } from './history.ts';
import { GROUP_ID, REPLICA_DIRECTORY, REPLICA_RESERVE_BYTES, type ReplicaPlace } from './names.ts';
import type { Seams } from './parts.ts';
import type { RunOptions } from './run-options.ts';
import { identifySectors } from './sector-pattern.ts';
import { compareSectors, type SourceModel } from './source-model.ts';
import type { Streams } from './streams.ts';
import { notingTold } from './told-durable.ts';
import { must } from './violation.ts';

/** The largest volume a run draws. */
const SCRATCH_BYTES = 8 * 1024 * 1024;
type View = ReturnType<ReplicaGroup['openView']>;
/** How damage is named. */
const DAMAGE: ReadonlySet<string> = new Set(['frame-damaged', 'journal-damaged']);

/** The floor stands at a segment's end: a run of seconds needs small ones. */
const SMALL_SEGMENT_BYTES = 64 * 1024;

/** The replica's machine with what runs on it. */
export class ReplicaNode {
  readonly machine: SimulatedMachine;
  readonly place: ReplicaPlace;
  readonly standby: StandbyCheck;
  readonly #options: RunOptions;
  readonly #model: SourceModel;
  readonly #streams: Streams;
  readonly #seams: Seams;
  #group: ReplicaGroup | undefined;
  /** Its clean stop began last, and no start since. */
  #heldBefore: Lsn = 0;
  #stopping: ReplicaGroup | undefined;
  /** What it has called durable before somebody took some of it away. */
  #heldEver: Lsn = 0;
  #loses = false;
  #reopens = false;
  #stream: { close(): Promise<void> } | undefined;
  /** What it has called durable, ever. */
  #durableLsn: Lsn = 0;
  /** Buffers no check uses now. */
  readonly #scratch: Uint8Array[] = [];
  #held: { readonly group: ReplicaGroup; readonly view: View; readonly lsn: Lsn } | undefined;
  /** Something of what it holds has rotted or was written over: reads may be refused by name, and never be wrong. */
  rotten = false;
  /** The newest segment that has. */
  rottenEnd = '';
  /** How often a read was refused because of that. */
  refusals = 0;
  /** Of the image, in the process started last. */
  apply: RunOptions['apply'];
  /** Draws another one for each start; undefined: it stays. */
  drawsApply: (() => RunOptions['apply']) | undefined;
  /** Of the process started last. */
  host: Host | undefined;
  starts = 0;
  viewsChecked = 0;

  constructor(
    machine: SimulatedMachine,
    place: ReplicaPlace,
    options: RunOptions,
    model: SourceModel,
    streams: Streams,
    seams: Seams,
  ) {
    this.machine = machine;
    this.place = place;
    this.#options = options;
    this.apply = options.apply;
    this.#model = model;
    this.standby = new StandbyCheck(machine, model, (volume) => options.life.seeded && volume === 1);
    this.#streams = streams;
    this.#seams = seams;
  }

  /** Undefined while it is down or coming up. */
  get group(): ReplicaGroup | undefined {
    return this.#group;
  }

  async start(): Promise<void> {
    const { host, process } = this.machine.start();
    this.host = host;
    // a start that is killed before it is through leaves the image as the stop before it did
    this.#heldBefore = this.#heldLsn;
    this.#stopping = undefined;
    this.starts++;
    this.apply = this.drawsApply?.() ?? this.#options.apply;
    const { historyBytes, replicaFills } = this.#options.life;
    const group = await ReplicaGroup.open(this.#seams.replicaHost(host), {
      ...REPLICA_DEFAULTS,
      directory: REPLICA_DIRECTORY,
      groupId: GROUP_ID,
      replica: this.place.name,
      segmentBytes: historyBytes > 0 ? SMALL_SEGMENT_BYTES : this.#options.segmentBytes,
      policy: { ...REPLICA_DEFAULTS.policy, bytesMax: historyBytes },
      reserveBytes: replicaFills ? REPLICA_RESERVE_BYTES : 0,
      indexCacheBytesMax: 256 * 1024,
      memtableEntries: this.#options.memtableEntries,
      chunkCacheBytesMax: 1024 * 1024,
      layoutCacheBytesMax: 1024 * 1024,
      apply: this.apply,
      standbyTimes: { roundMs: 100, settleMs: 60, retryMs: 200 },
      // the daemon's worker ends and is started again
      onReopen: () => {
        this.#reopens = true;
      },
    });
    this.#reopens = false;
    if (this.#loses) this.#lost(group.headLsn);
    must('P5', group.headLsn >= this.#durableLsn, () => {
      return `the replica called LSN ${this.#durableLsn} durable and came up with ${group.headLsn}`;
    });
    const stream = await this.#streams.source(host, process, this.place);
    this.#stream = stream;
    const told = (lsn: Lsn, appliedLsn: Lsn | undefined): void =>
      this.#model.guard(() => {
        this.standby.told(appliedLsn);
        must('P5', lsn <= group.headLsn, () => `LSN ${lsn} is acknowledged, durable is ${group.headLsn}`);
        // Until a clean stop is through it goes on receiving and saying so, and `note` sees it no more.
        this.#durableLsn = Math.max(this.#durableLsn, lsn);
        this.#model.shipped(lsn);
      });
    group.start(this.#seams.frames(notingTold(stream.source, told)));
    this.#group = group;
  }

  kill(): void {
    this.note();
    this.#group = undefined;
    this.machine.kill();
    this.standby.afterCrash(this.#heldLsn, false);
  }

  losePower(): void {
    this.note();
    this.#group = undefined;
    this.machine.losePower();
    this.standby.afterCrash(this.#heldLsn, true);
  }

  /** Somebody has taken files of its history away: it comes up with less. */
  loses(): void {
    this.#heldEver = this.#heldLsn;
    this.#loses = true;
  }

  #lost(headLsn: Lsn): void {
    this.#loses = false;
    this.#durableLsn = Math.min(this.#durableLsn, headLsn);
    this.standby.lostBehind(headLsn);
  }

  /** A clean stop, as SIGTERM does it; the process has to be ended then. */
  async stop(): Promise<void> {
    const group = this.#group;
    if (group === undefined) return;
    this.note();
    this.#group = undefined;
    this.#stopping = group;
    try {
      await this.#stream?.close();
      await group.close();
    } catch (error) {
      // A disk that fails during the stop makes it an unclean one.
      if (!(error instanceof TidemarkError)) throw error;
    }
  }

  /** What the replica says now: it must be a prefix of what the source holds. */
  note(): void {
    const group = this.#group;
    if (group === undefined) return;
    this.#model.catchUp();
    const { headLsn } = group;
    must('P1', headLsn >= this.#durableLsn, () => `the replica's head went from ${this.#durableLsn} to ${headLsn}`);
    must('P1', headLsn <= this.#model.history.lastLsn, () => {
      return `the replica holds LSN ${headLsn}, the source's order ends at ${this.#model.history.lastLsn}`;
    });
    this.#durableLsn = headLsn;
    this.#model.shipped(headLsn);
  }

  /** Why it takes nothing any more until somebody starts it anew; '' while it does. */
  async stoppedBecause(): Promise<string> {
    if (this.#reopens) return 'damaged history was put back: the index is built again';
    const status = await this.#group?.status();
    must('P2', status?.receiver.state !== 'diverged', () => `nobody but the source sends: ${status?.receiver.reason}`);
    return status?.receiver.state === 'stopped' ? status.receiver.reason : '';
  }

  /** What it has called durable. */
  get durableLsn(): Lsn {
    return this.#durableLsn;
  }

  /** The same, and what somebody has taken away since. */
  get durableEverLsn(): Lsn {
    return Math.max(this.#durableLsn, this.#heldEver);
  }

  /** Durable there: during a clean stop more than what it said last, and the image may have it. */
  get #heldLsn(): Lsn {
    return Math.max(this.durableEverLsn, this.#heldBefore, this.#stopping?.headLsn ?? 0);
  }

  /** Whether a volume that began with content of its own is whole at this LSN: it is no point before. */
  isSeeded(lsn: Lsn): boolean {
    return this.#model.history.seededAt(lsn, (volume) => this.#options.life.seeded && volume === 1);
  }

  /** Nothing can be shown before the record that adds the first volume. */
  hasVolumes(lsn: Lsn): boolean {
    return this.#model.history.volumesAt(lsn).size > 0;
  }

  /** All volumes of the view at this LSN are, to the byte, what the model has at it; nothing when it is being stopped. */
  async checkView(lsn: Lsn): Promise<void> {
    const group = this.#group;
    if (group === undefined || lsn < group.floorLsn || lsn > group.headLsn) return;
    try {
      await this.#checkView(group, lsn);
    } catch (error) {
      if (!(error instanceof TidemarkError) || (this.#group === group && !this.#mayRefuse(error))) throw error;
    }
  }

  /** The source's word about this replica: never more than it has called durable. */
  checkTold(told: Lsn | undefined): void {
    must('P7', (told ?? 0) <= this.durableEverLsn, () => {
      return `the source says the replica holds LSN ${told}, it never said more than ${this.durableEverLsn}`;
    });
  }

  /** Looks again at a view that was opened some time ago, and leaves one at this LSN open for the next time. */
  async checkHeldView(lsn: Lsn): Promise<void> {
    const group = this.#group;
    if (group === undefined) return;
    const held = this.#held;
    this.#held = undefined;
    try {
      if (held !== undefined && held.group === group) {
        try {
          await this.#readWhole(held.view, held.lsn, 'V1');
        } finally {
          await group.views.close(held.view.id);
        }
      }
      // The floor may have passed the position while the other view was read.
      if (lsn < group.floorLsn || !this.isSeeded(lsn) || !this.hasVolumes(lsn)) return;
      const view = group.openView({ lsn, owner: 'held', scratchBytesMax: 0 });
      this.#held = { group, view, lsn };
    } catch (error) {
      if (!(error instanceof TidemarkError) || (this.#group === group && !this.#mayRefuse(error))) throw error;
    }
  }

  /** Whether a read may end with this error: it names damage there is, or a disk that fails now and then. */
  #mayRefuse(error: TidemarkError): boolean {
    if (this.rotten && DAMAGE.has(error.code)) {
      this.refusals++;
      return true;
    }
    const { readFails, syncFails, writeFails, writeShort } = this.machine.disk.faults;
    // A rotten run of the index is built anew by whoever reads through it, which takes room and a disk that works.
    const building: Readonly<Record<string, boolean>> = {
      'no-space': true,
      'device-failed': writeFails > 0,
      'short-write': writeShort > 0,
      'sync-failed': syncFails > 0,
    };
    if (this.rotten && building[error.code] === true) return true;
    return error.code === 'device-failed' && readFails > 0;
  }

  async #checkView(group: ReplicaGroup, lsn: Lsn): Promise<void> {
    let view: View;
    try {
      view = group.openView({ lsn, owner: 'simulation', scratchBytesMax: 0 });
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      if (error.code === 'not-found' && !this.hasVolumes(lsn)) return;
      if (error.code === 'precondition-failed' && !this.isSeeded(lsn)) return;
      throw error;
    }
    must('P1', this.isSeeded(lsn), () => `LSN ${lsn} was shown while a seed is under way`);
    try {
      await this.#readWhole(view, lsn, 'P1');
    } finally {
      await group.views.close(view.id);
    }
  }

  async #readWhole(view: View, lsn: Lsn, invariant: 'P1' | 'V1'): Promise<void> {
    const { history } = this.#model;
    for (const { volume, device } of view.volumes) {
      const bytes = this.#scratch.pop() ?? new Uint8Array(SCRATCH_BYTES);
      const content = bytes.subarray(0, device.size);
      await device.read(0, content);
      const expected = history.rangeAt(lsn, volume.id, 0, device.size / SECTOR_BYTES);
      const found = identifySectors(content, volume.id, 0);
      compareSectors(invariant, () => `the view at LSN ${lsn}`, volume.id, found, expected);
      this.#scratch.push(bytes);
    }
    this.viewsChecked++;
  }

  /** At this LSN, and right before it when `before`, where the record at it made a change. */
  async checkChange(lsn: Lsn, before: boolean): Promise<void> {
    const group = this.#group;
    const changes = this.#model.history.record(lsn)?.changes ?? [];
    if (group === undefined || changes.length === 0 || lsn <= group.floorLsn) return;
    for (const at of before || changes.length > 1 ? [lsn - 1, lsn] : [lsn]) {
      if (!this.isSeeded(at)) continue;
      try {
        await this.#checkChanges(group, at, changes);
      } catch (error) {
        if (!(error instanceof TidemarkError) || !this.#mayRefuse(error)) throw error;
      }
    }
  }

  async #checkChanges(group: ReplicaGroup, at: Lsn, changes: readonly ModelChange[]): Promise<void> {
    const view = group.openView({ lsn: at, owner: 'simulation', scratchBytesMax: 0 });
    try {
      for (const { volume, sector, ids } of changes) {
        const device = view.volumes.find((one) => one.volume.id === volume)?.device;
        must('P1', device !== undefined, () => `the view at LSN ${at} has no volume ${volume}`);
        const bytes = new Uint8Array(ids.length * SECTOR_BYTES);
        await device.read(sector * SECTOR_BYTES, bytes);
        const found = identifySectors(bytes, volume, sector);
        const expected = this.#model.history.rangeAt(at, volume, sector, ids.length);
        compareSectors('P1', () => `the view at LSN ${at}`, volume, found, expected, sector);
      }
      this.viewsChecked++;
    } finally {
      await group.views.close(view.id);
    }
  }
}
