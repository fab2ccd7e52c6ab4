import { openBacking } from '../../daemon/backing/open-backing.ts';
import { replayOffline } from '../../daemon/volume/offline-replay.ts';
import { VolumeRegistry } from '../../daemon/volume/volume-registry.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { listFiles } from '../../journal/journal-list.ts';
import { summarize } from './journal-reading.ts';

export interface ReplayReport {
  readonly dryRun: boolean;
  readonly volume: string;
  readonly into: string;
  readonly lsn: number;
  /** null for a dry run. */
  readonly writtenBytes: number | null;
  readonly steps: readonly string[];
}

/** A journal is opened with at least this many files of budget. */
const FILES_MIN = 3;
/** Nothing is appended, so nothing is synced in the background. */
const SYNC_INTERVAL_MS = 1000;

/** Throws not-found, journal-locked, backing-changed. */
export async function replay(directory: string, volume: string, into: string, dryRun: boolean): Promise<ReplayReport> {
  const summary = summarize(directory);
  const plan = { dryRun, volume, into };
  const host = realHost();
  const files = listFiles(host, directory);
  const header = files.find((file) => file.header !== undefined)?.header;
  if (header === undefined) throw new TidemarkError('journal-damaged', `no file in ${directory} has a readable header`);
  const { groupId } = header;
  if (dryRun) {
    if (VolumeRegistry.load(host, { directory, groupId }).find(volume) === undefined) {
      throw new TidemarkError('not-found', `the journal knows no volume ${volume}`);
    }
    const steps = [
      `would take the lock of ${directory} (the source must be down)`,
      `would check that ${into} is the disk of volume ${volume} and was not changed since`,
      `would write what the journal holds above its checkpoint, up to LSN ${summary.lastLsn}, and sync it`,
      'would stamp the disk as detached; the journal stays as it is',
    ];
    return { ...plan, lsn: summary.lastLsn, writtenBytes: null, steps };
  }
  const options = {
    directory,
    groupId,
    groupName: 'offline',
    fileBytes: header.fileBytes,
    budgetBytes: header.fileBytes * Math.max(FILES_MIN, files.length + 1),
    syncIntervalMs: SYNC_INTERVAL_MS,
  };
  const backing = await openBacking(into);
  try {
    const { lsn, writtenBytes } = await replayOffline(host, options, volume, backing);
    const steps = [`${into} is volume ${volume} as of LSN ${lsn}: a plain disk; ${writtenBytes} bytes were written`];
    return { ...plan, lsn, writtenBytes, steps };
  } finally {
    await backing.close();
  }
}
