import { isoTime } from '../../daemon/times.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { auditJournal, type JournalAudit } from '../../journal/journal-audit.ts';
import { type ListedBreak, listBatches, listFiles } from '../../journal/journal-list.ts';
import { SECTOR_BYTES } from '../../journal/position.ts';
import { type JournalRecord, RecordFlag, RecordKind, recordKindName } from '../../journal/record.ts';
import {
  decodeBookmark,
  decodeGap,
  decodeHeartbeat,
  decodeIncarnation,
  decodeVolumeAdded,
} from '../../journal/record-bodies.ts';

/** Reading a journal offline: no lock, nothing is changed, so it may run beside the daemon. */

export interface JournalSummary {
  readonly directory: string;
  readonly groupId: string;
  readonly firstLsn: number;
  readonly lastLsn: number;
  readonly durableLsn: number;
  readonly firstTime: string | null;
  readonly lastTime: string | null;
  readonly incarnation: number;
  readonly files: readonly {
    readonly name: string;
    readonly state: string;
    readonly bytes: number;
    readonly firstLsn: number | null;
    readonly reason: string | null;
  }[];
  readonly kinds: readonly { readonly kind: string; readonly records: number; readonly payloadBytes: number }[];
  readonly volumes: readonly { readonly id: number; readonly name: string; readonly sizeBytes: number }[];
  readonly bookmarks: readonly { readonly lsn: number; readonly name: string }[];
  readonly breaks: readonly ListedBreak[];
}

export interface ListedRecord {
  readonly lsn: number;
  readonly time: string;
  readonly kind: string;
  readonly volume: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly detail: string;
}

export function audit(directory: string): JournalAudit {
  return auditJournal(realHost(), directory);
}

/** Throws not-found, journal-damaged, format-too-new. */
export function summarize(directory: string): JournalSummary {
  const host = realHost();
  const files = listFiles(host, directory);
  const kinds = new Map<string, { records: number; payloadBytes: number }>();
  const volumes = new Map<number, { id: number; name: string; sizeBytes: number }>();
  const bookmarks: { lsn: number; name: string }[] = [];
  const breaks: ListedBreak[] = [];
  let [firstLsn, lastLsn, durableLsn, incarnation] = [0, 0, 0, 0];
  let firstTime: string | null = null;
  let lastTime: string | null = null;
  for (const step of listBatches(host, directory)) {
    if ('reason' in step) {
      breaks.push(step);
      continue;
    }
    durableLsn = Math.max(durableLsn, step.header.durableLsn);
    incarnation = Math.max(incarnation, step.incarnation);
    firstTime ??= isoTime(step.time);
    lastTime = isoTime(step.time);
    if (step.header.count === 0) continue;
    firstLsn = firstLsn === 0 ? step.firstLsn : firstLsn;
    lastLsn = step.lastLsn;
    for (const record of step) {
      const kind = recordKindName(record.kind);
      const before = kinds.get(kind) ?? { records: 0, payloadBytes: 0 };
      kinds.set(kind, { records: before.records + 1, payloadBytes: before.payloadBytes + record.payload.length });
      if (record.kind === RecordKind.bookmark)
        bookmarks.push({ lsn: record.lsn, name: decodeBookmark(record.payload).name });
      if (record.kind === RecordKind.volumeAdded) {
        const { id, name, size } = decodeVolumeAdded(record.payload);
        volumes.set(id, { id, name, sizeBytes: size });
      }
    }
  }
  return {
    directory,
    groupId: files.find((file) => file.header !== undefined)?.header?.groupId ?? 'unknown',
    firstLsn,
    lastLsn,
    durableLsn,
    firstTime,
    lastTime,
    incarnation,
    files: files.map(({ name, state, bytes, header, reason }) => ({
      name,
      state,
      bytes,
      firstLsn: state === 'log' ? (header?.firstLsn ?? null) : null,
      reason: reason ?? null,
    })),
    kinds: [...kinds].map(([kind, sums]) => ({ kind, ...sums })),
    volumes: [...volumes.values()],
    bookmarks,
    breaks,
  };
}

/** At most `limit` records from LSN `from` on; payloads of guests are not shown. */
export function listRecords(directory: string, from: number, limit: number): ListedRecord[] {
  const listed: ListedRecord[] = [];
  for (const step of listBatches(realHost(), directory, from)) {
    if ('reason' in step) continue;
    for (const record of step) {
      if (record.lsn < from) continue;
      if (listed.length === limit) return listed;
      listed.push({
        lsn: record.lsn,
        time: isoTime(step.time),
        kind: recordKindName(record.kind),
        volume: record.volume,
        offsetBytes: record.sector * SECTOR_BYTES,
        lengthBytes: record.sectors * SECTOR_BYTES,
        detail: detailOf(record),
      });
    }
  }
  return listed;
}

const DETAILS: ReadonlyMap<RecordKind, (body: Uint8Array) => string> = new Map([
  [RecordKind.bookmark, (body: Uint8Array) => decodeBookmark(body).name],
  [RecordKind.incarnation, (body: Uint8Array) => `start ${decodeIncarnation(body).counter}`],
  [RecordKind.volumeAdded, (body: Uint8Array) => decodeVolumeAdded(body).name],
  [RecordKind.heartbeat, (body: Uint8Array) => `${decodeHeartbeat(body).monotonicMs} ms on the source's clock`],
  [RecordKind.gap, (body: Uint8Array) => decodeGap(body).reason],
  [RecordKind.lost, (body: Uint8Array) => (body.length === 0 ? 'given up' : decodeGap(body).reason)],
]);

function detailOf(record: JournalRecord): string {
  const parts: string[] = [];
  if ((record.flags & RecordFlag.piece) !== 0) parts.push(`piece of request ${record.requestId}`);
  if ((record.flags & RecordFlag.closes) !== 0) parts.push('closes it');
  const describe = DETAILS.get(record.kind);
  if (describe !== undefined) parts.push(describe(record.payload));
  return parts.join(', ');
}
