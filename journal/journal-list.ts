import type { BatchView } from './batch-view.ts';
import { BatchWindow } from './batch-window.ts';
import { FileReads, journalFileName, listSequences } from './file-reads.ts';
import type { Host } from './host/host.ts';
import type { JournalFileHeader } from './journal-file-header.ts';
import { readShape } from './journal-reader.ts';
import { LogWalk } from './log-walk.ts';
import type { JournalAddress, Lsn } from './position.ts';

/** One file as `journal inspect` shows it. */
export interface ListedFile {
  readonly name: string;
  readonly sequence: number;
  readonly bytes: number;
  /** 'log': holds part of the log; 'spare': prepared for later; 'damaged': its header cannot be read. */
  readonly state: 'log' | 'spare' | 'damaged';
  readonly header?: JournalFileHeader;
  /** Why the header cannot be read. */
  readonly reason?: string;
}

export interface ListedBreak {
  readonly address: JournalAddress;
  readonly reason: string;
}

/** Files of a journal in order. Changes nothing, takes no lock. Throws `format-too-new`. */
export function listFiles(host: Host, directory: string): ListedFile[] {
  const reads = new FileReads(host.disk, directory);
  try {
    return listSequences(host.disk, directory).map((sequence) => {
      const header = reads.header(sequence);
      const file = { name: journalFileName(sequence), sequence, bytes: reads.size(sequence) };
      if (header === 'empty') return { ...file, state: 'spare' };
      if (typeof header === 'string') return { ...file, state: 'damaged', reason: header };
      return { ...file, state: header.sequence === sequence ? 'log' : 'spare', header };
    });
  } finally {
    void reads.close();
  }
}

/**
 * Every whole batch from the file that holds `fromLsn` (or the oldest) to the end of the log, watermarks included;
 * behind a break the next whole batch follows after a `ListedBreak`. A view is valid until the next step.
 * Changes nothing, takes no lock. Throws `not-found`, `journal-damaged` when no file header can be read.
 */
export function* listBatches(host: Host, directory: string, fromLsn: Lsn = 0): Generator<BatchView | ListedBreak> {
  const reads = new FileReads(host.disk, directory);
  try {
    const { fileBytes, salt } = readShape(host.disk, directory, reads);
    const log = listFiles(host, directory).filter((file) => file.state !== 'spare');
    const first = log.findLast((file) => (file.header?.firstLsn ?? Number.POSITIVE_INFINITY) <= fromLsn) ?? log[0];
    const end = ((log.at(-1)?.sequence ?? 0) + 1) * fileBytes;
    const window = new BatchWindow(reads, fileBytes, salt);
    let walk = new LogWalk(reads, window, fileBytes, { address: (first?.sequence ?? 0) * fileBytes });
    while (true) {
      const step = walk.step(end);
      if (typeof step === 'object') {
        yield step;
        continue;
      }
      const { incarnation, nextLsn = 1, address } = walk;
      const found = window.find(
        address,
        end,
        (header) => header.firstLsn >= nextLsn && header.incarnation >= incarnation,
      );
      if (found === undefined) return;
      yield { address, reason: step ?? 'the files end here' };
      walk = new LogWalk(reads, window, fileBytes, { address: found.address });
    }
  } finally {
    void reads.close();
  }
}
