/** One line of the table: a load that fio runs against every server in turn. */
export interface Row {
  readonly name: string;
  readonly unit: 'IOPS' | 'MiB/s';
  /** fio options besides the common ones. */
  readonly load: readonly string[];
  /** Runs for a minute, 15 s with --quick: longer than a backlog takes to fill. */
  readonly sustained?: boolean;
}

const random4k = ['--bs=4k', '--norandommap', '--randrepeat=0'];

/** The rows of the performance study; names are stable, other tools read them. */
export const ROWS: readonly Row[] = [
  { name: 'w4k-q1', unit: 'IOPS', load: ['--rw=randwrite', ...random4k, '--iodepth=1'] },
  { name: 'w4k-q32', unit: 'IOPS', load: ['--rw=randwrite', ...random4k, '--iodepth=32'] },
  { name: 'w4k-q32x4', unit: 'IOPS', load: ['--rw=randwrite', ...random4k, '--iodepth=32', '--numjobs=4'] },
  {
    name: 'w64k-q16',
    unit: 'MiB/s',
    load: ['--rw=randwrite', '--bs=64k', '--norandommap', '--randrepeat=0', '--iodepth=16'],
  },
  { name: 'w1m-q8', unit: 'MiB/s', load: ['--rw=write', '--bs=1m', '--iodepth=8'] },
  { name: 'r4k-q1', unit: 'IOPS', load: ['--rw=randread', ...random4k, '--iodepth=1'] },
  { name: 'r4k-q32', unit: 'IOPS', load: ['--rw=randread', ...random4k, '--iodepth=32'] },
  { name: 'r1m-q8', unit: 'MiB/s', load: ['--rw=read', '--bs=1m', '--iodepth=8'] },
  { name: 'mix4k-q32', unit: 'IOPS', load: ['--rw=randrw', '--rwmixread=70', ...random4k, '--iodepth=32'] },
  { name: 'fsync1-q1', unit: 'IOPS', load: ['--rw=randwrite', ...random4k, '--iodepth=1', '--fsync=1'] },
  { name: 'fsync32-q32', unit: 'IOPS', load: ['--rw=randwrite', ...random4k, '--iodepth=32', '--fsync=32'] },
  { name: 'sustained-w4k-q32', unit: 'IOPS', load: ['--rw=randwrite', ...random4k, '--iodepth=32'], sustained: true },
  {
    name: 'sustained-w64k-q16',
    unit: 'MiB/s',
    load: ['--rw=randwrite', '--bs=64k', '--norandommap', '--randrepeat=0', '--iodepth=16'],
    sustained: true,
  },
  { name: 'sustained-w1m-q8', unit: 'MiB/s', load: ['--rw=write', '--bs=1m', '--iodepth=8'], sustained: true },
];
