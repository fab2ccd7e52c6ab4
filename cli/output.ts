import { formatDuration, formatSize } from '../daemon/config/units.ts';

/** Data goes to stdout, talk to stderr. */

export type OutputFormat = 'table' | 'json';

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

export function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** A number that JSON readers would round (above 2^53, or a bigint) becomes a string of digits. */
export function printJson(value: unknown): void {
  const safe = (_key: string, item: unknown): unknown => {
    if (typeof item === 'bigint') return item.toString();
    return typeof item === 'number' && Number.isInteger(item) && !Number.isSafeInteger(item) ? String(item) : item;
  };
  print(JSON.stringify(value, safe, 2));
}

/** Promise 9: what is not known is called so. */
export function known<T>(value: T | null | undefined, format: (value: T) => string): string {
  return value === null || value === undefined ? 'unknown' : format(value);
}

export function bytes(value: number): string {
  return formatSize(value);
}

export function seconds(value: number): string {
  return formatDuration(value * 1000);
}

export function count(value: number, noun: string): string {
  return `${value.toLocaleString('en')} ${noun}${value === 1 ? '' : 's'}`;
}

export function point(value: { epoch: number; lsn: number }): string {
  return `${value.epoch}:${value.lsn}`;
}

/** The time in UTC to the millisecond; -o json has microseconds. */
export function shortTime(iso: string): string {
  return iso.replace(/(\.\d{3})\d*/, '$1');
}
