import type { NbdExport } from '../../daemon/nbd/export.ts';
import type { ShipStatus } from '../../daemon/ship/ship-status.ts';
import { unshippedPlace } from '../../daemon/ship/unshipped-place.ts';
import type { VolumeOptions } from '../../daemon/volume/group-options.ts';
import { ProtectedGroup } from '../../daemon/volume/protected-group.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { NeededPlace } from '../../journal/gone-files.ts';
import { LocalMarks } from '../../journal/local-marks.ts';
import { type Lsn, SECTOR_BYTES } from '../../journal/position.ts';
import { SimulatedBacking } from '../doubles/simulated-backing.ts';
import type { SimulatedMachine } from '../doubles/simulated-machine.ts';
import type { AppendedRecords } from './checkers/appended-records.ts';
import { IdleProof } from './checkers/idle-proof.ts';
import { RoomTold } from './checkers/room-told.ts';
import { notingSent } from './checkers/sent-frames.ts';
import { StartWork } from './checkers/start-work.ts';
import { JournalFollower } from './journal-follower.ts';
import { LogPromises } from './log-promises.ts';
import { GROUP_ID, GROUP_NAME, JOURNAL_DIRECTORY } from './names.ts';
import { isWordGiven, type RunningSource } from './operator.ts';
import { type Seams, SourceParts } from './parts.ts';
import type { RunOptions } from './run-options.ts';
import { identifySectors } from './sector-pattern.ts';
import type { SeededRandom } from './seeded-random.ts';
import { SourceLife } from './source-life.ts';
import { compareSectors, type SourceModel } from './source-model.ts';
import type { Streams } from './streams.ts';
import { must } from './violation.ts';
import { SimulatedClient } from './volume-client.ts';

const NOBODY = { ok: () => {}, fail: () => {}, send: () => {}, pause: () => {}, resume: () => {}, close: () => {} };

const JOURNAL_FILE = /\/journal-([0-9a-f]+)\.tmj$/;

/** The source's machine with what runs on it: the group, its shipping, its guests. Started and killed by the world. */
export class SourceNode {
  readonly machine: SimulatedMachine;
  readonly life: SourceLife;
  readonly #options: RunOptions;
  readonly #model: SourceModel;
  readonly #random: SeededRandom;
  readonly #streams: Streams;
  readonly #seams: Seams;
  readonly #log: LogPromises;
  readonly #work: StartWork;
  readonly #idle: IdleProof = new IdleProof();
  readonly #room: RoomTold;
  #clients: SimulatedClient[] = [];
  #group: ProtectedGroup | undefined;
  #parts: SourceParts | undefined;
  starts = 0;
  /** A bit of its journal has turned. */
  rotten = false;

