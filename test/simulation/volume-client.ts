import {
  CommandFlag,
  type ExportClient,
  type NbdExport,
  type ReplyPort,
  RequestWindow,
  WindowKind,
  WindowPart,
} from '../../daemon/nbd/export.ts';
import { assert } from '../../journal/base/assert.ts';
import { type ErrorCode, TidemarkError } from '../../journal/base/errors.ts';
import { type Lsn, SECTOR_BYTES } from '../../journal/position.ts';
import { RecordFlag, RecordKind } from '../../journal/record.ts';
import { describeRecord, type ModelRecord } from './history.ts';
import { fillSectors, identifySectors } from './sector-pattern.ts';
import type { SeededRandom } from './seeded-random.ts';
import type { SourceModel } from './source-model.ts';
import { must, Violation } from './violation.ts';

const HEADER_BYTES = 28;
const HEADROOM_BYTES = 64;
const BUFFER_BYTES = 128 * 1024;
const OUTSTANDING_MAX = 32;
const HOT_SECTORS = 24;
/** What fits into a window with room to spare. */
const PART_SECTORS_MAX = 192;
const PARTS_AT_ONCE = 8;
const ZERO_FLAGS = [0, CommandFlag.noHole, CommandFlag.fastZero, CommandFlag.noHole | CommandFlag.fastZero];

/** What a request is for, by the wire's number. */
type Kind = (typeof WindowKind)[keyof typeof WindowKind];

interface Request {
  readonly cookie: number;
  readonly kind: Kind;
  readonly fua: boolean;
  /** For a flush: what must be durable when it is answered. */
  readonly coversLsn: Lsn;
  /** At which it took effect; 0 while it has not, or for a flush without a record of its own. */
  lsn: Lsn;
}

/** How a client behaves; drawn per run. */
export interface Habits {
  readonly sectorsMax: number;
  readonly zeroes: number;
  readonly trims: number;
  readonly flushes: number;
  readonly fua: number;
  readonly longRequests: number;
  /** Of a request that arrives in pieces. */
  readonly longSectorsMax: number;
  /** Which part of the disk is worked on. */
  readonly places: 'anywhere' | 'hot' | 'sequential';
  readonly abandons: number;
  readonly reads: number;
}

/**
 * A guest's connection: makes windows of requests by hand, as the NBD session would, and holds the volume to what it
 * answers. What is in the journal after a window must be what the window asked for, in its order.
 */
export class SimulatedClient implements ReplyPort {
  readonly volume: number;
  readonly #sectors: number;
  readonly #habits: Habits;
  readonly #random: SeededRandom;
  readonly #model: SourceModel;
  readonly #client: ExportClient;
  readonly #window = new RequestWindow(Buffer.alloc(BUFFER_BYTES));
  readonly #outstanding = new Map<number, Request>();
  /** Parts of a long request that have not gone out; each call of `act` sends one. */
  #parts: (() => void)[] = [];
  /** Of the window being made: modifications in order. */
  #requests: { readonly request: Request; readonly id: number }[] = [];
  #submitting = false;
  /** Answered during `submit`, before the journal was looked at. */
  #answeredInside: Request[] = [];
  #reads = 0;
  #pauses = 0;
  #nextCookie = 1;
  /** Behind the newest request. */
  #next = 0;
  #gone = false;

  constructor(device: NbdExport, volume: number, habits: Habits, random: SeededRandom, model: SourceModel) {
    this.volume = volume;
    this.#sectors = device.size / SECTOR_BYTES;
    this.#habits = habits;
    this.#random = random;
    this.#model = model;
    this.#client = device.attach(this);
  }

  get gone(): boolean {
    return this.#gone;
  }

  /** Requests and reads under way. */
  get busy(): number {
    return this.#outstanding.size + this.#reads + this.#parts.length;
  }

  /** A long request has begun and its last part is still to come. */
  get unfinished(): boolean {
    return this.#parts.length > 0;
  }

