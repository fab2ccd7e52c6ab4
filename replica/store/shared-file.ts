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

  /** Nobody begins to use the file from now on. */
  async retire(): Promise<void> {
    this.#retired = true;
    if (this.#users === 0) await this.#file.close();
  }
}
