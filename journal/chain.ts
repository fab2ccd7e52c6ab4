import { crc32, crc32c } from '@node-rs/crc32';
import { TidemarkError } from './base/errors.ts';

/**
 * The hash chain of a group's history (DESIGN rule 17): a running checksum over the 40-byte entries of all records from
 * LSN 1 on, in order. Two ends that hold one value at one LSN hold the same records up to there, payloads included,
 * because every entry carries the CRC of its payload. It runs over records, so frames may be cut anywhere.
 *
 * On disk and on the wire a u64: `low` in the lower 32 bits (crc32c), `high` in the upper (crc32). It finds accidents
 * and mix-ups; it is no defence against somebody who computes a collision.
 */
export interface Chain {
  readonly low: number;
  readonly high: number;
}

/** The value before LSN 1. */
export const CHAIN_START: Chain = { low: 0, high: 0 };

/** The value after the entries in `entries` (a whole number of them), given the value before. */
export function advanceChain(chain: Chain, entries: Uint8Array): Chain {
  if (entries.length === 0) return chain;
  return { low: crc32c(entries, chain.low), high: crc32(entries, chain.high) };
}

export function sameChain(one: Chain, other: Chain): boolean {
  return one.low === other.low && one.high === other.high;
}

/** 16 hex digits, the upper half first. */
export function chainString(chain: Chain): string {
  return hex(chain.high) + hex(chain.low);
}

/** Reads what `chainString` wrote; throws `invalid-argument`. */
export function parseChain(text: string): Chain {
  if (!/^[0-9a-f]{16}$/.test(text)) throw new TidemarkError('invalid-argument', `'${text}' is no chain value`);
  return { high: Number.parseInt(text.slice(0, 8), 16), low: Number.parseInt(text.slice(8), 16) };
}

function hex(value: number): string {
  return value.toString(16).padStart(8, '0');
}
