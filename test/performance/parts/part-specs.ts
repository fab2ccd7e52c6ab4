/** One figure of a part, and what it shall be; without a goal it is told for what it says. */
export interface FigureSpec {
  readonly figure: string;
  readonly unit: string;
  readonly atLeast?: number;
  readonly atMost?: number;
}

/** A row of the bench that is no load of fio against every server: what it measures, and its figures. */
export interface PartSpec {
  readonly row: string;
  readonly what: string;
  readonly figures: readonly FigureSpec[];
}

function indexPart(row: string, extents: string): PartSpec {
  return {
    row,
    what: `history of ${extents} extents of 4 KiB, half of them on a tenth of the places, made by the index's own writer`,
    figures: [
      { figure: 'index opened, cold', unit: 'ms' },
      { figure: 'view opened and first 4 KiB read, cold', unit: 'ms', atMost: 50 },
      { figure: 'random 4 KiB of the view, cold, p50', unit: 'us', atMost: 500 },
      { figure: 'random 4 KiB of the view, cold, p99', unit: 'us' },
      { figure: 'random 4 KiB of the view, files in memory, p50', unit: 'us', atMost: 100 },
      { figure: 'the same places again, p50', unit: 'us', atMost: 100 },
      { figure: 'memory of the index, full and written to', unit: 'MiB', atMost: 64 },
      { figure: 'extents taken, written and merged', unit: 'thousand/s of CPU' },
      { figure: 'index on disk per extent', unit: 'bytes' },
    ],
  };
}

/** Names are stable, other tools read them. */
export const PART_SPECS: readonly PartSpec[] = [
  {
    row: 'receive',
    what: 'frames of 1 MiB of 4 KiB writes, made in the same process (not counted), through receiver, store, sync and index',
    figures: [
      { figure: 'frames as they are, per second of CPU', unit: 'MiB', atLeast: 400 },
      { figure: 'half-compressible frames, plain bytes per second of CPU', unit: 'MiB', atLeast: 400 },
      { figure: 'frames as they are, per second', unit: 'MiB' },
      { figure: 'merging 10 million extents, part of the CPU of receiving them', unit: '%', atMost: 5 },
    ],
  },
  indexPart('index-1m', 'a million'),
  indexPart('index-10m', '10 million'),
  indexPart('index-50m', '50 million'),
  {
    row: 'view-fio',
    what: 'fio, 4 KiB random reads at QD32, of a view in the middle of a history, and of qemu-nbd with the same content in a qcow2 overlay, in turn',
    figures: ['chunks as they are', 'compressed chunks', 'compressed chunks in memory'].flatMap((area) => [
      { figure: `${area}, view`, unit: 'IOPS' },
      { figure: `${area}, view / overlay`, unit: 'times', atLeast: area === 'compressed chunks' ? 0.4 : 1 },
      { figure: `${area}, CPU of a read, view`, unit: 'us' },
      { figure: `${area}, CPU of a read, overlay`, unit: 'us' },
    ]),
  },
  {
    row: 'restore',
    what: 'a volume in the middle of its history to a raw file, read back and verified, and qemu-img convert of the same content (4 GiB; 512 MiB with --quick)',
    figures: [
      { figure: 'restored and verified', unit: 's' },
      { figure: 'qemu-img convert', unit: 's' },
      { figure: 'qemu-img convert / restore', unit: 'times', atLeast: 1 },
    ],
  },
  {
    row: 'recovery',
    what: 'kill -9 of a source whose backing has taken nothing yet: 4 GiB in writes of 64 KiB (half a GiB with --quick)',
    figures: [
      { figure: 'in the journal only', unit: 'GiB' },
      { figure: 'from the start to the first write answered', unit: 's', atMost: 5 },
    ],
  },
  {
    row: 'idle-groups',
    what: '64 groups of one source (16 with --quick) that nobody writes to, each connected to its replica',
    figures: [
      { figure: 'CPU of a source of one', unit: '% of a core' },
      { figure: 'CPU of a source of all', unit: '% of a core' },
      { figure: 'CPU of 64, by what each adds', unit: '% of a core', atMost: 2 },
      { figure: 'memory of a source of one', unit: 'MiB' },
      { figure: 'memory per further group', unit: 'MiB', atMost: 20 },
      { figure: 'memory per further group of the replica', unit: 'MiB' },
    ],
  },
  {
    row: 'active-volumes',
    what: '16 volumes of one group, a client each, 4 KiB random writes at QD8 at the same time',
    figures: [
      { figure: 'all together', unit: 'IOPS' },
      { figure: 'slowest / mean', unit: 'times', atLeast: 0.5 },
    ],
  },
  {
    row: 'length',
    what: 'one group written to until its history is long: 4 KiB random writes at QD32 then, and the memory of both ends',
    figures: [
      ...['a million', '10 million'].map((name) => ({
        figure: `writes after ${name}, of those after 100 thousand`,
        unit: 'times',
      })),
      ...['100 thousand', 'a million', '10 million'].flatMap((name) => [
        { figure: `source after ${name}`, unit: 'MiB', atMost: 320 },
        { figure: `replica after ${name}`, unit: 'MiB' },
      ]),
    ],
  },
  {
    row: 'kafka-sustained',
    what: '64 KiB random writes at QD16 until the replica holds them, over a real broker on this machine and over the direct stream, in turn',
    figures: [
      ...['direct', 'kafka'].flatMap((name) => [
        { figure: `through ${name}, until the replica holds it`, unit: 'MiB/s' },
        { figure: `CPU of source and replica, ${name}`, unit: 'ms/MiB' },
      ]),
      { figure: 'Kafka / direct', unit: 'times' },
    ],
  },
  {
    row: 'kafka-guest',
    what: 'w4k-q32 as the guest sees it with shipping held to 32 MiB/s, over a real broker and over the direct stream, in turn; the broker runs in both cases',
    figures: [
      ...['direct', 'kafka'].map((name) => ({
        figure: `w4k-q32 through ${name}, shipping held to 32 MiB/s`,
        unit: 'IOPS',
      })),
      { figure: 'w4k-q32, Kafka / direct', unit: 'times', atLeast: 0.85 },
    ],
  },
];

/** Too long for `--quick`; by name it runs all the same. */
export const FULL_ONLY: ReadonlySet<string> = new Set(['index-50m']);
