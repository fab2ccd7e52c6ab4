import { type FrameView } from '../../../journal/frame-view.ts';
import { type Lsn } from '../../../journal/position.ts';
import { type GoingOn, type ReplicaFeedback } from '../../../journal/stream.ts';
import { neededBy, type Seek, type SeekInput } from './seek-decision.ts';

type States = readonly (ReplicaFeedback | undefined)[];

/**
 * Who of those that read one topic can be served when the journal does not have everything that was asked for. One that
 * lacks what the journal has no more is left out, so that the others are served.
 */
export class ServedReplicas {
  readonly #names: readonly string[];
  #input: SeekInput | undefined;
  #tail: FrameView | undefined;
  /** Nobody can be served by a journal that begins here; undefined: somebody is. */
  #beginsAt: Lsn | undefined;

  constructor(names: readonly string[]) {
    this.#names = names;
  }

  /** What goes before the frame behind the topic's tail; undefined: the tail is not believed. */
  get tail(): FrameView | undefined {
    return this.#tail;
  }

  /** What the newest seek was decided on. `states` below are in the order of the names. */
  sought(input: SeekInput, tail: FrameView | undefined): void {
    const isForked = input.requested?.isForked === true;
    this.#input = isForked ? { ...input, tailLsn: 0 } : input;
    this.#tail = isForked ? undefined : tail;
    this.#beginsAt = undefined;
  }

  /** As `FrameSink.goOn`. */
  goOn(lowestLsn: Lsn, states: States): GoingOn | undefined {
    const going = this.#going(lowestLsn, states);
    this.#beginsAt = going === undefined ? lowestLsn : undefined;
    return going;
  }

  /** When nobody could be served, and somebody says now that he can. */
  comesBack(states: States): Seek | undefined {
    const going = this.#beginsAt === undefined ? undefined : this.#going(this.#beginsAt, states);
    return going && { fromLsn: going.fromLsn, reason: 'a replica can be served again' };
  }

  #going(lowestLsn: Lsn, states: States): GoingOn | undefined {
    const input = this.#input;
    if (input === undefined) return undefined;
    const needs = states.map((state, at) => ({ replica: this.#names[at] ?? '', fromLsn: neededBy(state, input) }));
    const served = needs.filter(({ fromLsn }) => fromLsn >= lowestLsn);
    if (served.length === 0) return undefined;
    const fromLsn = Math.min(...served.map((one) => one.fromLsn));
    return { fromLsn, unserved: needs.filter((one) => one.fromLsn < lowestLsn) };
  }
}
