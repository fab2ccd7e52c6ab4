/**
 * Sizes and durations as an operator writes them. A unit is required: `timeout: 15` has been read as milliseconds by
 * one program and as seconds by the next, and a size without a unit is a guess about somebody's disk.
 */

const SIZE_UNITS: Readonly<Record<string, number>> = {
  B: 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
};

const DURATION_UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

const NUMBER_AND_UNIT = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/;

/** A parsed quantity, or what is wrong with it in words that end the sentence "key: ...". */
export type Quantity = { readonly ok: true; readonly value: number } | { readonly ok: false; readonly problem: string };

/** `10GiB`, `1.5TiB`, `512B` -> bytes. */
export function parseSize(text: string): Quantity {
  return parseQuantity(text, SIZE_UNITS, 'a size', '10GiB');
}

/** `15s`, `1.5h`, `250ms`, `7d` -> milliseconds. */
export function parseDuration(text: string): Quantity {
  return parseQuantity(text, DURATION_UNITS, 'a duration', '15s');
}

function parseQuantity(text: string, units: Readonly<Record<string, number>>, what: string, example: string): Quantity {
  const match = NUMBER_AND_UNIT.exec(text.trim());
  const names = Object.keys(units).join(', ');
  if (match === null)
    return { ok: false, problem: `"${text}" is not ${what}: write a number and a unit, like ${example}` };
  const unitName = match[2] ?? '';
  if (unitName === '') return { ok: false, problem: `"${text}" has no unit: write one of ${names}, like ${example}` };
  const unit = units[unitName];
  if (unit === undefined) {
    return { ok: false, problem: `"${unitName}" is not a unit of ${what}: write one of ${names}, like ${example}` };
  }
  const value = Math.round(Number(match[1]) * unit);
  if (!Number.isSafeInteger(value)) return { ok: false, problem: `"${text}" is too large` };
  return { ok: true, value };
}

/** Bytes for people: `1.5 GiB`; exact below 1 KiB. */
export function formatSize(bytes: number): string {
  const names = Object.keys(SIZE_UNITS);
  let index = 0;
  let value = bytes;
  while (value >= 1024 && index < names.length - 1) {
    value /= 1024;
    index += 1;
  }
  const digits = index === 0 || value >= 100 || Number.isInteger(value) ? 0 : 1;
  return `${value.toFixed(digits)} ${names[index] ?? 'B'}`;
}

/** Milliseconds for people: `250 ms`, `1.4 s`, `3 m 20 s`, `2 h 5 m`, `3 d 4 h`. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return twoUnits(seconds, 60, 'm', 1, 's');
  if (seconds < 86_400) return twoUnits(seconds, 3600, 'h', 60, 'm');
  return twoUnits(seconds, 86_400, 'd', 3600, 'h');
}

function twoUnits(seconds: number, large: number, largeName: string, small: number, smallName: string): string {
  const rest = Math.floor((seconds % large) / small);
  const head = `${Math.floor(seconds / large)} ${largeName}`;
  return rest === 0 ? head : `${head} ${rest} ${smallName}`;
}
