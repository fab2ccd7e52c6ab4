import { setFlagsFromString } from 'node:v8';
import { runInThisContext } from 'node:vm';
import { SeededRandom } from './seeded-random.ts';

/** Events run in one go before the real event loop gets a turn, in which unhandled rejections come to light. */
const EVENTS_PER_TURN = 2000;
/** More at one instant is a loop that waits for nothing. */
const EVENTS_PER_INSTANT_MAX = 1_000_000;

/**
 * Everything that happens in a simulated run is an event of this heap, ordered by (time, order drawn from the seed).
 * After each event the microtasks it caused are drained, so that one seed gives one run. Nothing waits for the real
 * machine: code that does (a thread pool, a real timer) never hears an answer in time and shows up as a stuck run.
 */
export class Scheduler {
  readonly random: SeededRandom;
  readonly #heap: Event[] = [];
  #nowMicros = 0;
  #sequence = 0;
  #events = 0;
  #instantEvents = 0;
  #trace = 0x811c_9dc5;

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
  }

  /** Simulated microseconds since the start of the run. */
  get nowMicros(): number {
    return this.#nowMicros;
  }

  /** Events run so far. */
  get events(): number {
    return this.#events;
  }

  /** A hash over everything traced: equal for two runs of one seed, or something in them is not decided by the seed. */
  get traceHash(): string {
    return (this.#trace >>> 0).toString(16).padStart(8, '0');
  }

  /** Folds something that happened, and when, into the hash. */
  trace(what: string, ...numbers: readonly number[]): void {
    let hash = this.#trace;
    const fold = (value: number): void => {
      hash = Math.imul(hash ^ (value & 0xffff), 0x0100_0193);
      hash = Math.imul(hash ^ ((value >>> 16) & 0xffff), 0x0100_0193);
    };
    fold(this.#nowMicros);
    for (let index = 0; index < what.length; index++) fold(what.charCodeAt(index));
    for (const number of numbers) fold(number);
    this.#trace = hash;
  }

  /** Runs `action` after `micros` of simulated time; events of one instant run in an order the seed decides. */
  after(micros: number, action: () => void): { cancel(): void } {
    const event: Event = {
      time: this.#nowMicros + Math.max(0, Math.round(micros)),
      order: this.random.uint32(),
      sequence: this.#sequence++,
      action,
    };
    push(this.#heap, event);
    return {
      cancel: (): void => {
        event.action = undefined;
      },
    };
  }

  /** Runs events until `done()` holds, the heap is empty or the simulated time is up; true when `done()` held. */
  async runUntil(done: () => boolean, limitMicros: number): Promise<boolean> {
    const end = this.#nowMicros + limitMicros;
    for (;;) {
      const outcome = await inMacrotask(() => this.#turn(done, end));
      if (outcome !== undefined) return outcome;
    }
  }

  #turn(done: () => boolean, end: number): boolean | undefined {
    for (let count = 0; count < EVENTS_PER_TURN; count++) {
      drainMicrotasks();
      if (done()) return true;
      const next = this.#heap[0];
      if (next === undefined) return false;
      if (next.time > end) {
        this.#nowMicros = end;
        return false;
      }
      pop(this.#heap);
      if (next.action === undefined) continue;
      this.#instantEvents = next.time === this.#nowMicros ? this.#instantEvents + 1 : 0;
      if (this.#instantEvents > EVENTS_PER_INSTANT_MAX) throw new Error(`time stands still at ${next.time} µs`);
      this.#nowMicros = next.time;
      this.#events++;
      next.action();
    }
    return undefined;
  }
}

interface Event {
  readonly time: number;
  readonly order: number;
  readonly sequence: number;
  /** Undefined once cancelled. */
  action: (() => void) | undefined;
}

function before(a: Event, b: Event): boolean {
  if (a.time !== b.time) return a.time < b.time;
  if (a.order !== b.order) return a.order < b.order;
  return a.sequence < b.sequence;
}

function push(heap: Event[], event: Event): void {
  let at = heap.length;
  heap.push(event);
  while (at > 0) {
    const parent = (at - 1) >> 1;
    const above = heap[parent] as Event;
    if (!before(event, above)) break;
    heap[at] = above;
    at = parent;
  }
  heap[at] = event;
}

function pop(heap: Event[]): void {
  const last = heap.pop();
  if (last === undefined || heap.length === 0) return;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    const right = heap[child + 1];
    if (right !== undefined && before(right, heap[child] as Event)) child++;
    const below = heap[child] as Event;
    if (!before(below, last)) break;
    heap[at] = below;
    at = child;
  }
  heap[at] = last;
}

/** Microtasks can only be drained from outside of one, hence a macrotask of the real event loop around each turn. */
function inMacrotask<T>(action: () => T): Promise<T> {
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      try {
        resolve(action());
      } catch (error) {
        reject(error as Error);
      }
    });
  });
}

/** V8's own checkpoint: five times quicker than a turn of the event loop per event. */
const drainMicrotasks: () => void = ((): (() => void) => {
  setFlagsFromString('--allow-natives-syntax');
  const drain = runInThisContext('(function () { %PerformMicrotaskCheckpoint(); })') as () => void;
  drain();
  setFlagsFromString('--no-allow-natives-syntax');
  return drain;
})();
