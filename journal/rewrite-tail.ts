import { TidemarkError } from './base/errors.ts';
import { BATCH_HEADER_BYTES } from './batch-codec.ts';
import type { BatchView } from './batch-view.ts';
import type { BatchWindow } from './batch-window.ts';
import { journalFileName } from './file-reads.ts';
import type { DiskFile, Host } from './host/host.ts';
import { FILE_HEADER_BYTES } from './journal-file-header.ts';
import type { JournalAddress } from './position.ts';
import type { LogRun } from './recovery-scan.ts';
import type { RecoveryVerdict } from './recovery-verdict.ts';

const PAGE_BYTES = 4096;

/**
 * Writes every kept batch that nothing proves durable once more, at its own place and from bytes whose crcs were just
 * checked, together with the headers of the files they lie in, and syncs (invariant D5). After a failed sync the page
 * cache shows bytes that the medium does not have and calls them clean: only writing makes them dirty again.
 * Resolves with the bytes written.
 */
export async function rewriteUnproven(
  host: Host,
  directory: string,
  fileBytes: number,
  window: BatchWindow,
  verdict: RecoveryVerdict,
): Promise<number> {
  const files = new Map<number, DiskFile>();
  let bytes = 0;
  try {
    for (const run of verdict.kept) {
      for (const batch of batchesOf(window, fileBytes, run, firstCandidate(run, verdict.provenLsn))) {
        // an empty batch is as durable as the record behind it
        if (batch.firstLsn + Math.max(batch.header.count, 1) - 1 <= verdict.provenLsn) continue;
        const file = await open(host, directory, batch.address, fileBytes, files);
        bytes += await rewrite(file, window.bytesOf(batch), batch.address % fileBytes);
      }
    }
    // a header that nothing stands behind yet is all that the next batch has
    const end = verdict.endDamaged ? 0 : (verdict.kept.at(-1)?.end ?? 0);
    if (end % fileBytes === FILE_HEADER_BYTES) await open(host, directory, end, fileBytes, files);
    for (const file of files.values()) await file.dataSync();
    if (files.size > 0) await host.disk.syncDirectory(directory);
  } finally {
    for (const file of files.values()) await file.close();
  }
  return bytes;
}

/**
 * Clears what is cut and what nothing will be written over, because the log goes on in a file of its own: the headers of
 * whole batches in `runs`, which who looks for what stands behind damage would take for records of the log, and the page of
 * `unreadable`, a place that the medium cannot read: once it can, the batch there would continue a log that has given its
 * LSNs again.
 */
export async function clearCut(
  host: Host,
  directory: string,
  fileBytes: number,
  window: BatchWindow,
  { runs, unreadable }: { readonly runs: readonly LogRun[]; readonly unreadable: JournalAddress | undefined },
): Promise<void> {
  const files = new Map<number, DiskFile>();
  const fileOf = (address: JournalAddress): DiskFile => {
    const sequence = Math.floor(address / fileBytes);
    const file = files.get(sequence) ?? host.disk.open(`${directory}/${journalFileName(sequence)}`, 'write');
    files.set(sequence, file);
    return file;
  };
  const zeroes = new Uint8Array(PAGE_BYTES);
  try {
    for (const run of runs) {
      for (const { address } of batchesOf(window, fileBytes, run, run.from)) {
        await rewrite(fileOf(address), zeroes.subarray(0, BATCH_HEADER_BYTES), address % fileBytes);
      }
    }
    if (unreadable !== undefined) {
      // a whole page, or what cannot be read would have to be read first
      const page = zeroes.subarray(0, PAGE_BYTES - (unreadable % PAGE_BYTES));
      await rewrite(fileOf(unreadable), page, unreadable % fileBytes);
    }
    for (const file of files.values()) await file.dataSync();
  } finally {
    for (const file of files.values()) await file.close();
  }
}

/** Whole batches of a run in order, as they were found by the scan. A view is valid until the next step. */
function* batchesOf(
  window: BatchWindow,
  fileBytes: number,
  run: LogRun,
  from: JournalAddress,
): Generator<BatchView, void, undefined> {
  let address = from;
  while (address < run.end) {
    const next = skipBorder(address, fileBytes);
    if (next !== address) {
      address = next;
      continue;
    }
    const batch = window.batch(address, run.end);
    if (typeof batch === 'string') {
      throw new TidemarkError('device-failed', `journal address ${address} changed while it was recovered: ${batch}`);
    }
    const { closesFile, nextAddress } = batch.header;
    yield batch;
    address = closesFile ? address - (address % fileBytes) + fileBytes : nextAddress;
  }
}

/** Before every empty batch behind the last proven record: the mark at a file's end has the LSN of the file behind it. */
function firstCandidate(run: LogRun, provenLsn: number): JournalAddress {
  return run.notes.findLast((note) => note.lsn <= provenLsn)?.address ?? run.from;
}

/** A batch begins neither in a file header nor in the last bytes of a file. */
function skipBorder(address: JournalAddress, fileBytes: number): JournalAddress {
  const offset = address % fileBytes;
  if (offset < FILE_HEADER_BYTES) return address - offset + FILE_HEADER_BYTES;
  return fileBytes - offset < 64 ? address - offset + fileBytes : address;
}

async function open(
  host: Host,
  directory: string,
  address: JournalAddress,
  fileBytes: number,
  files: Map<number, DiskFile>,
): Promise<DiskFile> {
  const sequence = Math.floor(address / fileBytes);
  const known = files.get(sequence);
  if (known !== undefined) return known;
  const file = host.disk.open(`${directory}/${journalFileName(sequence)}`, 'write');
  files.set(sequence, file);
  const header = new Uint8Array(FILE_HEADER_BYTES);
  if (file.readSync(header, 0, header.length, 0) === header.length) await rewrite(file, header, 0);
  return file;
}

async function rewrite(file: DiskFile, bytes: Uint8Array, position: number): Promise<number> {
  const written = await file.write(bytes, 0, bytes.length, position);
  if (written !== bytes.length) {
    throw new TidemarkError('no-space', `${file.path}: ${written} of ${bytes.length} bytes written again`);
  }
  return written;
}
