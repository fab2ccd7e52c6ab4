import type { SimulatedDisk } from '../../doubles/simulated-disk.ts';
import { must } from '../violation.ts';

const JOURNAL_FILE = /\/journal-[0-9a-f]+\.tmj$/;
/** What opening the files costs, and looking at damage here and there, whatever stands in them. */
const CALLS_ALWAYS = 64;
const CALLS_PER_FILE = 32;
const BYTES_PER_CALL = 8 * 1024;
const BYTES_ALWAYS = 512 * 1024;
/** Recovery, what is written again, the chain for the far side, the replay: each reads the journal once. */
const TIMES_READ = 8;
/** With an operator's word each stretch is looked at before it, for it and behind it, by each of those. */
const TIMES_READ_FOR_WORD = 40;

/**
 * What a start reads of the journal until it serves: bounded by what the journal holds, however damaged that is. Draws
 * nothing and lets no time pass.
 */
export class StartWork {
  readonly #disk: SimulatedDisk;
  #counting = false;
  #calls = 0;
  #bytes = 0;
  #journalBytes = 0;
  #files = 0;
  #timesRead = TIMES_READ;

  constructor(disk: SimulatedDisk) {
    this.#disk = disk;
    disk.onRead = (path, length): void => this.#note(path, length);
  }

  /** `hasWord`: something is to be given up. */
  begin(hasWord = false): void {
    this.#timesRead = hasWord ? TIMES_READ_FOR_WORD : TIMES_READ;
    this.#counting = true;
    this.#calls = 0;
    this.#bytes = 0;
    this.#journalBytes = 0;
    this.#files = 0;
    for (const [path, { size }] of this.#disk.files) {
      if (!JOURNAL_FILE.test(path)) continue;
      this.#journalBytes += size;
      this.#files++;
    }
  }

  /** The start is through, or has failed. */
  end(): void {
    this.#counting = false;
  }

  #note(path: string, length: number): void {
    if (!this.#counting || !JOURNAL_FILE.test(path)) return;
    this.#calls++;
    this.#bytes += length;
    const callsMax = CALLS_ALWAYS + CALLS_PER_FILE * this.#files + this.#journalBytes / BYTES_PER_CALL;
    const what = (): string =>
      `a start has read ${this.#bytes} bytes in ${this.#calls} calls of a journal of ${this.#journalBytes} in ${this.#files} files`;
    must('R7', this.#calls <= callsMax && this.#bytes <= BYTES_ALWAYS + this.#timesRead * this.#journalBytes, what);
  }
}
