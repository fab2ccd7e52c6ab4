import type { JournalAddress, Lsn } from './position.ts';

/** One entry per MiB of journal: 16 bytes each, so 1.6 MB for a backlog of 100 GiB. */
export const INDEX_STEP_BYTES: number = 1024 * 1024;

interface FileEntries {
  readonly sequence: number;
  readonly lsns: Lsn[];
  readonly addresses: JournalAddress[];
}

/** Sparse map from LSN to the address of a batch at or before it; grows at the end, shrinks at the front. */
export class LsnIndex {
  readonly #fileBytes: number;
  readonly #files: FileEntries[] = [];

  constructor(fileBytes: number) {
    this.#fileBytes = fileBytes;
  }

  /** A file whose first record has this LSN; files come in ascending order. */
  addFile(sequence: number, firstLsn: Lsn): void {
    if (this.#files.at(-1)?.sequence === sequence) return;
    this.#files.push({ sequence, lsns: [firstLsn], addresses: [sequence * this.#fileBytes] });
  }

  /** A batch that begins with this LSN at this address; remembered when the last one is far enough behind. */
  note(lsn: Lsn, address: JournalAddress): void {
    const file = this.#files.at(-1);
    if (file === undefined || address - (file.addresses.at(-1) ?? 0) < INDEX_STEP_BYTES) return;
    file.lsns.push(lsn);
    file.addresses.push(address);
  }

  /** Where to begin looking for the record; undefined when it is older than everything here. */
  floor(lsn: Lsn): JournalAddress | undefined {
    const file = this.#files[lastAtMost(this.#files.length, (at) => (this.#files[at]?.lsns[0] ?? 0) <= lsn)];
    return file?.addresses[lastAtMost(file.lsns.length, (at) => (file.lsns[at] ?? 0) <= lsn)];
  }

  /** Known beginnings of batches, and of files (with the LSN of their first record), between two addresses, both left out. */
  between(from: JournalAddress, to: JournalAddress): { lsn: Lsn; address: JournalAddress }[] {
    return this.#files
      .filter(({ sequence }) => (sequence + 1) * this.#fileBytes > from && sequence * this.#fileBytes < to)
      .flatMap(({ lsns, addresses }) => addresses.map((address, at) => ({ lsn: lsns[at] ?? 0, address })))
      .filter(({ address }) => address > from && address < to);
  }

  /** LSN of the first record of a file. */
  firstLsnOf(sequence: number): Lsn | undefined {
    return this.#files.find((file) => file.sequence === sequence)?.lsns[0];
  }

  get oldestLsn(): Lsn | undefined {
    return this.#files[0]?.lsns[0];
  }

  /** Forgets files below the sequence. */
  dropBelow(sequence: number): void {
    const kept = this.#files.findIndex((file) => file.sequence >= sequence);
    this.#files.splice(0, kept < 0 ? this.#files.length : kept);
  }
}

/** The last index for which `holds`, given that it holds for a prefix; -1 for none. */
function lastAtMost(length: number, holds: (at: number) => boolean): number {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (holds(middle)) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
