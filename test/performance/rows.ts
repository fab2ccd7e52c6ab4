/** What the row's median shall be of each peer's, at least; a peer that is not named has no goal. */
export interface Goals {
  readonly 'qemu-nbd'?: number;
  readonly nbdkit?: number;
  readonly mirror?: number;
}

/** One line of the table: a load that fio runs against every server in turn. */
export interface Row {
  readonly name: string;
  readonly unit: 'IOPS' | 'MiB/s';
  /** fio options besides the common ones. */
  readonly load: readonly string[];
  readonly goals: Goals;
  /** Runs for a minute, 15 s with --quick: longer than a backlog takes to fill. */
  readonly sustained?: boolean;
  /** A stop of the guest may last so long. */
  readonly stopMsMax?: number;
  /** The slowest second shall be this part of the median second. */
  readonly worstSecond?: number;
  /** Instead of the usual number: for a row that one run says little about. */
  readonly repetitions?: number;
}

const random4k = ['--bs=4k', '--norandommap', '--randrepeat=0'];
const random64k = ['--rw=randwrite', '--bs=64k', '--norandommap', '--randrepeat=0', '--iodepth=16'];
const sequential1m = ['--bs=1m', '--iodepth=8'];

/** The rows of the performance study; names are stable, other tools read them. */
export const ROWS: readonly Row[] = [
  {
    name: 'w4k-q1',
    unit: 'IOPS',
    load: ['--rw=randwrite', ...random4k, '--iodepth=1'],
    goals: { 'qemu-nbd': 1.5, nbdkit: 1, mirror: 2 },
  },
  {
    name: 'w4k-q32',
    unit: 'IOPS',
    load: ['--rw=randwrite', ...random4k, '--iodepth=32'],
    goals: { 'qemu-nbd': 3, nbdkit: 1.5, mirror: 5 },
  },
  {
    name: 'w4k-q32x4',
    unit: 'IOPS',
    load: ['--rw=randwrite', ...random4k, '--iodepth=32', '--numjobs=4'],
    goals: { 'qemu-nbd': 2.5, nbdkit: 1.5, mirror: 4 },
  },
  { name: 'w64k-q16', unit: 'MiB/s', load: random64k, goals: { 'qemu-nbd': 1.1, nbdkit: 0.8, mirror: 2 } },
  {
    name: 'w1m-q8',
    unit: 'MiB/s',
    load: ['--rw=write', ...sequential1m],
    goals: { 'qemu-nbd': 1.1, nbdkit: 0.6, mirror: 2 },
  },
  {
    name: 'r4k-q1',
    unit: 'IOPS',
    load: ['--rw=randread', ...random4k, '--iodepth=1'],
    goals: { 'qemu-nbd': 1, nbdkit: 1 },
  },
  {
    name: 'r4k-q32',
    unit: 'IOPS',
    load: ['--rw=randread', ...random4k, '--iodepth=32'],
    goals: { 'qemu-nbd': 4, nbdkit: 1.3 },
  },
  { name: 'r1m-q8', unit: 'MiB/s', load: ['--rw=read', ...sequential1m], goals: { 'qemu-nbd': 1.8, nbdkit: 1 } },
  {
    name: 'mix4k-q32',
    unit: 'IOPS',
    load: ['--rw=randrw', '--rwmixread=70', ...random4k, '--iodepth=32'],
    goals: { 'qemu-nbd': 2.5, nbdkit: 1.2, mirror: 4 },
  },
  {
    name: 'fsync1-q1',
    unit: 'IOPS',
    load: ['--rw=randwrite', ...random4k, '--iodepth=1', '--fsync=1'],
    goals: { 'qemu-nbd': 1.3, nbdkit: 0.9, mirror: 1.5 },
    repetitions: 10,
  },
  {
    name: 'fsync32-q32',
    unit: 'IOPS',
    load: ['--rw=randwrite', ...random4k, '--iodepth=32', '--fsync=32'],
    goals: { 'qemu-nbd': 2.5, nbdkit: 1.2, mirror: 3 },
  },
  {
    name: 'sustained-w4k-q32',
    unit: 'IOPS',
    load: ['--rw=randwrite', ...random4k, '--iodepth=32'],
    goals: { 'qemu-nbd': 2.5, nbdkit: 1.2, mirror: 4 },
    sustained: true,
    worstSecond: 0.5,
  },
  {
    name: 'sustained-w64k-q16',
    unit: 'MiB/s',
    load: random64k,
    goals: { 'qemu-nbd': 0.75, mirror: 1.5 },
    sustained: true,
    stopMsMax: 100,
  },
  {
    name: 'sustained-w1m-q8',
    unit: 'MiB/s',
    load: ['--rw=write', ...sequential1m],
    goals: { 'qemu-nbd': 0.8, mirror: 1.7 },
    sustained: true,
    stopMsMax: 150,
  },
];