  constructor(
    machine: SimulatedMachine,
    options: RunOptions,
    model: SourceModel,
    random: SeededRandom,
    streams: Streams,
    seams: Seams,
  ) {
    this.machine = machine;
    this.life = new SourceLife(machine, options, model, random.fork());
    this.#log = new LogPromises(machine.disk, options.journalFileBytes);
    this.#work = new StartWork(machine.disk);
    this.#room = new RoomTold(machine.disk, options);
    // what a sector held before it was written on says nothing any more once it has rotted
    model.onFlushed = (lsn): void => (this.rotten ? undefined : this.#log.answered(model, lsn));
    this.#options = options;
    this.#model = model;
    this.#random = random;
    this.#streams = streams;
    this.#seams = seams;
  }

  /** Undefined while it is down or coming up. */
  get group(): ProtectedGroup | undefined {
    return this.#group;
  }

  /** What it says about shipping; undefined while it does not ship. */
  get ship(): ShipStatus | undefined {
    return this.#parts?.shipper?.status();
  }

  /** Why shipping stands still until a person does something; '' while it does not. */
  get shippingStopped(): string {
    return this.ship?.code ?? '';
  }

  /** What it says about its degree of synchrony, for a person. */
  get degree(): string {
    return JSON.stringify(this.#group?.status().degree);
  }

  /** Of its journal; undefined while it is down. */
  get durableLsn(): Lsn | undefined {
    return this.#group?.journal.marks.lsn('durable');
  }

  /** Up to where it says that a replica has everything; undefined while it says nothing. */
  replicaTold(name: string): Lsn | undefined {
    return this.ship?.replicas.find((replica) => replica.name === name)?.durableLsn ?? undefined;
  }

  /** As its control API has it. */
  get running(): RunningSource | undefined {
    const shipper = this.#parts?.shipper;
    if (this.#group === undefined || this.#parts === undefined || shipper === undefined) return undefined;
    const streamNames = this.#streams.names;
    return { host: this.#parts.host, group: this.#group, shipper, streamNames };
  }

  /** Why the operator's word waits that the last start has found; '' when it does not. */
  get wordWaits(): string {
    return this.#parts?.settled?.givenUp?.waiting ?? '';
  }

  get clients(): readonly SimulatedClient[] {
    return this.#clients;
  }

  /** Opens, recovers, checks what was promised, lets the guests on. Rejects with a TidemarkError when that fails. */
  async start(): Promise<void> {
    const { host, process } = this.machine.start();
    this.starts++;
    this.#model.poisoned = false;
    this.#log.appended.started();
    const mayGiveUp = this.#options.giveUp !== undefined;
    this.#work.begin(mayGiveUp && isWordGiven(this.machine.observe()));
    this.machine.disk.onSyncFailed = (path): void => {
      if (JOURNAL_FILE.test(path)) this.#model.poisoned = true;
    };
    this.machine.disk.onNameGoes = (path): void => {
      if (JOURNAL_FILE.test(path)) this.#model.keepUp();
    };
    const marks = new LocalMarks();
    const sink: Seams['sink'] = (made) => notingSent(this.#seams.sink(made), (lsn) => this.#model.sent(lsn));
    const parts = new SourceParts(host, process, marks, this.#streams, { ...this.#seams, sink }, mayGiveUp);
    const volumes: VolumeOptions[] = [];
    for (const { id, sectors } of this.#options.volumes) {
      if (this.life.isAway(id)) continue;
      this.life.prepare(id, sectors);
      const modified = (): string => this.life.modified(id);
      const path = SourceLife.pathOf(id);
      const backing = await SimulatedBacking.open(parts.host, path, sectors * SECTOR_BYTES, modified);
      volumes.push({ name: `v${id}`, id, backing, seed: this.life.isSeeded(id) });
    }
    const { journalFileBytes, journalFiles } = this.#options;
    const place = { directory: JOURNAL_DIRECTORY, groupId: GROUP_ID };
    const stands = unshippedPlace(parts.host, place, journalFileBytes, this.#streams.replicas);
    const open = (unshipped: NeededPlace | undefined): Promise<ProtectedGroup> =>
      ProtectedGroup.open(
        parts.host,
        {
          journal: {
            ...place,
            groupName: GROUP_NAME,
            fileBytes: journalFileBytes,
            budgetBytes: journalFiles * journalFileBytes,
            syncIntervalMs: 25,
            unshipped,
          },
          volumes,
          overlayBytesMax: this.#options.overlayBytesMax,
          outOfRoom: this.#options.life.outOfRoom,
          afterPowerLoss: 'serve',
          destageWindowBytes: 1024 * 1024,
          flushBytes: 512 * 1024,
          flushAgeMs: 500,
          degree: this.#options.degree.policy,
          degreeTimes: { lookMs: 50, levelMs: 600, resumeMs: 400 },
          heartbeatMs: this.#options.degree.heartbeatMs,
          settle: (journal, seedAllAnew) => parts.settle(journal, seedAllAnew),
          beforeGivingUp: (end) => parts.coming.keepChainAt(end),
          ...(mayGiveUp ? { onUnreadable: (address) => parts.shipper?.mendAt(address) } : {}),
        },
        parts.groupMarks,
      );
    const opening = stands.then(open);
    opening.catch((error: unknown) => this.life.refused(error));
    const group = await opening;
    this.#work.end();
    this.life.accepted();
    this.#model.follower = new JournalFollower(
      this.machine.observe(),
      { directory: JOURNAL_DIRECTORY, groupId: GROUP_ID, fileBytes: journalFileBytes, mayBeDamaged: this.rotten },
      this.#model.history,
      marks,
      this.#log,
    );
    this.#log.begun(group.journal);
    this.#model.catchUp();
    this.#model.recovered(this.#model.follower.agreedLsn);
    this.#checkWrittenAgain(group, this.#model.follower);
    await this.checkContent(group);
    await parts.ship(group);
    this.#parts = parts;
    this.#group = group;
    this.#admitClients(group);
  }

  /** Nobody waits for room without an alarm. */
  checkRoom(): void {
    if (this.#group !== undefined) this.#room.look(this.#group, () => this.ship);
  }

  /** All that was ever appended here. */
  get appended(): AppendedRecords {
    return this.#log.appended;
  }

  /** What an idle journal owes to the next start. */
  checkIdle(nowMicros: number): void {
    this.#idle.look(this.#group?.journal, this.#log.appended.announcedLsn, nowMicros);
  }

  /** Lets a guest on in place of each one that left. */
  admitMore(): void {
    if (this.#group !== undefined) this.#admitClients(this.#group);
  }

  /** All volumes read as the model says. */
  async checkContent(group: ProtectedGroup): Promise<void> {
    for (const device of openExports(group)) {
      const client = device.attach(NOBODY);
      const bytes = new Uint8Array(device.size);
      await client.read(0, bytes);
      this.#model.catchUp();
      const volume = Number(device.name.slice(1));
      const { history } = this.#model;
      const expected = history.rangeAt(history.lastLsn, volume, 0, device.size / SECTOR_BYTES);
      compareSectors('D1', () => 'after a start', volume, identifySectors(bytes, volume, 0), expected);
      client.detach();
    }
  }

  /**
   * Where a sync had failed the page cache lies about the medium: a start has written all of the log anew there. One that
   * failed in this very start leaves that to the next: nobody is answered well here any more (D4).
   */
  #checkWrittenAgain({ journal }: ProtectedGroup, follower: JournalFollower): void {
    if (this.#model.poisoned) return;
    const { journalFileBytes } = this.#options;
    for (const [path, content] of this.machine.disk.files) {
      const sequence = JOURNAL_FILE.exec(path)?.[1];
      if (sequence === undefined) continue;
      const number = Number.parseInt(sequence, 16);
      const begin = number * journalFileBytes;
      // What stands behind the last batch of a file is of no record.
      const count = content.unprovenSectors(Math.max(0, journal.oldestAddress - begin), follower.endIn(number) - begin);
      must('D5', count === 0, () => `${path}: ${count} sectors are not on the medium after a start`);
    }
  }

  kill(): void {
    this.#down();
    this.machine.kill();
  }

  losePower(): void {
    this.#down();
    this.#model.powerLost();
    this.machine.losePower();
  }

  /** A clean stop, as SIGTERM does it; the process has to be ended then. */
  async stop(): Promise<void> {
    const group = this.#group;
    if (group === undefined) return;
    for (const client of this.#clients) client.leave();
    this.#clients = [];
    this.#group = undefined;
    try {
      await this.#parts?.close();
      await group.close();
      this.life.stopped();
    } catch (error) {
      // A disk that fails during the stop makes it an unclean one.
      if (!(error instanceof TidemarkError)) throw error;
    }
  }

  /** What an operator does with its disks, now and then. */
  async lookAfter(): Promise<void> {
    const group = this.#group;
    if (group === undefined) return;
    await this.life.detach(group, (volume) => {
      for (const client of this.#clients) if (client.volume === volume) client.leave();
    });
  }

  async bookmark(name: string): Promise<void> {
    const group = this.#group;
    if (group === undefined) return;
    try {
      const { lsn } = await group.bookmark(name, 'crash');
      this.#model.bookmarked(name, lsn);
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      this.#room.controlRefused(error);
    }
  }

  /** Something in it is finished until it is started anew. */
  get mustRestart(): boolean {
    return this.#group?.status().state === 'failed' || (this.#group !== undefined && this.#parts?.ended !== '');
  }

  #down(): void {
    this.#work.end();
    this.life.down();
    this.#model.catchUp();
    this.#model.follower = undefined;
    this.#group = undefined;
    this.#parts = undefined;
    this.#clients = [];
  }

  #admitClients(group: ProtectedGroup): void {
    this.#clients = this.#clients.filter((client) => !client.gone);
    for (const device of openExports(group)) {
      const id = Number(device.name.slice(1));
      const wanted = this.#options.volumes.find((volume) => volume.id === id)?.clients ?? 0;
      const present = this.#clients.filter((client) => client.volume === id).length;
      for (let count = present; count < wanted; count++) {
        this.#clients.push(new SimulatedClient(device, id, this.#options.habits, this.#random.fork(), this.#model));
      }
    }
  }
}

/** A volume that is being seeded lets nobody on. */
function openExports(group: ProtectedGroup): NbdExport[] {
  const open = group.status().volumes.filter(({ state }) => state === 'open');
  return group.exports('local').filter(({ name }) => open.some((volume) => volume.name === name));
}
