import { channel } from '../../journal/base/channels.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host, Timer } from '../../journal/host/host.ts';
import type { Journal } from '../../journal/journal.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { encodeDegreeChange, type LeaseBody } from '../../journal/record-bodies.ts';
import type { StatePlace } from '../volume/state-file.ts';
import type { AckGate } from './ack-gate.ts';
import { type DegreeRecord, readDegree, writeDegree } from './degree-file.ts';
import {
  changed,
  type DegreeChange,
  type DegreeStanding,
  type DegreeState,
  look,
  standingAt,
} from './degree-machine.ts';
import {
  type BrokenStretch,
  type DegreePolicy,
  type DegreeTimes,
  policyText,
  samePolicy,
  samePromise,
} from './degree-policy.ts';
import type { DegreeStatus } from './degree-status.ts';
import { type FarSide, imageReason, NOBODY } from './far-side.ts';

interface KeeperParts {
  readonly host: Host;
  readonly journal: Journal;
  readonly place: StatePlace;
  readonly group: string;
  readonly gate: AckGate;
  readonly configured: DegreePolicy;
  readonly times: DegreeTimes;
}

const STRETCHES_MAX = 16;
const NO_RULE = { writes: false, unshippedBytesMax: 0 };

const degreeChannel = channel('tidemark:group:degree');
const failedChannel = channel('tidemark:group:degree-failed');

/**
 * Keeps a group's degree of synchrony: looks at the far side, brings about what `look` decides, opens and closes the gate.
 * The order makes it safe against a kill anywhere. Before answers go without the far side: the file, then a durable
 * record. Before a replica may rely on answers that wait: the file, then the gate, and the record in the same turn.
 */
export class DegreeKeeper {
  readonly gate: AckGate;
  readonly #parts: KeeperParts;
  /** As it stands in the file. */
  #record: DegreeRecord;
  /** False: the last write of the file failed, and nobody knows what a start would find there. */
  #isFiled = true;
  /** What answers go by: changed in the turn in which the gate is. */
  #policy: DegreePolicy;
  #standing: DegreeStanding;
  #sinceLsn: Lsn = 0;
  /** What was written before this record is at the far side when the record is: answers have waited since. */
  #promisedLsn: Lsn = 0;
  #reason: string;
  #leasedUntilMs: number;
  #far: FarSide = NOBODY;
  #earlier: { readonly ms: number; readonly lsn: Lsn }[] = [];
  #changing: Promise<void> | undefined;
  #timer: Timer | undefined;
  #stopped = false;

  private constructor(parts: KeeperParts, record: DegreeRecord, reason: string) {
    const nowMs = parts.host.clock.monotonicMs();
    this.gate = parts.gate;
    this.#parts = parts;
    this.#record = record;
    this.#policy = record.policy;
    this.#reason = reason;
    this.#standing = standingAt(record.state, record.brokenFromLsn, nowMs, parts.times.resumeMs);
    this.#leasedUntilMs = record.state === 'in-sync' ? nowMs + record.leaseMs : Number.NEGATIVE_INFINITY;
  }

  /**
   * For a journal that has begun; nobody is answered before it resolves. Rejects with `journal-foreign`,
   * `format-too-new`, and what appending and writing reject with.
   */
  static async open(parts: KeeperParts): Promise<DegreeKeeper> {
    const { host, place, journal, configured } = parts;
    const found = readDegree(host, place);
    const before = found === undefined ? firstRecord(configured) : recordBefore(found, configured);
    const isNew = found === undefined;
    const reason = isNew ? 'the far side has not caught up yet' : 'start of the source';
    const keeper = new DegreeKeeper(parts, before, reason);
    parts.gate.begin(journal.lastLsn);
    // a start says again what is so: the run before may have ended between the file and the record
    if (before.state !== 'off' || !isNew) {
      await keeper.#save({});
      keeper.#sinceLsn = keeper.#append(isNew ? 'off' : before.state, before, reason);
      keeper.#promisedLsn = keeper.#sinceLsn;
      await journal.sync();
    }
    keeper.#setGate();
    keeper.#look();
    return keeper;
  }

  /** The shipper is there. */
  attach(far: FarSide): void {
    this.#far = far;
    this.moved();
  }

