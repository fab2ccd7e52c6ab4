import type { DiskFile, Host } from '../../journal/host/host.ts';
import type { Marks } from '../../journal/marks.ts';
import type { PlantedBug } from './planted-bug.ts';
import { both, failingSyncs, shortWrites, striking } from './striking.ts';

/** Bugs as wrappers between the real parts: what passes a seam can be falsified there. */
export const SEAM_BUGS: readonly PlantedBug[] = [
  {
    name: 'the journal answers a flush without a sync',
    rules: [1, 14],
    invariant: 'D3',
    seams: { sourceHost: (host) => withFiles(host, /journal-/, SYNC_DOES_NOTHING) },
    noticedBy: { simulation: striking('power-source') },
  },
  {
    name: 'a failed sync of the journal is tried again and believed',
    rules: [14],
    invariant: 'D4',
    seams: { sourceHost: (host) => withFiles(host, /journal-/, SYNC_TRIED_AGAIN) },
    noticedBy: { simulation: both(striking('power-source'), failingSyncs) },
  },
  {
    name: 'a short write counts as whole',
    rules: [14],
    invariant: 'D4',
    seams: { sourceHost: (host) => withFiles(host, /journal-/, SHORT_WRITE_IGNORED) },
    noticedBy: { simulation: both(striking('kill-source'), shortWrites) },
    quick: true,
  },
  {
    name: 'directories of the source are not synced',
    rules: [14],
    invariant: 'D3',
    seams: { sourceHost: withoutDirectorySync },
    noticedBy: { simulation: striking('power-source') },
  },
  {
    name: 'frames are shipped before they are durable',
    rules: [1],
    invariant: 'R5',
    seams: { shipMarks: durableIsWritten },
    noticedBy: { simulation: striking('power-source') },
  },
  {
    name: 'backings are written ahead of the durable journal',
    rules: [9],
    invariant: 'D2',
    seams: { groupMarks: durableIsWritten },
    noticedBy: { simulation: striking('power-source') },
  },
  {
    name: 'a backing says it is synced and is not',
    rules: [9],
    invariant: 'D2',
    seams: { sourceHost: (host) => withFiles(host, /\.raw$/, SYNC_DOES_NOTHING) },
    noticedBy: { simulation: striking('power-source') },
  },
  {
    name: 'the replica acknowledges before its sync',
    rules: [20],
    invariant: 'P5',
    seams: { replicaHost: (host) => withFiles(host, /\.seg$/, SYNC_DOES_NOTHING) },
    noticedBy: { simulation: striking('power-replica') },
    quick: true,
  },
  {
    name: 'the replica acknowledges more than it holds',
    rules: [20],
    invariant: 'P5',
    seams: {
      frames: (source) =>
        altered(source, {
          feedback: (feedback) => source.feedback({ ...feedback, durableLsn: feedback.durableLsn + 3 }),
        }),
    },
    noticedBy: { simulation: striking('kill-replica') },
  },
];

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
