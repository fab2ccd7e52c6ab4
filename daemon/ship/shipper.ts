import { assert } from '../../journal/base/assert.ts';
import { channel } from '../../journal/base/channels.ts';
import type { Chain } from '../../journal/chain.ts';
import type { Host } from '../../journal/host/host.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import type { ReplicaFeedback, StreamStatus } from '../../journal/stream.ts';
import type { FarSide } from '../synchrony/far-side.ts';
import { type Acknowledged, AcknowledgedFile, readAcknowledged } from './acknowledged.ts';
import { type ChainCheckpoint, ChainCheckpoints } from './chain-checkpoints.ts';
import { HeartbeatTimes } from './heartbeat-times.ts';
import { type JournalDamage, JournalMender } from './journal-mender.ts';
import { KnownChains } from './known-chains.ts';
import { Lane } from './lane.ts';
import { laneMaker } from './lane-options.ts';
import { Release } from './release.ts';
import { type KnownReplica, ReplicaRegistry } from './replica-registry.ts';
import { RpoWindows } from './rpo-windows.ts';
import { isUnreadable, loadShipState } from './ship-state.ts';
import {
  type ShipLag,
  type ShipReplicaStatus,
  type ShipState,
  type ShipStatus,
  worseLag,
  worstStream,
} from './ship-status.ts';
import type { ShipperOptions } from './shipper-options.ts';
import { Standstill } from './standstill.ts';

/** How long the far side may take for each frame of what is put back. */
const FETCH_TIMEOUT_MS = 10_000;

const LAG_UNKNOWN: ShipLag = { records: null, bytes: null, seconds: null };

const stateChannel = channel('tidemark:ship:state');

/**
 * Everything behind the journal's durable mark goes into the streams, and what the replicas say they hold comes back as
 * marks: `accepted`, `replicated`, `shipped`. Each sink has a lane of its own, so that one that is behind or gone holds
 * up no other. All of it lives on one thread.
 *
 * A replica's word counts once its chain value was compared with ours: before that nothing is released for it.
 */
export class Shipper {
  readonly #host: Host;
  readonly #options: ShipperOptions;
  readonly #checkpoints: ChainCheckpoints;
  readonly #chains = new KnownChains();
  readonly #heartbeats = new HeartbeatTimes();
  readonly #rpo = new RpoWindows();
  readonly #standstills = new Map<string, Standstill>();
  readonly #registry: ReplicaRegistry;
  readonly #release: Release;
  readonly #acknowledged: AcknowledgedFile;
  readonly #mender: JournalMender;
  readonly #lanes: readonly Lane[];
  readonly #stopListening: () => void;
  #pumpedTo: JournalAddress = 0;
  #announced = '';
  #closing: Promise<void> | undefined;