  /** The far side has come further, or has lost something. */
  moved(): void {
    const { ack } = this.#policy;
    if (ack !== 'local') this.gate.advance(this.#far.reachedLsn(ack));
  }

  /** For the heartbeat that is journalled now; from here on the replicas may rely on it. */
  lease(): LeaseBody | undefined {
    const { state } = this.#record;
    const policy = this.#policy;
    const nowMs = this.#nowMs;
    const relied = policy.ack === 'replica' || policy.ack === 'applied';
    const isSettled = this.#isFiled && this.#changing === undefined;
    const holds = isSettled && state === 'in-sync' && this.#standing.state === 'in-sync';
    // a far side that stands still is not told that it is waited for: it could not be let go of any more
    const moves = nowMs - this.#standing.movedMs <= policy.stallAfterMs / 4;
    if (!relied || !holds || !moves || this.#next !== undefined || this.#stopped) return undefined;
    const { heard } = this.#far;
    if (heard.length === 0) return undefined;
    for (const { takenMs } of heard) {
      this.#leasedUntilMs = Math.max(this.#leasedUntilMs, takenMs + policy.stallAfterMs);
    }
    const states = Object.fromEntries(heard.map(({ replica, sent }) => [replica, sent]));
    return { ack: policy.ack, ackAt: policy.ackAt, leaseMs: policy.stallAfterMs, heard: states };
  }

  /** What would be done, in words; done when it is no dry run. The new policy is durable when it resolves. */
  async change(wanted: DegreePolicy, dryRun: boolean): Promise<readonly string[]> {
    const steps = this.#stepsTo(wanted);
    if (dryRun || samePolicy(this.#next ?? this.#policy, wanted)) return steps;
    await this.#inTurn(() => this.#save({ next: wanted }));
    this.#look();
    return steps;
  }

  get status(): DegreeStatus {
    const { configured, stretches } = this.#record;
    const policy = this.#policy;
    const { state, brokenFromLsn, positionLsn } = this.#standing;
    const waits = state !== 'off' && state !== 'degraded';
    return {
      policy,
      configured,
      next: this.#next,
      state,
      reason: this.#reasonNow,
      sinceLsn: this.#sinceLsn,
      holds: policy.ack === 'local' ? null : waits && brokenFromLsn === 0 && positionLsn >= this.#promisedLsn,
      brokenFromLsn,
      stretches,
      waiting: this.gate.waiting,
      heldBack: this.gate.heldBack,
      unshippedBytes: waits ? this.gate.unshippedBytes : null,
      unshippedBytesBound: waits ? this.gate.boundBytes : null,
    };
  }

  /** Nothing is decided any more; who waits goes on waiting. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#changing;
  }

  get #reasonNow(): string {
    if (this.#policy.ack !== 'applied') return this.#reason;
    return imageReason(this.#far, this.#standing.state, this.#reason);
  }

  /** What is to be in force; also when it was written down and did not come about. */
  get #next(): DegreePolicy | undefined {
    const { next, policy } = this.#record;
    return next ?? (samePolicy(policy, this.#policy) ? undefined : policy);
  }

  get #nowMs(): number {
    return this.#parts.host.clock.monotonicMs();
  }

  #look(): void {
    this.#timer?.cancel();
    if (this.#stopped) return;
    const { journal } = this.#parts;
    if (journal.poisonedBy !== undefined) {
      this.gate.fail('device-failed');
    } else {
      this.moved();
      const next = this.#next;
      const policy = this.#policy;
      const { standing, change } = look(this.#standing, policy, this.#sight());
      this.#standing = standing;
      if (this.#changing === undefined && next !== undefined && this.#mayFollow(policy, next)) {
        this.#begin(() => this.#follow(next));
      } else if (this.#changing === undefined && change !== undefined) {
        this.#begin(() => this.#bring(change));
      } else if (this.#changing === undefined && (this.#record.state !== standing.state || !this.#isFiled)) {
        // a change was written down, or may have been, and then did not come about
        const { state, brokenFromLsn } = standing;
        this.#begin(() => this.#save({ state, brokenFromLsn }));
      }
    }
    if (this.#policy.ack === 'local' && this.#next === undefined && this.#changing === undefined) return;
    this.#timer = this.#parts.host.clock.after(this.#parts.times.lookMs, () => this.#look());
  }

  #sight(): Parameters<typeof look>[2] {
    const { ack } = this.#policy;
    const nowMs = this.#nowMs;
    const durableLsn = this.#parts.journal.marks.lsn('durable');
    this.#earlier.push({ ms: nowMs, lsn: durableLsn });
    const known = this.#earlier.findLastIndex(({ ms }) => ms <= nowMs - this.#parts.times.levelMs);
    if (known > 0) this.#earlier.splice(0, known);
    return {
      nowMs,
      positionLsn: ack === 'local' ? 0 : this.#far.reachedLsn(ack),
      ...(ack === 'applied' && { heldLsn: this.#far.reachedLsn('replica') }),
      durableLsn,
      // before anything is known to be old enough everything counts
      earlierLsn: known < 0 ? durableLsn : (this.#earlier[0]?.lsn ?? durableLsn),
      answeredLsn: this.gate.answeredLsn,
      // what the stream has taken it has, whatever becomes of it at a replica
      lost: ack !== 'stream' && this.#far.lost,
      leasedUntilMs: this.#leasedUntilMs,
    };
  }

  /** One at a time; what fails is tried again at the next look. */
  #begin(run: () => Promise<void>): void {
    void this.#inTurn(run).catch((error: unknown) => {
      if (!(error instanceof TidemarkError)) throw error;
      failedChannel.publish({ group: this.#parts.group, message: error.message });
    });
  }

  async #inTurn(run: () => Promise<void>): Promise<void> {
    while (this.#changing !== undefined) await this.#changing;
    const running = run();
    this.#changing = running
      .catch(() => undefined)
      .finally(() => {
        this.#changing = undefined;
      });
    await running;
  }

  async #bring(change: DegreeChange): Promise<void> {
    const from = this.#standing.state;
    await this.#save({ state: change.to, brokenFromLsn: change.brokenFromLsn });
    const isResumed = change.to === 'in-sync';
    const lsn = this.#append(from, { state: change.to, brokenFromLsn: change.brokenFromLsn }, change.reason);
    // answers wait from the very record on that says so
    if (isResumed) this.#enter(change, lsn);
    await this.#parts.journal.sync();
    if (!isResumed) this.#enter(change, lsn);
    if (isResumed) await this.#save({});
  }

  #enter(change: DegreeChange, lsn: Lsn): void {
    const { state, brokenFromLsn } = this.#standing;
    this.#standing = changed(this.#standing, change, this.#nowMs);
    this.#tell(state, change, lsn, brokenFromLsn);
    this.#setGate();
  }

  #tell(from: DegreeState, { to, brokenFromLsn, reason }: DegreeChange, lsn: Lsn, wasBrokenFromLsn: Lsn): void {
    const { group } = this.#parts;
    if (wasBrokenFromLsn > 0 && brokenFromLsn === 0 && lsn > wasBrokenFromLsn) {
      const over: BrokenStretch = { fromLsn: wasBrokenFromLsn, toLsn: lsn - 1, reason: this.#reason };
      this.#record = { ...this.#record, stretches: [...this.#record.stretches, over].slice(-STRETCHES_MAX) };
    }
    this.#sinceLsn = lsn;
    if (to === 'in-sync' && (from === 'degraded' || from === 'failing')) this.#promisedLsn = lsn;
    this.#reason = reason;
    degreeChannel.publish({ group, from, to, reason, lsn, brokenFromLsn, wasBrokenFromLsn });
  }

  /** No replica may rely on what the next policy does not promise. */
  #mayFollow(policy: DegreePolicy, next: DegreePolicy): boolean {
    return samePromise(policy, next) || this.#nowMs >= this.#leasedUntilMs;
  }

  async #follow(next: DegreePolicy): Promise<void> {
    const { state, brokenFromLsn } = this.#standing;
    if (samePromise(this.#policy, next)) {
      await this.#save({ policy: next, next: undefined });
      this.#policy = next;
      this.#setGate();
      return;
    }
    const to = next.ack === 'local' ? 'off' : 'degraded';
    const reason = `the policy is now: ${policyText(next)}`;
    // nobody has waited for this degree so far
    const broken = next.ack === 'local' ? 0 : this.#far.reachedLsn(next.ack) + 1;
    await this.#save({ policy: next, next: undefined, state: to, brokenFromLsn: broken });
    const lsn = this.#append(state, { state: to, brokenFromLsn: broken }, reason, next);
    await this.#parts.journal.sync();
    this.#policy = next;
    this.#leasedUntilMs = Number.NEGATIVE_INFINITY;
    this.#standing = standingAt(to, broken, this.#nowMs, this.#parts.times.resumeMs);
    this.#tell(state, { to, brokenFromLsn: broken, reason }, lsn, brokenFromLsn);
    this.#setGate();
    if (to === 'off') await this.#save({});
  }

  #stepsTo(wanted: DegreePolicy): readonly string[] {
    const next = this.#next;
    const policy = this.#policy;
    if (samePolicy(next ?? policy, wanted)) return [`nothing changes: ${policyText(wanted)}`];
    const now = `now: ${policyText(policy)}${next === undefined ? '' : `, soon: ${policyText(next)}`}`;
    if (samePromise(policy, wanted)) return [now, `at once: ${policyText(wanted)}`];
    const relied = this.#leasedUntilMs > this.#nowMs;
    const when = relied ? 'when no replica relies on the old promise any more' : 'at once';
    const first = `${when}: ${policyText(wanted)}`;
    if (wanted.ack === 'local') return [now, first, 'guests are answered when their writes are safe here'];
    const waits = wanted.ackAt === 'write' ? 'every answer to a write waits' : 'answers to FLUSH and FUA wait';
    return [now, first, `once the far side has kept up for a while ${waits} for it`];
  }

  #setGate(): void {
    const { ackAt, unshippedBytesMax } = this.#policy;
    const { state } = this.#standing;
    const rule = { writes: ackAt === 'write', unshippedBytesMax: ackAt === 'flush' ? unshippedBytesMax : 0 };
    if (state === 'off' || state === 'degraded') this.gate.set('open', NO_RULE);
    else if (state === 'failing') this.gate.set('refuse', { ...rule, unshippedBytesMax: 0 });
    else this.gate.set('hold', rule);
    this.moved();
  }

  #append(
    from: string,
    to: Pick<DegreeRecord, 'state' | 'brokenFromLsn'>,
    reason: string,
    { ack, ackAt }: DegreePolicy = this.#policy,
  ): Lsn {
    const body = { from, to: to.state, reason, ack, ackAt, brokenFromLsn: to.brokenFromLsn };
    return this.#parts.journal.append(RecordKind.degreeChange, { body: encodeDegreeChange(body) }).firstLsn;
  }

  async #save(edit: Partial<DegreeRecord>): Promise<void> {
    const leaseMs = Math.ceil(Math.max(0, this.#leasedUntilMs - this.#nowMs));
    const record = { ...this.#record, ...edit };
    const kept = { ...record, leaseMs: Math.max(leaseMs, record.policy.stallAfterMs) };
    this.#isFiled = false;
    await writeDegree(this.#parts.host, this.#parts.place, kept);
    this.#isFiled = true;
    this.#record = { ...kept, stretches: this.#record.stretches };
  }
}

/** A group that promised nothing so far. */
function firstRecord(configured: DegreePolicy): DegreeRecord {
  const promises = configured.ack !== 'local';
  return {
    policy: configured,
    configured,
    next: undefined,
    state: promises ? 'degraded' : 'off',
    brokenFromLsn: promises ? 1 : 0,
    leaseMs: configured.stallAfterMs,
    stretches: [],
  };
}

/** What the run before left; nobody is answered on easier terms than it had promised. */
function recordBefore(found: DegreeRecord | TidemarkError, configured: DegreePolicy): DegreeRecord {
  if (found instanceof TidemarkError) {
    // Whatever it said: everybody waits until no replica can rely on it any more.
    const strict: DegreePolicy = { ...configured, ack: 'replica', ackAt: 'write', onStall: 'degrade' };
    const leaseMs = Math.max(LEASE_UNKNOWN_MS, configured.stallAfterMs);
    const unknown = { state: 'in-sync' as const, brokenFromLsn: 0, leaseMs, stretches: [] };
    return { policy: strict, configured, next: configured, ...unknown };
  }
  const state = found.state === 'blocked' || found.state === 'failing' ? 'in-sync' : found.state;
  if (samePolicy(found.configured, configured)) return { ...found, state };
  return { ...found, state, configured, next: configured };
}

/** The longest lease a configuration can give. */
const LEASE_UNKNOWN_MS = 60_000;