  /** Does the next thing: a window of requests, a part of a long one, a read, or leaving in the middle. */
  act(): void {
    const random = this.#random;
    if (this.#gone || this.#pauses > 0 || this.#outstanding.size > OUTSTANDING_MAX) return;
    if (this.#parts.length > 0) {
      if (random.chance(this.#habits.abandons)) this.leave();
      else for (let count = 0; count < PARTS_AT_ONCE && this.#pauses === 0; count++) this.#parts.shift()?.();
      return;
    }
    if (random.chance(this.#habits.reads)) this.#read();
    else if (random.chance(this.#habits.longRequests)) this.#beginLong();
    else this.#submitWindow(random.between(1, 6));
  }

  /** One flush alone: the workload's way to end a stretch. */
  flush(): void {
    if (this.#gone || this.#pauses > 0 || this.#parts.length > 0) return;
    this.#begin();
    this.#add(WindowKind.flush, 0, 0, WindowPart.whole, 0);
    this.#submit();
  }

  leave(): void {
    this.#gone = true;
    this.#parts = [];
    this.#client.detach();
  }

  ok(cookieHigh: number, cookieLow: number): void {
    this.#model.guard(() => this.#ok(cookieHigh, cookieLow));
  }

  #ok(cookieHigh: number, cookieLow: number): void {
    const request = this.#take(cookieHigh, cookieLow);
    this.#model.acknowledged++;
    this.#model.answered(this.volume, request.lsn, request.kind === WindowKind.flush || request.fua, request.coversLsn);
    if (request.kind !== WindowKind.flush) {
      must('D1', this.#submitting || request.lsn > 0, () => `request ${request.cookie} is answered, not journalled`);
      if (this.#submitting && request.lsn === 0) this.#answeredInside.push(request);
    }
  }

  fail(cookieHigh: number, cookieLow: number, code: ErrorCode): void {
    this.#model.guard(() => {
      this.#take(cookieHigh, cookieLow);
      this.#model.failed(code);
    });
  }

  send(): void {
    // Answers leave at once here.
  }

  pause(): void {
    this.#pauses++;
  }

  resume(): void {
    this.#pauses--;
    assert(this.#pauses >= 0, 'more resumes than pauses');
  }

  close(): void {
    this.leave();
  }

  #take(cookieHigh: number, cookieLow: number): Request {
    const cookie = cookieHigh * 0x1_0000_0000 + cookieLow;
    const request = this.#outstanding.get(cookie);
    if (request === undefined) throw new Violation('X1', `request ${cookie} is answered twice or was never made`);
    this.#outstanding.delete(cookie);
    return request;
  }

  #begin(): void {
    const window = this.#window;
    window.reset(window.buffer, window.view);
    window.start = HEADROOM_BYTES + 8 * this.#random.below(8);
    window.end = window.start;
    this.#requests = [];
  }

  #submitWindow(count: number): void {
    const random = this.#random;
    const habits = this.#habits;
    this.#begin();
    for (let index = 0; index < count; index++) {
      const sectors = random.chance(0.3) ? 1 : random.between(1, Math.min(habits.sectorsMax, this.#sectors));
      const sector = this.#place(sectors);
      const flags = random.chance(habits.fua) ? CommandFlag.fua : 0;
      const draw = random.below(1000) / 1000;
      if (draw < habits.zeroes) {
        this.#add(WindowKind.writeZeroes, sector, sectors, WindowPart.whole, flags | random.pick(ZERO_FLAGS));
      } else if (draw < habits.zeroes + habits.trims) {
        this.#add(WindowKind.trim, sector, sectors, WindowPart.whole, flags);
      } else if (draw < habits.zeroes + habits.trims + habits.flushes) {
        this.#add(WindowKind.flush, 0, 0, WindowPart.whole, 0);
      } else {
        this.#add(WindowKind.write, sector, sectors, WindowPart.whole, flags);
      }
      // A read between two writes leaves a hole in the window that belongs to no modification.
      if (random.chance(0.1)) this.#window.end += HEADER_BYTES;
    }
    this.#submit();
  }

  /** Where the next request of so many sectors goes. */
  #place(sectors: number): number {
    const random = this.#random;
    const last = this.#sectors - sectors;
    if (this.#habits.places === 'sequential') {
      const sector = this.#next > last ? 0 : this.#next;
      this.#next = sector + sectors;
      return sector;
    }
    if (this.#habits.places === 'hot' && random.chance(0.9)) return random.below(Math.min(HOT_SECTORS, last + 1));
    return random.below(last + 1);
  }

  #beginLong(): void {
    const random = this.#random;
    const sectors = random.between(2, Math.min(this.#sectors, this.#habits.longSectorsMax));
    const parts = Math.min(sectors, Math.max(random.between(2, 4), Math.ceil(sectors / PART_SECTORS_MAX)));
    const each = Math.floor(sectors / parts);
    const sector = this.#place(parts * each);
    const flags = random.chance(this.#habits.fua) ? CommandFlag.fua : 0;
    const cookie = this.#nextCookie++;
    const id = this.#model.newId();
    for (let index = 0; index < parts; index++) {
      const part = index === parts - 1 ? WindowPart.last : WindowPart.more;
      this.#parts.push(() => {
        this.#begin();
        this.#add(WindowKind.write, sector + index * each, each, part, flags, cookie, id);
        this.#submit();
      });
    }
    this.#parts.shift()?.();
  }

  #add(
    kind: Kind,
    sector: number,
    sectors: number,
    part: number,
    flags: number,
    cookie: number = this.#nextCookie++,
    id: number = kind === WindowKind.write ? this.#model.newId() : 0,
  ): void {
    const window = this.#window;
    const bytes = sectors * SECTOR_BYTES;
    const at = window.end;
    const payload = kind === WindowKind.write ? bytes : 0;
    if (at + HEADER_BYTES + payload > BUFFER_BYTES - 4096) return;
    if (payload > 0) fillSectors(window.view, at + HEADER_BYTES, payload, id, this.volume, sector);
    const index = window.count++;
    window.kind[index] = kind;
    window.part[index] = part;
    window.flags[index] = flags;
    window.cookieHigh[index] = 0;
    window.cookieLow[index] = cookie;
    window.offset[index] = sector * SECTOR_BYTES;
    window.length[index] = bytes;
    window.headerAt[index] = at;
    window.end = at + HEADER_BYTES + payload;
    const request = {
      cookie,
      kind,
      fua: (flags & CommandFlag.fua) !== 0,
      coversLsn: this.#model.ackedLsn(this.volume),
      lsn: 0,
    };
    this.#requests.push({ request, id });
    if (part !== WindowPart.more) this.#outstanding.set(cookie, request);
  }

  #submit(): void {
    const window = this.#window;
    if (window.count === 0) return;
    this.#model.catchUp();
    this.#submitting = true;
    this.#answeredInside = [];
    this.#client.submit(window);
    this.#submitting = false;
    this.#match(this.#model.catchUp());
    // After the call the buffer is the session's again: nobody may still read from it.
    window.buffer.fill(0xdb, 0, window.end);
    for (const request of this.#answeredInside) {
      must('D1', request.lsn > 0, () => `request ${request.cookie} was answered and is not in the journal`);
      this.#model.answered(this.volume, request.lsn, false, 0);
    }
  }

  /** Gives each request of the window its LSN; what was journalled must be what was asked for, in that order. */
  #match(records: readonly ModelRecord[]): void {
    const changes = records.filter(({ kind }) => CHANGES.has(kind));
    if (changes.length === 0) return;
    const asked = this.#requests.filter(({ request }) => request.kind !== WindowKind.flush);
    const window = this.#window;
    let next = 0;
    for (let index = 0; index < window.count; index++) {
      if (window.kind[index] === WindowKind.flush) continue;
      const record = changes[next];
      const one = asked[next++];
      must('D8', record !== undefined && one !== undefined, () => `request ${index} of a window is not in the journal`);
      const sector = (window.offset[index] as number) / SECTOR_BYTES;
      const sectors = (window.length[index] as number) / SECTOR_BYTES;
      const same = matches(record, window.kind[index] as Kind, this.volume, sector, sectors, one.id);
      must('D8', same, () => `journalled ${describeRecord(record)}, asked for ${sector}+${sectors} of ${one.id}`);
      one.request.lsn = record.lsn;
    }
    must('D8', next === changes.length, () => `${changes.length} records of a window of ${next} requests`);
  }

  #read(): void {
    const sectors = this.#random.between(1, Math.min(64, this.#sectors));
    const sector = this.#random.below(this.#sectors - sectors + 1);
    const into = new Uint8Array(sectors * SECTOR_BYTES).fill(0xee);
    this.#model.catchUp();
    const from = this.#model.history.lastLsn;
    const reading = this.#client.read(sector * SECTOR_BYTES, into);
    const check = (): void => {
      this.#model.catchUp();
      this.#model.checkRead(this.volume, sector, identifySectors(into, this.volume, sector), from);
    };
    if (reading === undefined) {
      check();
      return;
    }
    this.#reads++;
    reading.then(
      () => {
        this.#reads--;
        this.#model.guard(check);
      },
      (error: unknown) => {
        this.#reads--;
        if (!(error instanceof TidemarkError)) throw error;
      },
    );
  }
}

const CHANGES: ReadonlySet<number> = new Set([RecordKind.write, RecordKind.zero, RecordKind.trim]);

/** Whether a record is what a request asked for. */
function matches(
  record: ModelRecord,
  kind: Kind,
  volume: number,
  sector: number,
  sectors: number,
  id: number,
): boolean {
  if (record.volume !== volume || record.sector !== sector || record.sectors !== sectors) return false;
  if (kind === WindowKind.write)
    return record.kind === RecordKind.write && record.ids?.every((one) => one === id) === true;
  const wanted = kind === WindowKind.trim ? RecordKind.trim : RecordKind.zero;
  return record.kind === wanted && (record.flags & ~RecordFlag.noHole) === 0;
}
