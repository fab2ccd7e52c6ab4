import { TidemarkError } from '../../../journal/base/errors.ts';

/**
 * Kafka's "flexible" encoding (KIP-482), as far as the requests need it that kafkajs does not have: big endian; lengths
 * of compact strings and arrays are unsigned varints, one more than the length (0: null); every structure ends with a
 * tag section, which is empty in a request and skipped in a response.
 */

/** What is asked for concerns one topic: a longer answer is none. */
const RESPONSE_BYTES_MAX = 1024 * 1024;

export function compactString(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8');
  return Buffer.concat([encodeVarint(bytes.length + 1), bytes]);
}

function encodeVarint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 0x7f) {
    bytes.push((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  bytes.push(rest);
  return Buffer.from(bytes);
}

/** Reads a response in order. Anything malformed, and a response longer than 1 MiB, is `stream-unavailable`. */
export class FlexibleReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    if (bytes.length > RESPONSE_BYTES_MAX) {
      throw new TidemarkError('stream-unavailable', `the broker sent a response of ${bytes.length} bytes`);
    }
    this.#bytes = bytes;
  }

  take(length: number): Buffer {
    if (this.#at + length > this.#bytes.length) {
      throw new TidemarkError('stream-unavailable', 'the broker sent a response that ends early');
    }
    const taken = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length;
    return taken;
  }

  int16(): number {
    return this.take(2).readInt16BE(0);
  }

  int32(): number {
    return this.take(4).readInt32BE(0);
  }

  int64(): bigint {
    return this.take(8).readBigInt64BE(0);
  }

  string(): string {
    const length = this.#varint();
    return length > 1 ? this.take(length - 1).toString('utf8') : '';
  }

  #varint(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.take(1)[0] ?? 0;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
    throw new TidemarkError('stream-unavailable', 'the broker sent a response with a malformed length');
  }

  skipString(): void {
    const length = this.#varint();
    if (length > 1) this.take(length - 1);
  }

  skipTags(): void {
    for (let left = this.#varint(); left > 0; left--) {
      this.#varint();
      this.take(this.#varint());
    }
  }

  /** Returns the number of elements; each takes bytes, so that the response's length bounds them. */
  array(element: () => void): number {
    const count = Math.max(0, this.#varint() - 1);
    for (let index = 0; index < count; index++) element();
    return count;
  }
}
