import type { DiskFile } from '../../journal/host/host.ts';

/** A file that several readers use and that may be let go of while they do: it is closed when the last one is done. */
export class SharedFile {
  readonly #file: DiskFile;
  #users = 0;
  #retired = false;

  constructor(file: DiskFile) {
    this.#file = file;
  }

  /** The file stays open for as long as `run` takes. */
  async use<T>(run: (file: DiskFile) => Promise<T>): Promise<T> {
    this.#users++;
    try {
      return await run(this.#file);
    } finally {
      this.#users--;
      if (this.#retired && this.#users === 0) await this.#file.close();
    }
  }

  /** As `DiskFile.readNow`; the file is not let go of meanwhile, since nothing else runs. */
  readNow(into: Uint8Array, position: number): boolean {
    return !this.#retired && this.#file.readNow?.(into, position) === true;
  }

  /** Nobody begins to use the file from now on. */
  async retire(): Promise<void> {
    this.#retired = true;
    if (this.#users === 0) await this.#file.close();
  }
}

/** Takes the entry out that was put in first when there are more than `countMax`. */
export function evictOldest<T>(map: Map<number, T>, countMax: number): T | undefined {
  if (map.size <= countMax) return undefined;
  const oldest = map.entries().next();
  if (oldest.done === true) return undefined;
  map.delete(oldest.value[0]);
  return oldest.value[1];
}
