import { hasCode, TidemarkError } from './base/errors.ts';
import type { Disk, DiskFile } from './host/host.ts';
import { FILE_HEADER_BYTES, type JournalFileHeader, readFileHeader } from './journal-file-header.ts';

const OPEN_FILES_MAX = 32;
/** For a reader on its way through the log: the file it is in and the next. */
export const READER_FILES_MAX: number = 2;
const NAME = /^journal-([0-9a-f]{16})\.tmj$/;

/** Name of the file that covers addresses from `sequence * fileBytes` on. */
export function journalFileName(sequence: number): string {
  return `journal-${sequence.toString(16).padStart(16, '0')}.tmj`;
}

/** Sequences of the journal files in a directory, ascending. */
export function listSequences(disk: Disk, directory: string): number[] {
  return disk
    .list(directory)
    .map((name) => NAME.exec(name)?.[1])
    .filter((digits) => digits !== undefined)
    .map((digits) => Number.parseInt(digits, 16))
    .filter((sequence) => Number.isSafeInteger(sequence));
}

/** Reads from a journal's files by name, with at most 32 of them open. Usable from any thread: shares no state. */
export class FileReads {
  readonly #disk: Disk;
  readonly #directory: string;
  /** In order of use: the first is the one to close. */
  readonly #open = new Map<number, DiskFile>();

  readonly #openMax: number;

  /**
   * `openMax`: an open file keeps its blocks although the log has let go of it, so who is not told by `drop` (a reader
   * on its way through the log) holds only the few it is at.
   */
  constructor(disk: Disk, directory: string, openMax: number = OPEN_FILES_MAX) {
    this.#disk = disk;
    this.#directory = directory;
    this.#openMax = openMax;
  }

  /** Bytes read, short at the end of the file. Throws `trimmed` when the file is not there. */
  read(sequence: number, position: number, into: Uint8Array, offset: number, length: number): number {
    return this.#file(sequence).readSync(into, offset, length, position);
  }

  /** As `readFileHeader`, and 'missing' without a file. */
  header(sequence: number): JournalFileHeader | string {
    const bytes = new Uint8Array(FILE_HEADER_BYTES);
    try {
      return readFileHeader(bytes.subarray(0, this.read(sequence, 0, bytes, 0, bytes.length)));
    } catch (error) {
      if (hasCode(error, 'trimmed')) return 'missing';
      throw error;
    }
  }

  size(sequence: number): number {
    return this.#file(sequence).size();
  }

  /** Forgets a file that is to be reused or removed. */
  drop(sequence: number): void {
    const file = this.#open.get(sequence);
    this.#open.delete(sequence);
    void file?.close();
  }

  async close(): Promise<void> {
    const files = [...this.#open.values()];
    this.#open.clear();
    await Promise.all(files.map((file) => file.close()));
  }

  #file(sequence: number): DiskFile {
    const known = this.#open.get(sequence);
    if (known !== undefined) {
      if (this.#open.size > 1) {
        this.#open.delete(sequence);
        this.#open.set(sequence, known);
      }
      return known;
    }
    const file = this.#openFile(sequence);
    this.#open.set(sequence, file);
    if (this.#open.size > this.#openMax) {
      const oldest = this.#open.keys().next();
      if (oldest.done !== true) this.drop(oldest.value);
    }
    return file;
  }

  #openFile(sequence: number): DiskFile {
    const name = journalFileName(sequence);
    try {
      return this.#disk.open(`${this.#directory}/${name}`, 'read');
    } catch (cause) {
      if (!hasCode(cause, 'not-found')) throw cause;
      throw new TidemarkError('trimmed', `journal file ${name} is not there any more`, { cause });
    }
  }
}
