import { channel } from '../../journal/base/channels.ts';
import type { Lsn } from '../../journal/position.ts';
import type { StateName } from '../../journal/record-bodies.ts';
import type { ReplicaFeedback } from '../../journal/stream.ts';
import type { Acknowledged } from './acknowledged.ts';
import type { KnownChains } from './known-chains.ts';

/** A replica as the source's configuration names it. */
export interface RegisteredReplica {
  readonly name: string;
  /** The journal keeps what this replica does not hold. */
  readonly required: boolean;
}

export type ReplicaState = ReplicaFeedback['state'] | 'unknown';

/** What the source knows of one replica. */
export interface KnownReplica {
  readonly name: string;
  readonly required: boolean;
  state: ReplicaState;
  reason: string;
  /** Undefined until the replica was heard in this run. */
  durableLsn: Lsn | undefined;
  /** The chain the replica named for `durableLsn`. */
  chain: string;
  /** Up to here both chains were compared and are the same: only this counts for releasing the journal. */
  provenLsn: Lsn;
  /** What it said last, in this run or an earlier one; 0: nothing is known. */
  acknowledgedLsn: Lsn;
  /** It held this much before it lost data; 0: it never did, or has it again. */
  lostFromLsn: Lsn;
  heardMs: number;
  /** Lowest LSN it found damaged and asks for again; 0: none. */
  damagedFrom: Lsn;
  /** Which of its states that was, by its own clock; undefined: it does not say. */
  sent: StateName | undefined;
  /** What its standby image holds, as it says; undefined: it has none that is applied in step. */
  appliedLsn: Lsn | undefined;
}

/** Names kept of readers that nobody registered. */
const STRANGERS_MAX = 32;

const replicaChannel = channel('tidemark:ship:replica');
const wentBackChannel = channel('tidemark:ship:went-back');
const unregisteredChannel = channel('tidemark:ship:unregistered');

/** The replicas of one group (DESIGN rule 20): what each holds, by the state it sent last and by nothing else. */
export class ReplicaRegistry {
  readonly replicas: readonly KnownReplica[];
  readonly strangers: Set<string> = new Set();
  readonly #group: string;
  readonly #chains: KnownChains;

  /** `before`: what replicas had acknowledged when the source ran last. */
  constructor(
    group: string,
    registered: readonly RegisteredReplica[],
    before: readonly Acknowledged[],
    chains: KnownChains,
  ) {
    this.#group = group;
    this.#chains = chains;
    this.replicas = registered.map(({ name, required }) => {
      const known = before.find((one) => one.name === name);
      return {
        name,
        required,
        state: 'unknown',
        reason: 'not heard since the start',
        durableLsn: undefined,
        chain: '',
        provenLsn: 0,
        acknowledgedLsn: known?.acknowledgedLsn ?? 0,
        lostFromLsn: known?.lostFromLsn ?? 0,
        heardMs: 0,
        damagedFrom: 0,
        sent: undefined,
        appliedLsn: undefined,
      };
    });
  }

  /** For the next start. */
  get acknowledged(): readonly Acknowledged[] {
    return this.replicas.map(({ name, acknowledgedLsn, lostFromLsn }) => ({ name, acknowledgedLsn, lostFromLsn }));
  }

  /** Takes a state whose group and epoch were checked. */
  hear(feedback: ReplicaFeedback, nowMs: number): KnownReplica | undefined {
    const replica = this.replicas.find(({ name }) => name === feedback.replica);
    if (replica === undefined) {
      this.#hearStranger(feedback.replica);
      return undefined;
    }
    const before = replica.acknowledgedLsn;
    if (feedback.durableLsn < before) {
      replica.lostFromLsn = Math.max(replica.lostFromLsn, before);
      replica.provenLsn = Math.min(replica.provenLsn, feedback.durableLsn);
      const { name } = replica;
      wentBackChannel.publish({ group: this.#group, replica: name, fromLsn: before, toLsn: feedback.durableLsn });
    } else if (feedback.durableLsn >= replica.lostFromLsn) {
      replica.lostFromLsn = 0;
    }
    const announce = replica.state !== feedback.state || replica.reason !== feedback.reason;
    replica.state = feedback.state;
    replica.reason = feedback.reason;
    replica.durableLsn = feedback.durableLsn;
    replica.acknowledgedLsn = feedback.durableLsn;
    replica.chain = feedback.chain;
    replica.heardMs = nowMs;
    replica.damagedFrom = feedback.damagedFrom ?? 0;
    replica.sent = feedback.sent;
    replica.appliedLsn = feedback.appliedLsn;
    if (announce) {
      const { name, state, reason } = replica;
      replicaChannel.publish({ group: this.#group, replica: name, state, reason, durableLsn: feedback.durableLsn });
    }
    return replica;
  }

  /** Compares the replica's chain where ours is known; false: one position has two contents. */
  prove(replica: KnownReplica): boolean {
    if (replica.durableLsn === undefined || replica.durableLsn <= replica.provenLsn) return true;
    const ours = this.#chains.at(replica.durableLsn);
    if (ours === undefined) return true;
    if (ours !== replica.chain) return false;
    replica.provenLsn = replica.durableLsn;
    return true;
  }

  /** What every required replica holds for certain. */
  get replicatedLsn(): Lsn {
    return this.#least(this.replicas.filter(({ required }) => required));
  }

  /** What stands in the standby image of every required replica. */
  get appliedLsn(): Lsn {
    return this.replicas.reduce(
      (least, { required, appliedLsn, provenLsn }) => (required ? Math.min(least, appliedLsn ?? 0, provenLsn) : least),
      Number.MAX_SAFE_INTEGER,
    );
  }

  /** What every registered replica holds for certain. */
  get everywhereLsn(): Lsn {
    return this.#least(this.replicas);
  }

  /**
   * As far as `lsn` nothing is needed any more, but for what is asked for again and is at or above `oldestLsn`: by one of
   * the required replicas, for no other keeps room in the journal, or by `whose`.
   */
  keptFor(
    lsn: Lsn,
    oldestLsn: Lsn,
    whose: readonly KnownReplica[] = this.replicas.filter(({ required }) => required),
  ): Lsn {
    return whose.reduce(
      (least, { damagedFrom }) =>
        damagedFrom >= oldestLsn && damagedFrom > 0 ? Math.min(least, damagedFrom - 1) : least,
      lsn,
    );
  }

  #least(replicas: readonly KnownReplica[]): Lsn {
    return replicas.reduce((least, { provenLsn }) => Math.min(least, provenLsn), Number.MAX_SAFE_INTEGER);
  }

  #hearStranger(name: string): void {
    if (this.strangers.has(name) || this.strangers.size >= STRANGERS_MAX) return;
    this.strangers.add(name);
    unregisteredChannel.publish({ group: this.#group, replica: name });
  }
}
