import type { ErrorCode } from '../../journal/base/errors.ts';
import type { Lsn } from '../../journal/position.ts';
import type { History, ModelRecord } from './history.ts';
import type { JournalFollower } from './journal-follower.ts';
import { FOREIGN_SECTOR, type SectorId } from './sector-pattern.ts';
import { type Invariant, must, Violation } from './violation.ts';

/**
 * What the guests were told: floors under what may be lost. Acknowledged writes survive a kill, flushed ones a power
 * loss; what was told outside (bookmarks, frames at the replica) survives everything.
 */
export class SourceModel {
  readonly history: History;
  /** The journal as it is now; set while a source runs. */
  follower: JournalFollower | undefined;
  readonly #acked: Map<number, Lsn> = new Map();
  #flushedLsn: Lsn = 0;
  /** Up to where frames were ever handed to a stream: topic or replica may hold them. */
  #sentLsn: Lsn = 0;
  #nextId = 1;
  readonly #keptUp: ModelRecord[] = [];
  #powerLost = false;
  /** A sync of the journal failed in the process that runs: it may answer nobody well any more. */
  poisoned = false;
  /** Told of what a flush or a FUA that is being answered well covers. */
  onFlushed: (lsn: Lsn) => void = () => undefined;
  /** Told of every good answer: the LSN it covers, and whether that was promised durable. */
  onAnswered: (lsn: Lsn, durable: boolean) => void = () => undefined;
  /** Told how far the journal agrees with what it held before a start. */
  onRecovered: (lsn: Lsn) => void = () => undefined;
  /** Folds how requests ended into the trace. */
  readonly #trace: (what: string, ...numbers: readonly number[]) => void;
  readonly #failures: Map<ErrorCode, number> = new Map();
  readonly bookmarks: Map<string, Lsn> = new Map();
  /** Where the order ended whenever a machine went down. */
  readonly borders: Set<Lsn> = new Set();
  acknowledged = 0;
  /** The first thing a guarded check threw. */
  violation: unknown;

  constructor(history: History, trace: (what: string, ...numbers: readonly number[]) => void) {
    this.history = history;
    this.#trace = trace;
  }

  /** For checks inside calls of the product, which must not catch what they throw. */
  guard(check: () => void): void {
    try {
      check();
    } catch (error) {
      this.violation ??= error;
    }
  }

  /** How often a request failed, by code. */
  get failures(): ReadonlyMap<ErrorCode, number> {
    return this.#failures;
  }

  newId(): SectorId {
    return this.#nextId++;
  }

  /** The newest acknowledged write of a volume. */
  ackedLsn(volume: number): Lsn {
    return this.#acked.get(volume) ?? 0;
  }

  /** Reads the journal on to its end; returns the records that are new since the last call. */
  catchUp(): ModelRecord[] {
    return [...this.#keptUp.splice(0), ...(this.follower?.catchUp() ?? [])];
  }

  /** A file of the journal goes: what stands in it has to be read before. Whoever catches up next is told. */
  keepUp(): void {
    this.guard(() => this.#keptUp.push(...(this.follower?.catchUp() ?? [])));
  }

  /** A request was answered well. `durable`: it was a flush (over what `coversLsn` says) or had FUA. */
  answered(volume: number, lsn: Lsn, durable: boolean, coversLsn: Lsn): void {
    this.#trace('answered', volume, lsn, durable ? 1 : 0);
    must('D4', !this.poisoned, () => `LSN ${lsn} is answered after a sync of the journal had failed`);
    this.#acked.set(volume, Math.max(this.ackedLsn(volume), lsn));
    this.onAnswered(durable ? Math.max(lsn, coversLsn) : lsn, durable);
    if (!durable) return;
    this.onFlushed(Math.max(lsn, coversLsn));
    this.#flushedLsn = Math.max(this.#flushedLsn, lsn, coversLsn);
  }

  failed(code: ErrorCode): void {
    this.#trace(`failed ${code}`);
    this.#failures.set(code, (this.#failures.get(code) ?? 0) + 1);
  }

  bookmarked(name: string, lsn: Lsn): void {
    this.bookmarks.set(name, lsn);
    this.#flushedLsn = Math.max(this.#flushedLsn, lsn);
  }

  powerLost(): void {
    this.#powerLost = true;
  }

  /** The replica holds records up to here: they may never be given again. */
  shipped(lsn: Lsn): void {
    this.#flushedLsn = Math.max(this.#flushedLsn, lsn);
  }

  /** A frame up to here was handed to a stream. */
  sent(lsn: Lsn): void {
    this.#sentLsn = Math.max(this.#sentLsn, lsn);
  }

  /** The source is up again: everything promised must still be in its journal. */
  recovered(survivedLsn: Lsn): void {
    const acked = Math.max(0, ...this.#acked.values());
    const tail = `the journal agrees with what it held up to LSN ${survivedLsn} only`;
    if (!this.#powerLost) must('D1', survivedLsn >= acked, () => `LSN ${acked} was acknowledged, ${tail}`);
    for (const [name, lsn] of this.bookmarks) {
      must('B1', survivedLsn >= lsn, () => `bookmark ${name} was told at LSN ${lsn}, ${tail}`);
    }
    must('D2', survivedLsn >= this.#flushedLsn, () => `LSN ${this.#flushedLsn} was promised durable, ${tail}`);
    must('R4', survivedLsn >= this.#sentLsn, () => `LSN ${this.#sentLsn} was sent to the far side, ${tail}`);
    for (const [volume, lsn] of this.#acked) this.#acked.set(volume, Math.min(lsn, survivedLsn));
    // What a recovery keeps it has made durable before anybody is answered.
    this.#flushedLsn = survivedLsn;
    this.onRecovered(survivedLsn);
    this.#powerLost = false;
  }

  /** A read that began when the journal ended at `from` and ended now. */
  checkRead(volume: number, sector: number, found: Uint32Array, from: Lsn): void {
    const before = this.history.rangeAt(from, volume, sector, found.length);
    for (let index = 0; index < found.length; index++) {
      const id = found[index] as SectorId;
      if (id === before[index]) continue;
      const allowed = this.history.idsBetween(volume, sector + index, from, this.history.lastLsn);
      must('D6', allowed.has(id), () => {
        const expected = [...allowed].join(' or ');
        return `volume ${volume} sector ${sector + index} reads ${name(id)}, expected ${expected} (LSN ${from})`;
      });
    }
  }
}

/** Throws a violation at the first sector that is not what the model has there; both begin at `firstSector`. */
export function compareSectors(
  invariant: Invariant,
  what: () => string,
  volume: number,
  found: Uint32Array,
  expected: Uint32Array,
  firstSector = 0,
): void {
  for (let index = 0; index < found.length; index++) {
    if (found[index] === expected[index]) continue;
    const place = `volume ${volume} sector ${firstSector + index}`;
    throw new Violation(
      invariant,
      `${what()}: ${place} is ${name(found[index] as SectorId)}, expected ${expected[index]}`,
    );
  }
}

function name(id: SectorId): string {
  return id === FOREIGN_SECTOR ? 'nobody’s bytes' : String(id);
}
