import { assert } from '../../journal/base/assert.ts';
import type { ErrorCode } from '../../journal/base/errors.ts';
import type { Clock } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import type { ReplyPort } from '../nbd/export.ts';
import { HOLDER_PATIENCE, Throttle } from '../volume/throttle.ts';

/**
 * What becomes of answers that the far side has to be waited for: `open`: they go at once; `hold`: when the far side has
 * what they cover; `refuse`: those it does not have yet are errors.
 */
export type GateMode = 'open' | 'hold' | 'refuse';

/** Which answers are held, and how much may wait to be shipped; for `hold` and `refuse`. */
export interface GateRule {
  /** Plain writes are held, too, not only FLUSH and FUA. */
  readonly writes: boolean;
  /** Of what guests wrote and the far side does not have; their writers are slowed down before it. 0: no bound. */
  readonly unshippedBytesMax: number;
}

interface Held {
  readonly lsn: Lsn;
  readonly answer: (code: ErrorCode | undefined) => void;
}

/** Bytes of one entry of what is on its way. */
const SPAN_BYTES = 32 * 1024;
/** The bound never gets so small that a single large request would fill it. */
const BOUND_BYTES_MIN = 4 * 1024 * 1024;
/** The link's rate is measured over stretches of this length. */
const RATE_MS = 1_000;

/**
 * Between the journal and the answers to a group's guests: holds them until the far side has what they cover. In
 * front of it stands a bound on what is on its way there, so that a flush never waits for long: the configured bytes, or
 * what the link takes in a second, whichever is less. What waits here is bounded by what clients may have under way.
 */
export class AckGate {
  readonly #clock: Clock;
  readonly #throttle: Throttle;
  #mode: GateMode = 'open';
  #rule: GateRule = { writes: false, unshippedBytesMax: 0 };
  /** In the order of their LSNs. */
  #held: Held[] = [];
  #positionLsn: Lsn = 0;
  #newestLsn: Lsn = 0;
  #answeredLsn: Lsn = 0;
  /** What guests appended and the far side lacks: the LSN of each span's end, and all bytes up to it. */
  #spans: { lsn: Lsn; bytes: number }[] = [];
  #appendedBytes = 0;
  #shippedBytes = 0;
  #rateBytesPerSecond = 0;
  #rateFrom = { ms: 0, bytes: 0 };

