import { TidemarkError } from '../../journal/base/errors.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import { delay, type Host } from '../../journal/host/host.ts';
import type { Journal } from '../../journal/journal.ts';
import { LocalMarks } from '../../journal/local-marks.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import type { FrameSink } from '../../journal/stream.ts';
import type {
  ActionReply,
  BookmarkReply,
  BookmarkRequest,
  GiveUpReply,
  GiveUpRequest,
  SourceGroupReply,
} from '../control/control-api.ts';
import type { DegreeRequest } from '../control/degree-api.ts';
import { sourceGroupId } from '../group-identity.ts';
import { type NbdListenAddress, NbdServer } from '../nbd/server.ts';
import { exportUri, nbdListener } from '../nbd-setup.ts';
import { ComingShipper } from '../ship/coming-shipper.ts';
import { type GivenWord, readGivenWord, writeGivenWord } from '../ship/given-word.ts';
import { type Settled, settleFarSide } from '../ship/settle.ts';
import { SHIP_DELAY } from '../ship/ship-pace.ts';
import { Shipper } from '../ship/shipper.ts';
import { unshippedPlace } from '../ship/unshipped-place.ts';
import { countSource } from '../telemetry/channel-counters.ts';
import { isoTime } from '../times.ts';
import { anchorsOf, readCheckpoint } from '../volume/checkpoint.ts';
import { ProtectedGroup } from '../volume/protected-group.ts';
import type { WorkerSide } from '../worker/worker-side.ts';
import { AppendRate } from './append-rate.ts';
import { CountedExport } from './counted-export.ts';
import { policyOf } from './degree-policy-of.ts';
import { damageBehind, planGiveUp } from './give-up-plan.ts';
import type { SourceWorkerData } from './group-worker-protocol.ts';
import { mendingOf } from './mending.ts';
import { openVolumes } from './open-volumes.ts';
import { ThreadSealing } from './seal-thread.ts';
import { sourceGroupReply, unknownSourceGroup } from './source-status.ts';
import { requiredSinks, sinkFactory, streamNames } from './source-stream.ts';

/** Between two questions for records without which the disks cannot be served. */
const ASK_AGAIN_MS = 5_000;

function damageNote({ fromLsn, toLsn, reason }: { fromLsn: Lsn; toLsn: Lsn; reason: string }): string {
  return `damage: records ${fromLsn} to ${toLsn} cannot be read: ${reason}`;
}

function givenNote({ stretches, reason }: GivenWord): string {
  const which = stretches.map(({ fromLsn, toLsn }) => `${fromLsn} to ${toLsn}`).join(', ');
  return `records ${which} are given up at the next start, and every volume is seeded anew: ${reason}`;
}

function givenUpNotes({ givenUp }: Settled): string[] {
  if (givenUp === undefined) return [];
  const { given, waiting } = givenUp;
  const lost = given.map(
    ({ fromLsn, toLsn, reason }) =>
      `records ${fromLsn} to ${toLsn} were given up, every volume is seeded anew: ${reason}`,
  );
  return waiting === undefined ? lost : [...lost, `not given up yet, it is tried again at the next start: ${waiting}`];
}

/** What is there once the exports are open. */
interface OpenSource {
  readonly groupId: string;
  readonly group: ProtectedGroup;
  readonly shipper: Shipper;
  readonly server: NbdServer;
  readonly address: NbdListenAddress;
  readonly exports: ReadonlyMap<string, CountedExport>;
}

/**
 * One group at the source, on the thread of its worker. Order of the start: disks and journal are locked and recovered,
 * a cut is settled with the far side (rule 4), the new incarnation is durable, shipping begins, exports open; a volume
 * that is being seeded refuses clients until its first copy is journalled.
 */
export class SourceDataPath {
  readonly #host: Host;
  readonly #data: SourceWorkerData;
  readonly #side: Pick<WorkerSide<SourceGroupReply>, 'log'>;
  readonly #ended = Promise.withResolvers<void>();
  readonly #coming = new ComingShipper();
  #notes: string[] = [];
  readonly #counters = countSource();
  readonly #rate = new AppendRate();
  #running: Promise<void> | undefined;
  #open: OpenSource | undefined;
  #phase = 'locking and recovering the journal';
  #closing = false;

