import type { DiskFile, Host } from '../../journal/host/host.ts';
import type { Marks } from '../../journal/marks.ts';
import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { NO_SEAMS, type Seams } from './parts.ts';
import type { NemesisAction, RunOptions } from './run-options.ts';
import { DIRECT } from './stream-options.ts';
import type { Invariant } from './violation.ts';

/** A bug put between the real parts on purpose: a checker that cannot find it proves nothing. */
export interface PlantedBug {
  readonly name: string;
  readonly seams: Partial<Seams>;
  /** What the run must be able to do for the bug to show. */
  readonly change: (options: RunOptions) => RunOptions;
  /** Which broken promise may be the first to be noticed. */
  readonly noticedAs: readonly Invariant[];
}

export const PLANTED_BUGS: readonly PlantedBug[] = [
  {
    name: 'the journal answers a flush without a sync',
    seams: { sourceHost: (host) => withFiles(host, /journal-/, SYNC_DOES_NOTHING) },
    change: striking('power-source'),
    noticedAs: ['D1', 'D2', 'P1', 'L1'],
  },
  {
    name: 'a failed sync of the journal is tried again and believed',
    seams: { sourceHost: (host) => withFiles(host, /journal-/, SYNC_TRIED_AGAIN) },
    change: (options) => ({
      ...striking('power-source')(options),
      sourceDisk: { ...NO_DISK_FAULTS, syncFails: 0.05 },
    }),
    noticedAs: ['D1', 'D2', 'P1', 'L1'],
  },
  {
    name: 'a short write counts as whole',
    seams: { sourceHost: (host) => withFiles(host, /journal-/, SHORT_WRITE_IGNORED) },
    change: (options) => ({
      ...striking('kill-source')(options),
      sourceDisk: { ...NO_DISK_FAULTS, writeShort: 0.02 },
    }),
    noticedAs: ['X1', 'D1', 'D6', 'D8', 'L1', 'P3'],
  },
  {
    name: 'directories of the source are not synced',
    seams: { sourceHost: withoutDirectorySync },
    change: striking('power-source'),
    noticedAs: ['D1', 'D2', 'L1', 'X1'],
  },
  {
    name: 'frames are shipped before they are durable',
    seams: { shipMarks: durableIsWritten },
    change: striking('power-source'),
    noticedAs: ['D2', 'P1', 'P3', 'L1', 'X1'],
  },
  {
    name: 'backings are written ahead of the durable journal',
    seams: { groupMarks: durableIsWritten },
    change: striking('power-source'),
    noticedAs: ['D1', 'D2', 'P1', 'L1', 'X1'],
  },
  {
    name: 'a backing says it is synced and is not',
    seams: { sourceHost: (host) => withFiles(host, /\.raw$/, SYNC_DOES_NOTHING) },
    change: striking('power-source'),
    noticedAs: ['D1', 'D2'],
  },
  {
    name: 'the replica acknowledges before its sync',
    seams: { replicaHost: (host) => withFiles(host, /\.seg$/, SYNC_DOES_NOTHING) },
    change: striking('power-replica'),
    noticedAs: ['P5', 'P1', 'P3', 'L1', 'X1'],
  },
  {
    name: 'the replica acknowledges more than it holds',
    seams: {
      frames: (source) =>
        altered(source, {
          feedback: (feedback) => source.feedback({ ...feedback, durableLsn: feedback.durableLsn + 3 }),
        }),
    },
    change: striking('kill-replica'),
    noticedAs: ['P3', 'D2', 'L1', 'X1'],
  },
];

/** Nothing else goes wrong in the run: what is noticed is the bug. */
function striking(action: NemesisAction): (options: RunOptions) => RunOptions {
  return (options) => ({
    ...options,
    habits: { ...options.habits, flushes: 0.1, fua: 0.1 },
    nemesis: [action],
    nemesisMicros: 400_000,
    activeMicros: 5_000_000,
    journalFileBytes: 128 * 1024,
    segmentBytes: 64 * 1024,
    sourceDisk: NO_DISK_FAULTS,
    replicaDisk: NO_DISK_FAULTS,
    stream: DIRECT,
  });
}

type FileChange = (file: DiskFile) => Partial<DiskFile>;

const SYNC_DOES_NOTHING: FileChange = () => ({ dataSync: () => Promise.resolve(), dataSyncSync: () => undefined });

const SYNC_TRIED_AGAIN: FileChange = (file) => ({
  dataSync: () => file.dataSync().catch(() => file.dataSync().catch(() => undefined)),
  dataSyncSync: () => {
    try {
      file.dataSyncSync();
    } catch {
      // The second one would say yes.
    }
  },
});

const SHORT_WRITE_IGNORED: FileChange = (file) => ({
  writeSync: (buffer, offset, length, position) => {
    file.writeSync(buffer, offset, length, position);
    return length;
  },
});

function withFiles(host: Host, paths: RegExp, change: FileChange): Host {
  const { disk } = host;
  const open: Host['disk']['open'] = (path, mode) => {
    const file = disk.open(path, mode);
    return paths.test(path) ? altered(file, change(file)) : file;
  };
  return { ...host, disk: altered(disk, { open }) };
}

function withoutDirectorySync(host: Host): Host {
  const changes = { syncDirectory: () => Promise.resolve(), syncDirectoryNow: () => undefined };
  return { ...host, disk: altered(host.disk, changes) };
}

function durableIsWritten(marks: Marks): Marks {
  return altered(marks, {
    address: (mark) => marks.address(mark === 'durable' ? 'written' : mark),
    lsn: (mark) => marks.lsn(mark === 'durable' ? 'written' : mark),
  });
}

/** The object with some of its methods replaced; the others still see the original. */
function altered<T extends object>(target: T, changes: Partial<T>): T {
  return new Proxy(target, {
    get: (_target, key) => {
      if (key in changes) return changes[key as keyof T];
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

/** Every seam, the bug's among them. */
export function seamsOf(bug: PlantedBug): Seams {
  return { ...NO_SEAMS, ...bug.seams };
}