  constructor(clock: Clock) {
    this.#clock = clock;
    const pressure = (): number => this.pressure;
    this.#throttle = new Throttle(
      clock,
      {
        pressure,
        pressureWithoutOpen: pressure,
        // no request that is still arriving holds anything up here
        checkpoint: () => -1,
        drained: () => this.#shippedBytes,
      },
      HOLDER_PATIENCE,
    );
  }

  get mode(): GateMode {
    return this.#mode;
  }

  /** Answers to plain writes have to be handed in like those to flushes. */
  get holdsWrites(): boolean {
    return this.#mode !== 'open' && this.#rule.writes;
  }

  /** The newest record a guest's request made: what a flush that comes now covers. */
  get newestLsn(): Lsn {
    return this.#newestLsn;
  }

  /** The newest record that was answered because the far side had it. */
  get answeredLsn(): Lsn {
    return this.#answeredLsn;
  }

  /** Answers that wait. */
  get waiting(): number {
    return this.#held.length;
  }

  /** Clients that take no writes because too much is on its way. */
  get heldBack(): number {
    return this.#throttle.heldBack;
  }

  /** Guests' bytes the far side does not have; only counted while answers are held. */
  get unshippedBytes(): number {
    return this.#appendedBytes - this.#shippedBytes;
  }

  /** 0: there is no bound. */
  get boundBytes(): number {
    const { unshippedBytesMax } = this.#rule;
    if (this.#mode === 'open' || unshippedBytesMax === 0 || this.#rateBytesPerSecond === 0) return unshippedBytesMax;
    return Math.min(unshippedBytesMax, Math.max(BOUND_BYTES_MIN, this.#rateBytesPerSecond));
  }

  /** Of a journal that was opened: everything in it may have been answered. */
  begin(lastLsn: Lsn): void {
    this.#newestLsn = lastLsn;
  }

  /** A window of requests is in the journal. */
  appended(lastLsn: Lsn, bytes: number): void {
    this.#newestLsn = lastLsn;
    this.shipping(lastLsn, bytes);
  }

  /** Something that no guest waits for is in the journal: it is on its way all the same. */
  shipping(lastLsn: Lsn, bytes: number): void {
    if (this.#mode === 'open') return;
    this.#appendedBytes += bytes;
    const last = this.#spans.at(-1);
    const before = this.#spans.at(-2)?.bytes ?? this.#shippedBytes;
    if (last !== undefined && this.#appendedBytes - before <= SPAN_BYTES) {
      last.lsn = lastLsn;
      last.bytes = this.#appendedBytes;
    } else {
      this.#spans.push({ lsn: lastLsn, bytes: this.#appendedBytes });
    }
  }

  /** A client wrote so much: it may be slowed down, or have to wait. */
  charge(client: ReplyPort, bytes: number): void {
    if (this.#mode !== 'open' && this.#rule.unshippedBytesMax > 0) this.#throttle.charge(client, bytes);
  }

  /** The client is gone. */
  forget(client: ReplyPort): void {
    this.#throttle.forget(client);
  }

  /**
   * Calls `answer` when everything up to `lsn` may be answered, or with the error to answer; inside this call when that is
   * known already.
   */
  hold(lsn: Lsn, answer: Held['answer']): void {
    if (this.#mode === 'open') {
      answer(undefined);
    } else if (lsn <= this.#positionLsn) {
      this.#answeredLsn = Math.max(this.#answeredLsn, lsn);
      answer(undefined);
    } else if (this.#mode === 'refuse') {
      answer('timed-out');
    } else {
      const at = this.#held.findLastIndex((held) => held.lsn <= lsn);
      this.#held.splice(at + 1, 0, { lsn, answer });
    }
  }

  /** How far the far side has come; it may go back. */
  advance(positionLsn: Lsn): void {
    this.#positionLsn = positionLsn;
    let count = 0;
    for (const span of this.#spans) {
      if (span.lsn > positionLsn) break;
      this.#shippedBytes = span.bytes;
      count += 1;
    }
    this.#spans.splice(0, count);
    this.#measure();
    const upTo = this.#held.findIndex(({ lsn }) => lsn > positionLsn);
    this.#answer(upTo < 0 ? this.#held.length : upTo, undefined);
    this.#throttle.recheck();
  }

  /** Whoever waits and need not any more is answered. */
  set(mode: GateMode, rule: GateRule): void {
    const began = this.#mode === 'open' && mode !== 'open';
    this.#mode = mode;
    this.#rule = rule;
    if (began || mode === 'open') {
      this.#spans = [];
      this.#shippedBytes = this.#appendedBytes;
    }
    if (mode === 'open') {
      // what is answered without the far side says nothing about it
      this.#answeredLsn = 0;
      this.#answerAll(undefined);
    }
    if (mode === 'refuse') this.#answerAll('timed-out');
    this.#throttle.recheck();
  }

  /** The journal has failed: nothing that waits can be answered well any more. */
  fail(code: ErrorCode): void {
    this.#answerAll(code);
  }

  #answerAll(code: ErrorCode | undefined): void {
    this.#answer(this.#held.length, code);
  }

  #answer(count: number, code: ErrorCode | undefined): void {
    if (count === 0) return;
    const due = this.#held.splice(0, count);
    if (code === undefined && this.#mode !== 'open') {
      const last = due.at(-1);
      assert(last !== undefined && last.lsn <= this.#positionLsn, 'what is answered is at the far side');
      this.#answeredLsn = Math.max(this.#answeredLsn, last.lsn);
    }
    for (const { answer } of due) answer(code);
  }

  /** 0: nothing is on its way; 1: the bound is reached. */
  get pressure(): number {
    const { boundBytes } = this;
    if (this.#mode === 'open' || boundBytes === 0) return 0;
    return this.unshippedBytes / boundBytes;
  }

  /** Only under load: an idle link says nothing about its rate. */
  #measure(): void {
    const nowMs = this.#clock.monotonicMs();
    const { ms, bytes } = this.#rateFrom;
    if (this.#spans.length === 0 || ms === 0) {
      this.#rateFrom = { ms: this.#spans.length === 0 ? 0 : nowMs, bytes: this.#shippedBytes };
      return;
    }
    if (nowMs - ms < RATE_MS) return;
    const rate = ((this.#shippedBytes - bytes) * 1000) / (nowMs - ms);
    this.#rateBytesPerSecond = this.#rateBytesPerSecond === 0 ? rate : (this.#rateBytesPerSecond + rate) / 2;
    this.#rateFrom = { ms: nowMs, bytes: this.#shippedBytes };
  }
}