  constructor(host: Host, data: SourceWorkerData, side: Pick<WorkerSide<SourceGroupReply>, 'log'>) {
    this.#host = host;
    this.#data = data;
    this.#side = side;
  }

  /** Runs until `close`; rejects when the group cannot go on. */
  async run(): Promise<void> {
    this.#running = this.#start();
    await this.#running;
    await this.#ended.promise;
  }

  /** Guests get what they wait for, then everything is synced and the journal marked clean. */
  async close(): Promise<void> {
    this.#closing = true;
    // a start that failed has told so already
    await this.#running?.catch(() => undefined);
    // who waits for a far side that is away is disconnected without an answer, and asks the next start again
    await this.#open?.server.close();
    await this.#open?.shipper.close();
    await this.#open?.group.close();
    this.#ended.resolve();
  }

  async bookmark({ name, note, labels }: BookmarkRequest): Promise<BookmarkReply> {
    const { group } = this.#opened();
    const extra = { ...(note === undefined ? {} : { note }), ...(labels === undefined ? {} : { labels }) };
    const placed = await group.bookmark(name, 'crash', extra);
    const { epoch } = group.journal;
    return { name, kind: 'crash', epoch, lsn: placed.lsn, time: isoTime(placed.time), note: note ?? null };
  }

  async detach(dryRun: boolean): Promise<ActionReply> {
    const { group, server } = this.#opened();
    const volumes = group.status().volumes;
    const busy = volumes.filter((volume) => volume.clients > 0);
    const steps = volumes.map(({ name, clients }) => {
      const still = clients === 0 ? '' : ` (refused while ${clients} clients use it)`;
      return `${name}: write everything out, sync, stamp the disk, close its export${still}`;
    });
    if (dryRun) return { dryRun, steps };
    if (busy.length > 0) {
      const names = busy.map(({ name, clients }) => `${name} (${clients})`).join(', ');
      throw new TidemarkError('precondition-failed', `guests still use ${names}: shut them down first`);
    }
    for (const { name } of volumes) {
      await group.detach(name);
      await server.removeExport(name);
    }
    return { dryRun, steps: volumes.map(({ name }) => `${name} is a plain disk again`) };
  }

  async release(dryRun: boolean): Promise<ActionReply> {
    const { group } = this.#opened();
    if (!group.status().remoteHeld) return { dryRun, steps: ['nothing is held'] };
    if (!dryRun) await group.release();
    return { dryRun, steps: ['remote guests may connect again'] };
  }

