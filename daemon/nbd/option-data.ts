import { STRING_BYTES_MAX } from './protocol.ts';

/** Reads the data of one option front to back; every read says `undefined` when the data does not hold it. */
export class OptionData {
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  u16(): number | undefined {
    if (this.left < 2) return undefined;
    this.#at += 2;
    return this.#view.getUint16(this.#at - 2);
  }

  u32(): number | undefined {
    if (this.left < 4) return undefined;
    this.#at += 4;
    return this.#view.getUint32(this.#at - 4);
  }

  /** Length 4 | text (section "String encoding": at most 4096 bytes of UTF-8 without NUL). */
  countedText(): string | undefined {
    const length = this.u32();
    return length === undefined ? undefined : this.text(length);
  }

  text(length: number): string | undefined {
    if (length > this.left || length > STRING_BYTES_MAX) return undefined;
    const bytes = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length;
    if (bytes.includes(0)) return undefined;
    try {
      return UTF8.decode(bytes);
    } catch {
      return undefined;
    }
  }
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Data of INFO and GO: name length 4 | name | count 2 | count x info 2. `undefined`: malformed. */
export function parseInfoRequest(bytes: Uint8Array): { name: string; infos: number[] } | undefined {
  const data = new OptionData(bytes);
  const name = data.countedText();
  const count = data.u16();
  if (name === undefined || count === undefined || data.left !== 2 * count) return undefined;
  const infos: number[] = [];
  for (let i = 0; i < count; i++) infos.push(data.u16() ?? 0);
  return { name, infos };
}

/** Data of LIST/SET_META_CONTEXT: name length 4 | name | count 4 | count x (length 4 | query). `undefined`: malformed. */
export function parseMetaRequest(bytes: Uint8Array): { name: string; queries: string[] } | undefined {
  const data = new OptionData(bytes);
  const name = data.countedText();
  const count = data.u32();
  if (name === undefined || count === undefined || data.left < 4 * count) return undefined;
  const queries: string[] = [];
  for (let i = 0; i < count; i++) {
    const query = data.countedText();
    if (query === undefined) return undefined;
    queries.push(query);
  }
  return data.left === 0 ? { name, queries } : undefined;
}
