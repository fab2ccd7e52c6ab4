/** Values by key, the least recently used given up first, bounded in bytes; concurrent wishes for one key share a load. */
export class ByteCache<V> {
  readonly #bytesMax: number;
  readonly #sizeOf: (value: V) => number;
  readonly #values = new Map<string, V>();
  readonly #loading = new Map<string, Promise<V>>();
  readonly #onEvict: (value: V) => void;
  #bytes = 0;

  constructor(bytesMax: number, sizeOf: (value: V) => number, onEvict: (value: V) => void = () => undefined) {
    this.#bytesMax = bytesMax;
    this.#sizeOf = sizeOf;
    this.#onEvict = onEvict;
  }

  get bytes(): number {
    return this.#bytes;
  }

  now(key: string): V | undefined {
    const value = this.#values.get(key);
    if (value === undefined) return undefined;
    this.#values.delete(key);
    this.#values.set(key, value);
    return value;
  }

  load(key: string, read: () => Promise<V>): Promise<V> {
    const underWay = this.#loading.get(key);
    if (underWay !== undefined) return underWay;
    const loading = this.#read(key, read);
    this.#loading.set(key, loading);
    return loading;
  }

  async #read(key: string, read: () => Promise<V>): Promise<V> {
    try {
      const value = await read();
      this.keep(key, value);
      return value;
    } finally {
      this.#loading.delete(key);
    }
  }

  /** Takes in a value that was read without waiting; one that is there under the key already stays. */
  keep(key: string, value: V): void {
    if (this.#values.has(key)) return;
    this.#values.set(key, value);
    this.#bytes += this.#sizeOf(value);
    for (const [oldest, old] of this.#values) {
      if (this.#bytes <= this.#bytesMax || oldest === key) break;
      this.#values.delete(oldest);
      this.#bytes -= this.#sizeOf(old);
      this.#onEvict(old);
    }
  }
}
