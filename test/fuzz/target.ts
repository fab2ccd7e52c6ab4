import type { SeededRandom } from '../replica/support/memory-host.ts';

/** One parser, or a few that work together, under any bytes. */
export interface FuzzTarget {
  readonly name: string;
  /** Valid inputs that a run begins with. */
  seeds(): readonly Uint8Array[] | Promise<readonly Uint8Array[]>;
  /**
   * Throws a `TidemarkError` for input that is refused, anything else is a finding; so is a `violation`. The input is
   * the target's own copy.
   */
  run(input: Uint8Array): void | Promise<void>;
  /** Makes checksums and the like right again, in place, so that mutations get behind them. */
  fix?(input: Uint8Array, random: SeededRandom): void;
  /** The input is several files, as `packParts` writes them: mutations keep to one of them. */
  readonly parts?: boolean;
  /** Magic numbers, keywords: put into inputs. */
  readonly words?: readonly Uint8Array[];
  readonly inputBytesMax?: number;
  /** All memory in buffers that one input may take, refused or not. */
  readonly allocatedBytesMax?: number;
  /** Inputs in `make test`: some seconds for all targets together. */
  readonly testRuns: number;
}

/** A broken promise of the code under test: no TidemarkError, so that it counts as a finding. */
class Violation extends Error {}

export function must(condition: boolean, what: string): void {
  if (!condition) throw new Violation(what);
}

/** Files as one input: u32 length, bytes, for each. */
export function packParts(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = Buffer.alloc(parts.reduce((sum, part) => sum + 4 + part.length, 0));
  let at = 0;
  for (const part of parts) {
    at = bytes.writeUInt32LE(part.length, at);
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** The parts alias the input; a length that reaches too far is cut to what is there. */
export function unpackParts(input: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  for (let at = 0; at + 4 <= input.length; ) {
    const length = Math.min(view.getUint32(at, true), input.length - at - 4);
    parts.push(input.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return parts;
}

/** Without the zeroes at its end. */
export function trimZeroes(bytes: Uint8Array): Uint8Array {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end -= 1;
  return bytes.subarray(0, end);
}

export function words(...texts: string[]): Uint8Array[] {
  return texts.map((text) => Buffer.from(text, 'latin1'));
}