  /** What is left out stays as it is, or as it will be soon. */
  async changeDegree({ dryRun = false, ...wanted }: DegreeRequest): Promise<ActionReply> {
    const { degree } = this.#opened().group;
    const steps = await degree.change(policyOf(degree.status, wanted, this.#data.config), dryRun);
    return { dryRun, steps };
  }

  async giveUp({ reason, dryRun = false }: GiveUpRequest): Promise<GiveUpReply> {
    const { config } = this.#data;
    const { group, shipper, groupId } = this.#opened();
    const { journal } = group;
    const known = shipper.damage.map(({ address }) => address);
    if (known.length > 0) {
      for (const address of await damageBehind(this.#host, journal, Math.min(...known))) shipper.mendAt(address);
    }
    const damage = await shipper.askAgain();
    const { word, reply } = planGiveUp({
      journal,
      damage,
      replicas: shipper.status().replicas,
      streams: shipper.streams,
      streamNames: streamNames(config),
      writtenOutTo: group.writtenOut.checkpoint.address,
      volumes: group.status().volumes.map(({ name }) => name),
      reason,
    });
    if (!dryRun) await writeGivenWord(this.#host, { directory: config.journal.directory, groupId }, word);
    if (!dryRun) this.#note(givenNote(word));
    return { ...reply, dryRun };
  }

  status(): SourceGroupReply {
    const { config } = this.#data;
    if (this.#open === undefined) {
      return { ...unknownSourceGroup(config), reason: this.#phase, notes: this.#notes, ageSeconds: 0 };
    }
    const { groupId, group, shipper, server, address, exports } = this.#open;
    const now = group.status();
    if (now.state === 'failed' && !this.#closing) {
      this.#ended.reject(new TidemarkError('journal-poisoned', `the journal takes nothing any more: ${now.reason}`));
    }
    this.#rate.note(this.#host.clock.monotonicMs(), group.journal.endAddress);
    return sourceGroupReply({
      config,
      groupId,
      journal: group.journal,
      group: now,
      ship: shipper.status(),
      exports,
      uriOf: (volume) => exportUri(address, config.listen.tls !== null, volume),
      listen: address.kind === 'unix' ? address.path : `${address.host}:${address.port}`,
      clients: server.clients().length,
      notes: [...this.#notes, ...shipper.damage.map(damageNote)],
      counters: this.#counters,
      bytesPerSecond: this.#rate.bytesPerSecond,
      nowMicros: this.#host.clock.wallMicros(),
    });
  }

  async #start(): Promise<void> {
    const { config, stateDir } = this.#data;
    const groupId = await sourceGroupId(stateDir, config.name);
    const makeSinks = await sinkFactory(this.#host, config, groupId);
    const listener = await nbdListener(config.listen);
    const group = await this.#openGroup(groupId, makeSinks);
    const opened: { close(): Promise<void> }[] = [group];
    try {
      const shipper = await this.#openShipper(group, groupId, makeSinks());
      opened.unshift(shipper);
      this.#coming.opened(shipper);
      group.degree.attach(shipper.far);
      const { address: unreadable } = group.status().destage;
      if (unreadable !== undefined) shipper.mendAt(unreadable);
      const exports = group
        .exports(config.listen.tcp === null ? 'local' : 'remote')
        .map((item) => new CountedExport(item));
      const server = await NbdServer.start({ listeners: [listener], exports });
      const address = server.addresses[0] ?? listener.address;
      const byName = new Map(exports.map((item) => [item.name, item]));
      this.#open = { groupId, group, shipper, server, address, exports: byName };
    } catch (error) {
      this.#coming.failed();
      for (const part of opened) await part.close();
      throw error;
    }
    this.#side.log('info', 'exports-listening', 'the exports are served', { listen: this.status().listen });
    group.seeded().catch((error: unknown) => {
      if (error instanceof TidemarkError)
        this.#side.log('error', 'seeding-failed', error.message, { reason: error.code });
      else this.#ended.reject(error);
    });
  }

  async #openGroup(groupId: string, makeSinks: () => FrameSink[]): Promise<ProtectedGroup> {
    const { config } = this.#data;
    const place = { directory: config.journal.directory, groupId };
    const unshipped = await unshippedPlace(this.#host, place, config.journal.fileBytes, config.replicas);
    const volumes = await openVolumes(config.volumes);
    const options = {
      journal: { ...config.journal, groupId, groupName: config.name, unshipped },
      volumes,
      overlayBytesMax: config.overlayMemoryBytes,
      outOfRoom: config.outOfRoom,
      afterPowerLoss: config.afterPowerLoss === 'hold' ? ('hold-remote' as const) : ('serve' as const),
      heartbeatMs: config.heartbeatMs,
      degree: config.degree,
      settle: (journal: Journal, seedAllAnew: () => Promise<void>) =>
        this.#settle(journal, groupId, makeSinks, seedAllAnew),
      beforeGivingUp: (end: JournalAddress) => this.#coming.keepChainAt(end),
      onUnreadable: (address: JournalAddress) => this.#coming.shipper?.mendAt(address),
    };
    try {
      return await ProtectedGroup.open(this.#host, options, new LocalMarks());
    } catch (error) {
      for (const { backing } of volumes) await backing.close();
      throw error;
    }
  }

  /**
   * Only durable records are shipped, and neither a clean stop nor a kill within one boot can lose those (rule 3): the far
   * side is asked after a power loss, about damage, and when this journal is empty.
   */
  async #settle(
    journal: Journal,
    groupId: string,
    makeSinks: () => FrameSink[],
    seedAllAnew: () => Promise<void>,
  ): Promise<{ highestLsn: number } | undefined> {
    const { bootChanged, cut, damage, cleanStop, lastLsn } = journal.report;
    if (cut !== undefined)
      this.#note(`a torn tail was cut behind ${cut.afterLsn} (${cut.droppedBytes} bytes: ${cut.reason})`);
    const kept = damage.length === 0 && (cleanStop || !bootChanged);
    const word = readGivenWord(this.#host, { directory: this.#data.config.journal.directory, groupId });
    if (kept && lastLsn > 0 && word === undefined) return undefined;
    const settled = await this.#askFarSide(journal, groupId, makeSinks, seedAllAnew);
    this.#side.log('info', 'settled', 'the far side was asked what it holds', {
      answered: settled.answered,
      restored: settled.restored,
      mended: settled.mended,
    });
    if (settled.restored > 0) this.#note(`${settled.restored} records that were lost here came back from the far side`);
    if (settled.mended > 0) this.#note(`${settled.mended} damaged stretches of the journal were put back`);
    for (const note of givenUpNotes(settled)) this.#note(note);
    if (settled.answered > 0) return { highestLsn: settled.highestLsn };
    if (cut !== undefined)
      this.#note('nobody could be asked about the cut: a replica that holds more will need a resync');
    return undefined;
  }

  /** Again and again while records are missing without which the disks cannot be served: somebody may come who has them. */
  async #askFarSide(
    journal: Journal,
    groupId: string,
    makeSinks: () => FrameSink[],
    seedAllAnew: () => Promise<void>,
  ): Promise<Settled> {
    const { config } = this.#data;
    const { directory } = config.journal;
    const writtenOut = readCheckpoint(this.#host, { directory, groupId });
    const word = readGivenWord(this.#host, { directory, groupId });
    const writtenOutTo = writtenOut?.checkpoint.address ?? 0;
    const replicas = config.replicas.map(({ name }) => name);
    this.#phase = 'asking the far side what it holds';
    for (;;) {
      const settled = await settleFarSide(this.#host, {
        journal,
        directory,
        groupId,
        groupName: config.name,
        sinks: makeSinks(),
        timeoutMs: config.settleTimeoutMs,
        anchors: writtenOut === undefined ? [] : anchorsOf(writtenOut),
        ...(word === undefined ? {} : { giveUp: { word, writtenOutTo, seedAllAnew, replicas } }),
      });
      this.#notes = this.#notes.filter((note) => !note.startsWith('damage'));
      const needed = settled.unmended.filter(({ toLsn }) => toLsn > (writtenOut?.checkpoint.lsn ?? 0));
      if (needed.length === 0 || this.#closing) return settled;
      for (const damage of needed) this.#notes.push(damageNote(damage));
      this.#phase = `the disks need records that nobody has given back yet: ${needed.map(damageNote).join('; ')}`;
      await delay(this.#host.clock, ASK_AGAIN_MS);
    }
  }

  async #openShipper(group: ProtectedGroup, groupId: string, sinks: FrameSink[]): Promise<Shipper> {
    const { config } = this.#data;
    const { journal } = group;
    const { incarnation } = journal;
    if (incarnation === undefined) throw new TidemarkError('journal-poisoned', 'the journal has not begun');
    const { directory } = config.journal;
    const { fileBytes } = journal;
    const identity = {
      groupId,
      groupName: config.name,
      epoch: journal.epoch,
      incarnation,
      frameVersion: FRAME_VERSION,
    };
    return Shipper.open(this.#host, {
      directory,
      journal,
      marks: journal.marks,
      identity,
      sinks,
      delay: { ...SHIP_DELAY, ms: config.shipDelayMs },
      sealing: (sealer, local) =>
        new ThreadSealing({ directory, fileBytes, identity, sealer }, config.stream.direct !== null, local),
      givenUp: group.status().givenUp,
      replicas: config.replicas,
      requiredSinks: requiredSinks(config),
      onFar: () => group.degree.moved(),
      isAwaited: () => group.degree.gate.mode !== 'open',
      mending: mendingOf(group, (error) => this.#ended.reject(error)),
    });
  }

  #opened(): OpenSource {
    if (this.#open === undefined)
      throw new TidemarkError('precondition-failed', `the group is starting: ${this.#phase}`);
    return this.#open;
  }

  #note(text: string): void {
    this.#notes.push(text);
    this.#side.log('warn', 'recovery-note', text);
  }
}