  private constructor(
    host: Host,
    options: ShipperOptions,
    checkpoints: ChainCheckpoints,
    acknowledged: readonly Acknowledged[],
  ) {
    const { identity, marks, journal } = options;
    assert(
      options.replicas.some(({ required }) => required),
      'at least one replica is required',
    );
    this.#host = host;
    this.#options = options;
    this.#checkpoints = checkpoints;
    this.#registry = new ReplicaRegistry(identity.groupName, options.replicas, acknowledged, this.#chains);
    const place = { directory: options.directory, groupId: identity.groupId };
    this.#acknowledged = new AcknowledgedFile(host, place, identity.groupName, () => this.#registry.acknowledged);
    const group = { id: identity.groupId, name: identity.groupName };
    this.#release = new Release(host, options.directory, group, journal, marks, checkpoints);
    const { mending = {}, sinks } = options;
    this.#mender = new JournalMender(host, {
      journal,
      groupId: identity.groupId,
      groupName: identity.groupName,
      sinks,
      checkpoints,
      timeoutMs: FETCH_TIMEOUT_MS,
      anchors: mending.anchors ?? (() => []),
      onDamaged: (stretch) => mending.onDamaged?.(stretch),
      onMended: (stretch) => mending.onMended?.(stretch),
      onReadable: () => {
        for (const lane of this.#lanes) lane.resume();
      },
    });
    const laneOptions = laneMaker(host, options, checkpoints);
    this.#lanes = options.sinks.map((sink) => {
      const lane: Lane = new Lane(sink, laneOptions(), {
        onAccepted: () => this.#onAccepted(),
        onFeedback: (feedback) => this.#onFeedback(lane, feedback),
        onChain: (lsn, chain) => this.#onChain(lane, lsn, chain),
        onHeartbeat: (lsn, monotonicMs) => this.#heartbeats.note(lsn, monotonicMs),
        onDamage: (address) => this.#mender.mendAt(address),
        onState: () => this.#announce(),
      });
      return lane;
    });
    this.#stopListening = marks.onMove(() => {
      // Other marks move with every batch: only the durable one brings work.
      if (marks.address('durable') === this.#pumpedTo) return;
      this.#pumpedTo = marks.address('durable');
      for (const lane of this.#lanes) lane.pump();
    });
    for (const lane of this.#lanes) lane.open();
  }

  /** Opens the sinks. Rejects with `journal-foreign`, `format-too-new`; a damaged ship.state counts as missing. */
  static async open(host: Host, options: ShipperOptions): Promise<Shipper> {
    const { directory, identity } = options;
    const stored = await loadShipState(host.disk, directory, identity.groupId).catch((error: unknown) => {
      if (!isUnreadable(error)) throw error;
      return [];
    });
    const acknowledged = readAcknowledged(host, { directory, groupId: identity.groupId });
    const checkpoints = new ChainCheckpoints(stored, options.journal.fileBytes);
    const { givenUp } = options;
    if (givenUp?.end !== undefined) checkpoints.keep({ ...givenUp.end, address: givenUp.address });
    return new Shipper(host, options, checkpoints, acknowledged);
  }

  /** To be taken at least once a second: the figures over time are made of what is seen here. */
  status(): ShipStatus {
    const { marks } = this.#options;
    const nowMs = this.#host.clock.monotonicMs();
    const replicas = this.#registry.replicas.map((replica) => this.#replicaStatus(replica, nowMs));
    const required = replicas.filter((replica) => replica.required).map(({ lag }) => lag);
    const backlog = required.reduce(worseLag);
    this.#rpo.note(nowMs, backlog.seconds);
    return {
      ...this.#state(),
      acceptedLsn: marks.lsn('accepted'),
      replicatedLsn: this.#registry.replicatedLsn,
      shippedAddress: marks.address('shipped'),
      backlog,
      rpo: this.#rpo.figures,
      replicas,
      topic: this.#lanes.map((lane) => lane.stream.topic).find((topic) => topic !== undefined) ?? null,
      unregistered: [...this.#registry.strangers],
    };
  }

  /** What of the journal cannot be read now, as far as somebody has tried. */
  get damage(): readonly JournalDamage[] {
    return this.#mender.damage;
  }

  /** Somebody could not read the journal at this address: it is put back from the far side. */
  mendAt(address: JournalAddress): void {
    this.#mender.mendAt(address);
  }

  /** Asks everybody now for what is damaged; resolves with what nobody gave back. */
  askAgain(): Promise<readonly JournalDamage[]> {
    return this.#mender.askAgain();
  }

  /** For who waits for the far side. Unlike the marks its figures may go back. */
  get far(): FarSide {
    const registry = this.#registry;
    return {
      reachedLsn: (ack) => {
        if (ack === 'applied') return registry.appliedLsn;
        return ack === 'stream' ? this.#acceptedLsn : registry.replicatedLsn;
      },
      get withoutImage() {
        const one = registry.replicas.find(({ required, durableLsn, appliedLsn }) => {
          return required && durableLsn !== undefined && appliedLsn === undefined;
        });
        return one?.name;
      },
      get lost() {
        return registry.replicas.some(({ required, lostFromLsn }) => required && lostFromLsn > 0);
      },
      get heard() {
        return registry.replicas.flatMap(({ required, name, sent, heardMs }) =>
          required && sent !== undefined ? [{ replica: name, sent, takenMs: heardMs }] : [],
        );
      },
    };
  }

  /** Of each sink, in their order. */
  get streams(): readonly StreamStatus[] {
    return this.#lanes.map((lane) => lane.stream);
  }

  /** The journal below this end of a file is about to be given up; see `Release`. */
  keepChainAt(end: JournalAddress): Promise<ChainCheckpoint | undefined> {
    return this.#release.keepChainAt(end);
  }

  /** Stops shipping; what the replicas are known to hold is written down. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#stopListening();
    await Promise.all([...this.#lanes.map((lane) => lane.close()), this.#mender.close()]);
    await this.#release.close();
    await this.#acknowledged.close();
  }

  #onAccepted(): void {
    const { marks } = this.#options;
    const accepted = Math.min(...this.#lanes.map((lane) => lane.acceptedLsn));
    if (accepted > marks.lsn('accepted')) marks.advanceLsn('accepted', accepted);
    this.#options.onFar?.();
  }

  get #acceptedLsn(): Lsn {
    const { requiredSinks } = this.#options;
    const lanes = this.#lanes.filter((_, index) => requiredSinks?.[index] ?? true);
    return Math.min(...lanes.map((lane) => lane.acceptedLsn));
  }

  #onFeedback(lane: Lane, feedback: ReplicaFeedback): void {
    const { groupId, epoch, incarnation } = this.#options.identity;
    if (feedback.groupId !== groupId) {
      lane.stop({
        code: 'frame-foreign',
        reason: `a state of group ${feedback.groupId} came from ${feedback.replica}`,
      });
      return;
    }
    const registered = this.#registry.replicas.some(({ name }) => name === feedback.replica);
    if (registered && feedback.epoch > epoch) {
      lane.stop({
        code: 'stale-epoch',
        reason: `replica ${feedback.replica} follows epoch ${feedback.epoch}, this source is of ${epoch}`,
      });
      return;
    }
    if (registered && feedback.epoch === epoch && feedback.incarnation > incarnation.counter) {
      const reason = `replica ${feedback.replica} follows incarnation ${feedback.incarnation}, this source is ${incarnation.counter}`;
      lane.stop({ code: 'stale-incarnation', reason });
      return;
    }
    const durableLsn = this.#options.marks.lsn('durable');
    if (registered && feedback.durableLsn > durableLsn) {
      const reason = `replica ${feedback.replica} holds records up to ${feedback.durableLsn}, this journal only up to ${durableLsn}`;
      lane.stop({ code: 'needs-resync', reason });
      return;
    }
    const replica = this.#registry.hear(feedback, this.#host.clock.monotonicMs());
    this.#acknowledged.note();
    if (replica !== undefined && this.#proveOrStop(lane, replica)) this.#advance();
    this.#options.onFar?.();
    this.#announce();
  }

  #onChain(lane: Lane, lsn: Lsn, chain: Chain): void {
    this.#chains.note(lsn, chain);
    for (const replica of this.#registry.replicas) {
      if (replica.durableLsn === lsn && this.#proveOrStop(lane, replica)) this.#advance();
    }
    this.#options.onFar?.();
  }

  #proveOrStop(lane: Lane, replica: KnownReplica): boolean {
    if (this.#registry.prove(replica)) return true;
    const reason = `record ${replica.durableLsn} and what lies below are not the same here and at ${replica.name}`;
    lane.stop({ code: 'divergence', reason });
    return false;
  }

  #advance(): void {
    const { marks } = this.#options;
    const replicated = this.#registry.replicatedLsn;
    if (replicated > marks.lsn('replicated')) marks.advanceLsn('replicated', replicated);
    // A mark cannot go back, but a replica that lost data can: it is asked for again, so it is not released (rule 20).
    // what a replica asks for again is kept as long as it is there
    const { oldestLsn } = this.#options.journal;
    this.#release.upTo(this.#registry.keptFor(replicated, oldestLsn));
    const everywhere = this.#registry.keptFor(this.#registry.everywhereLsn, 1, this.#registry.replicas);
    if (everywhere > 0) for (const lane of this.#lanes) lane.sink.trim(everywhere);
    this.#heartbeats.dropBelow(everywhere);
  }

  #replicaStatus(replica: KnownReplica, nowMs: number): ShipReplicaStatus {
    const { name, required, durableLsn, provenLsn, lostFromLsn, heardMs } = replica;
    const unserved = this.#unserved(replica);
    const { state, reason } = unserved === undefined ? replica : { state: 'needs-resync' as const, reason: unserved };
    return {
      name,
      required,
      state,
      reason,
      durableLsn: durableLsn ?? null,
      provenLsn,
      lostFromLsn: lostFromLsn === 0 ? null : lostFromLsn,
      lag: durableLsn === undefined ? LAG_UNKNOWN : this.#lag(durableLsn, nowMs),
      heardSecondsAgo: durableLsn === undefined ? null : (nowMs - heardMs) / 1000,
      stoodStillSeconds: this.#standstill(name).look(nowMs, durableLsn, this.#options.marks.lsn('durable')),
    };
  }

  #standstill(replica: string): Standstill {
    const known = this.#standstills.get(replica) ?? new Standstill();
    this.#standstills.set(replica, known);
    return known;
  }

  #lag(durableLsn: Lsn, nowMs: number): ShipLag {
    const { marks } = this.#options;
    const records = Math.max(0, marks.lsn('written') - durableLsn);
    if (records === 0) return { records: 0, bytes: 0, seconds: 0 };
    const checkpoint = this.#checkpoints.before(durableLsn);
    return {
      records,
      bytes: checkpoint === undefined ? null : Math.max(0, marks.address('written') - checkpoint.address),
      seconds: this.#heartbeats.ageSeconds(durableLsn, nowMs),
    };
  }

  #state(): { state: ShipState; reason: string; code: string | null } {
    for (const { halt, stream } of this.#lanes) {
      if (halt === undefined) continue;
      // It may have asked for another place since, and stopped before it got there: that is to be mended first.
      if (halt.code === 'needs-resync' && stream.state === 'stopped') {
        return { state: 'stopped', reason: `${stream.reason}; before that: ${halt.reason}`, code: stream.code ?? null };
      }
      const state = halt.code === 'needs-resync' ? 'needs-resync' : halt.code === 'divergence' ? 'diverged' : 'stopped';
      return { state, reason: halt.reason, code: halt.code };
    }
    for (const { name, acknowledgedLsn, lostFromLsn, state, reason } of this.#registry.replicas) {
      if (lostFromLsn > 0) {
        const lost = `replica ${name} lost what it had acknowledged up to ${lostFromLsn} and is sent it again from ${acknowledgedLsn + 1}`;
        return { state: 'needs-resync', reason: lost, code: 'needs-resync' };
      }
      if (state === 'needs-resync') return { state, reason: `replica ${name}: ${reason}`, code: 'needs-resync' };
      if (state === 'diverged') return { state, reason: `replica ${name}: ${reason}`, code: 'divergence' };
    }
    const worst = worstStream(this.#lanes.map((lane) => lane.stream));
    for (const replica of worst.code === null ? this.#registry.replicas : []) {
      const unserved = this.#unserved(replica);
      const code = 'needs-resync';
      if (unserved !== undefined) return { state: code, reason: `replica ${replica.name}: ${unserved}`, code };
    }
    return worst;
  }

  /** Why this one replica of a stream gets nothing, until it holds what it lacked. */
  #unserved({ name, durableLsn = 0 }: KnownReplica): string | undefined {
    const lacks = this.#lanes.flatMap(({ unserved }) => unserved).find(({ replica }) => replica === name);
    if (lacks === undefined || durableLsn >= lacks.fromLsn) return undefined;
    const { oldestLsn } = this.#options.journal;
    return `it lacks record ${lacks.fromLsn}, the oldest in this journal is ${oldestLsn}: seed it anew, or unregister it`;
  }

  #announce(): void {
    const { state, reason, code } = this.#state();
    if (`${state} ${reason}` === this.#announced) return;
    this.#announced = `${state} ${reason}`;
    stateChannel.publish({ group: this.#options.identity.groupName, state, reason, code: code ?? '' });
  }
}
