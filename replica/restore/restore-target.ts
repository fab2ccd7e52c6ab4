import { TidemarkError } from '../../journal/base/errors.ts';
import { type Epoch, formatPosition, type JournalTime, type Lsn } from '../../journal/position.ts';
import type { CatalogBookmark } from '../catalog/catalog.ts';
import type { TimedLsn } from '../timeline/time-lookup.ts';

/** What an operator may name. */
export type RestoreTarget =
  | { readonly kind: 'latest' }
  | { readonly kind: 'lsn'; readonly lsn: Lsn; readonly epoch: Epoch | undefined }
  | { readonly kind: 'time'; readonly micros: JournalTime }
  | { readonly kind: 'ago'; readonly micros: number }
  | { readonly kind: 'bookmark'; readonly name: string };

export interface Choice {
  readonly lsn: Lsn;
  readonly epoch: Epoch;
  /** Journal time of the chosen record; absent for the floor of an empty history. */
  readonly at: TimedLsn | undefined;
  readonly before: TimedLsn | undefined;
  readonly after: TimedLsn | undefined;
  /** One line for a person: what was chosen, and why. */
  readonly text: string;
}

/** What is known of the history; the lookups read the disk. */
export interface ChoiceSource {
  readonly floorLsn: Lsn;
  readonly headLsn: Lsn;
  readonly epoch: Epoch;
  readonly bookmarks: readonly CatalogBookmark[];
  readonly nowMicros: number;
  lastAt(time: JournalTime): Promise<TimedLsn | undefined>;
  around(lsn: Lsn): Promise<Pick<Choice, 'at' | 'before' | 'after'>>;
}

const UNIT_MICROS: Readonly<Record<string, number>> = { s: 1e6, m: 60e6, h: 3600e6, d: 86_400e6, w: 604_800e6 };

/** A hundred years: what a date can express, and no history reaches. */
const AGO_MICROS_MAX = 36_525 * 86_400e6;

/**
 * Reads `latest`, an LSN, `epoch:lsn`, an RFC 3339 time with its zone, `5m ago` (s, m, h, d, w), or a bookmark's name;
 * `bookmark:NAME` for a name that looks like one of the others. Throws `invalid-argument` naming what is wrong.
 */
export function parseRestoreTarget(text: string): RestoreTarget {
  if (text === '') throw invalid('a position is missing');
  if (text.startsWith('bookmark:')) return { kind: 'bookmark', name: text.slice('bookmark:'.length) };
  if (text === 'latest') return { kind: 'latest' };
  const position = /^(?:(\d+):)?(\d+)$/.exec(text);
  if (position?.[2] !== undefined) {
    const lsn = Number(position[2]);
    const epoch = position[1] === undefined ? undefined : Number(position[1]);
    if (!Number.isSafeInteger(lsn)) throw invalid(`${text} is larger than any LSN`);
    return { kind: 'lsn', lsn, epoch };
  }
  const ago = /^(\d+(?:\.\d+)?)\s*([smhdw])\s+ago$/.exec(text);
  if (ago?.[1] !== undefined && ago[2] !== undefined) {
    const micros = Math.round(Number(ago[1]) * (UNIT_MICROS[ago[2]] ?? 0));
    if (micros > AGO_MICROS_MAX) throw invalid(`'${text}' is longer ago than any record can be`);
    return { kind: 'ago', micros };
  }
  if (/^\d{4}-\d\d-\d\d/.test(text)) return { kind: 'time', micros: parseTime(text) };
  return { kind: 'bookmark', name: text };
}

/** Throws `not-found`, `trimmed`, or `precondition-failed` when a bookmark's name is used twice. */
export async function chooseTarget(target: RestoreTarget, source: ChoiceSource): Promise<Choice> {
  const { lsn, why } = await chooseLsn(target, source);
  if (lsn > source.headLsn) {
    throw new TidemarkError('not-found', `LSN ${lsn} is not here yet: the newest point is ${source.headLsn}`);
  }
  if (lsn < source.floorLsn) {
    throw new TidemarkError('trimmed', `LSN ${lsn} is older than the floor: the oldest point is ${source.floorLsn}`);
  }
  const around = await source.around(lsn);
  const parts = [`${formatPosition({ epoch: source.epoch, lsn })} (${why})`];
  if (around.at !== undefined) parts.push(`of ${formatTime(around.at.time)}`);
  if (around.after !== undefined)
    parts.push(`the next record is LSN ${around.after.lsn} of ${formatTime(around.after.time)}`);
  return { lsn, epoch: source.epoch, ...around, text: parts.join('; ') };
}

async function chooseLsn(target: RestoreTarget, source: ChoiceSource): Promise<{ lsn: Lsn; why: string }> {
  switch (target.kind) {
    case 'latest':
      return { lsn: source.headLsn, why: 'latest' };
    case 'lsn':
      if (target.epoch !== undefined && target.epoch > source.epoch) {
        throw new TidemarkError('not-found', `epoch ${target.epoch} is not here: the newest is ${source.epoch}`);
      }
      return { lsn: target.lsn, why: 'as named' };
    case 'bookmark': {
      const found = source.bookmarks.filter((bookmark) => bookmark.name === target.name);
      const bookmark = found[0];
      if (bookmark === undefined) throw new TidemarkError('not-found', `there is no bookmark '${target.name}'`);
      if (found.length > 1) {
        const lsns = found.map((one) => one.lsn).join(', ');
        throw new TidemarkError(
          'precondition-failed',
          `bookmark '${target.name}' stands at ${found.length} positions, name one: ${lsns}`,
        );
      }
      return { lsn: bookmark.lsn, why: `bookmark '${bookmark.name}'` };
    }
    case 'time':
    case 'ago': {
      const micros = target.kind === 'time' ? target.micros : source.nowMicros - target.micros;
      const found = await source.lastAt(micros);
      if (found === undefined) {
        throw new TidemarkError('trimmed', `${formatTime(micros)} is older than the oldest record that is held`);
      }
      return { lsn: found.lsn, why: `the newest at or before ${formatTime(micros)}` };
    }
  }
}

/** RFC 3339 in UTC, to the millisecond. */
function formatTime(micros: JournalTime): string {
  return new Date(Math.floor(micros / 1000)).toISOString();
}

function parseTime(text: string): JournalTime {
  const match = /^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(\.\d{1,6})?\s?(Z|z|[+-]\d\d:\d\d)?$/.exec(text);
  if (match?.[1] === undefined || match[2] === undefined) {
    throw invalid(`'${text}' is no time: write it as 2026-01-31T13:45:00+01:00`);
  }
  const zone = match[4];
  if (zone === undefined) throw invalid(`'${text}' has no time zone: add Z or an offset like +01:00`);
  const seconds = match[2].length === 5 ? `${match[2]}:00` : match[2];
  const ms = Date.parse(`${match[1]}T${seconds}${zone.toUpperCase()}`);
  // Date.parse takes the 30th of February for the 2nd of March
  const day = Date.parse(`${match[1]}T00:00:00Z`);
  if (Number.isNaN(ms) || Number.isNaN(day) || !new Date(day).toISOString().startsWith(match[1])) {
    throw invalid(`'${text}' is no time of this world`);
  }
  const micros = ms * 1000 + Math.round(Number(`0${match[3] ?? ''}`) * 1e6);
  if (!Number.isSafeInteger(micros)) throw invalid(`'${text}' is further away than any record can be`);
  return micros;
}

function invalid(message: string): TidemarkError {
  return new TidemarkError('invalid-argument', message);
}
