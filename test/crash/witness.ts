import { closeSync, existsSync, openSync, readFileSync, writeSync } from 'node:fs';

/** What a run was told and has told, as far as it got. */
export interface Testimony {
  /** Units handed to the group. */
  readonly issued: number;
  /** All up to here were answered with success. */
  readonly acknowledged: number;
  /** All up to here are covered by a successful flush. */
  readonly flushed: number;
  /** What the far side holds durably: LSN and chain value after it. */
  readonly farLsn: number;
  readonly farChain: string;
  /** Bookmarks that were told. */
  readonly bookmarkLsn: number;
  readonly errors: readonly string[];
  readonly violations: readonly string[];
  readonly finished: boolean;
}

/**
 * A file outside of what is tested, one line per event, each written before anything follows from it: what a guest and
 * a far side remember when the program dies.
 */
export class Witness {
  readonly #fd: number;
  #closed = false;

  constructor(path: string) {
    this.#fd = openSync(path, 'a');
  }

  issued(unit: number): void {
    this.#note(`issued ${unit}`);
  }

  acknowledged(unit: number): void {
    this.#note(`acknowledged ${unit}`);
  }

  flushed(unit: number): void {
    this.#note(`flushed ${unit}`);
  }

  /** The program found out what a restart left: what lies behind will be submitted again. */
  kept(unit: number): void {
    this.#note(`kept ${unit}`);
  }

  far(lsn: number, chain: string): void {
    this.#note(`far ${lsn} ${chain}`);
  }

  bookmark(lsn: number): void {
    this.#note(`bookmark ${lsn}`);
  }

  error(text: string): void {
    this.#note(`error ${text}`);
  }

  violation(text: string): void {
    this.#note(`violation ${text}`);
  }

  finished(): void {
    this.#note('finished');
  }

  close(): void {
    if (!this.#closed) closeSync(this.#fd);
    this.#closed = true;
  }

  #note(line: string): void {
    writeSync(this.#fd, `${line.replaceAll('\n', ' ')}\n`);
  }
}

/** Reads a witness; `length`: only so many bytes of it, as they stood at an earlier moment. */
export function readWitness(path: string, length?: number): Testimony {
  const bytes = existsSync(path) ? readFileSync(path) : Buffer.alloc(0);
  const lines = bytes.toString('latin1', 0, length ?? bytes.length).split('\n');
  // a line that is being written
  lines.pop();
  let issued = 0;
  let acknowledged = 0;
  let flushed = 0;
  let farLsn = 0;
  let farChain = '0'.repeat(16);
  let bookmarkLsn = 0;
  let finished = false;
  const errors: string[] = [];
  const violations: string[] = [];
  for (const line of lines) {
    const [what, ...rest] = line.split(' ');
    const number = Number(rest[0]);
    if (what === 'issued') issued = number;
    else if (what === 'kept') issued = number;
    else if (what === 'acknowledged') acknowledged = Math.max(acknowledged, number);
    else if (what === 'flushed') flushed = Math.max(flushed, number);
    else if (what === 'bookmark') bookmarkLsn = Math.max(bookmarkLsn, number);
    else if (what === 'far') [farLsn, farChain] = [number, rest[1] ?? ''];
    else if (what === 'error') errors.push(rest.join(' '));
    else if (what === 'violation') violations.push(rest.join(' '));
    else if (what === 'finished') finished = true;
  }
  return { issued, acknowledged, flushed, farLsn, farChain, bookmarkLsn, errors, violations, finished };
}
