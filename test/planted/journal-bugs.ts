import type { PlantedBug } from './planted-bug.ts';
import { both, failingSyncs, flushing, striking } from './striking.ts';

const JOURNAL = 'test/journal/journal.test.ts';
const RECOVERY = 'test/journal/recovery.test.ts';

/** Bugs in the write-ahead log and its recovery. */
export const JOURNAL_BUGS: readonly PlantedBug[] = [
  {
    name: 'a sync answers for what was written while it ran',
    rules: [1, 14],
    invariant: 'D3',
    changes: [
      {
        file: 'journal/group-sync.ts',
        find: 'this.#hooks.durable(to, this.#clock.monotonicMs() - began, round.waiters);',
        replace: 'this.#hooks.durable(this.#hooks.written(), this.#clock.monotonicMs() - began, round.waiters);',
      },
    ],
    noticedBy: { simulation: striking('power-source') },
  },
  {
    name: 'who comes during a sync is answered by it',
    rules: [1, 14],
    invariant: 'D3',
    changes: [
      {
        file: 'journal/group-sync.ts',
        find: '      return this.#next.promise;',
        replace: '      return this.#running.promise;',
      },
    ],
    noticedBy: { simulation: both(striking('power-source'), flushing) },
  },
  {
    name: 'a file that is full is not synced any more',
    rules: [1, 14],
    invariant: 'D3',
    changes: [
      {
        file: 'journal/group-sync.ts',
        find: '    this.#retired.add(file);',
        replace: '    this.#retired.add(file);\n    this.#dirty.delete(file);',
      },
    ],
    noticedBy: { simulation: striking('power-source') },
  },
  {
    name: 'a file is closed while its sync is queued',
    rules: [14],
    invariant: 'D7',
    changes: [
      {
        file: 'journal/group-sync.ts',
        find: 'if (!this.#retired.has(file) || this.#dirty.has(file) || this.#syncing.includes(file)) continue;',
        replace: 'if (!this.#retired.has(file)) continue;',
      },
    ],
    noticedBy: { simulation: striking('power-source') },
  },
  {
    name: 'the name of a new journal file is not made durable',
    rules: [14],
    invariant: 'D3',
    changes: [
      {
        file: 'journal/file-pool.ts',
        find: '        await this.#host.disk.syncDirectory(this.#options.directory);\n        for (const spare of named) spare.named = true;',
        replace: '        for (const spare of named) spare.named = true;',
      },
    ],
    noticedBy: { simulation: striking('power-source') },
  },
  {
    name: 'the header of a journal file may be written in part',
    rules: [14],
    invariant: 'D4',
    changes: [
      {
        file: 'journal/journal-writer.ts',
        find: '    if (written !== length) {',
        replace: '    if (written !== length && length !== FILE_HEADER_BYTES) {',
      },
    ],
    noticedBy: {
      test: 'test/journal/held-rules.test.ts',
      title: 'a file header that is written in part poisons: nothing is answered behind it',
    },
  },
  {
    name: 'writes go on behind one that failed',
    rules: [14],
    invariant: 'D4',
    changes: [
      {
        file: 'journal/journal-writer.ts',
        find: "    if (this.#poison !== undefined) throw this.#poisonedError();\n    assert(!this.#closed, 'the journal is closed');",
        replace: "    assert(!this.#closed, 'the journal is closed');",
      },
    ],
    noticedBy: { test: JOURNAL, title: 'poisons; opening again recovers' },
  },
  {
    name: 'journal time is the wall clock',
    rules: [7],
    invariant: 'V4',
    changes: [
      {
        file: 'journal/clock-watch.ts',
        find: '    this.#last = Math.max(this.#last, this.#clock.wallMicros());',
        replace: '    this.#last = this.#clock.wallMicros();',
      },
      {
        file: 'journal/journal-writer.ts',
        find: '    this.state.time = Math.max(this.state.time, at);',
        replace: '    this.state.time = at;',
      },
    ],
    noticedBy: { simulation: striking('clock-jump', 'kill-source') },
    quick: true,
  },
  {
    name: 'a step of the wall clock leaves no record',
    rules: [7],
    invariant: 'V4',
    changes: [
      {
        file: 'journal/clock-watch.ts',
        find: '    if (Math.abs(wall - expected) <= JUMP_MICROS) return undefined;',
        replace: '    if (Math.abs(wall - expected) >= 0) return undefined;',
      },
    ],
    noticedBy: {
      test: JOURNAL,
      title: 'a wall clock set forward, back, and back over a restart: each step told once, time never goes back',
    },
  },
  {
    name: 'an idle journal does not prove its end',
    rules: [3, 4],
    invariant: 'R4',
    changes: [
      {
        file: 'journal/journal-writer.ts',
        find: '      this.#watermarkTimer = undefined;\n      this.#writeWatermark();',
        replace: '      this.#watermarkTimer = undefined;',
      },
    ],
    noticedBy: {
      test: JOURNAL,
      title: 'what nobody syncs is synced in the background, and an idle journal proves it with one watermark',
    },
  },
  {
    name: 'a new incarnation is not durable when the source goes on',
    rules: [1],
    invariant: 'R5',
    changes: [
      {
        file: 'journal/journal.ts',
        find: '    await this.#writer.sync();\n    this.#incarnation = incarnation;',
        replace: '    this.#incarnation = incarnation;',
      },
    ],
    noticedBy: { test: RECOVERY, title: 'a position is durable before it can be told' },
  },
  {
    name: 'a start takes the incarnation of the one before',
    rules: [1, 2],
    invariant: 'R5',
    changes: [
      {
        file: 'journal/journal.ts',
        find: 'counter: Math.max(state.incarnation.counter, this.begunBefore.counter) + 1, nonce',
        replace: 'counter: Math.max(1, state.incarnation.counter), nonce',
      },
    ],
    noticedBy: { simulation: striking('kill-source', 'power-source') },
  },
  {
    name: 'the nonce of a start is made of the LSN',
    rules: [18],
    invariant: 'R5',
    changes: [
      {
        file: 'journal/journal.ts',
        find: "Buffer.from(this.#host.random.bytes(8)).toString('hex')",
        replace: "this.lastLsn.toString(16).padStart(16, '0')",
      },
    ],
    noticedBy: {
      test: 'test/journal/held-rules.test.ts',
      title: 'what makes a start unlike another is random, never made of its LSN',
    },
  },
  {
    name: 'a frame with a feature this program does not know is read as if it had none',
    rules: [18, 23],
    invariant: 'H5',
    changes: [
      {
        file: 'journal/frame-codec.ts',
        find: 'if (version > FRAME_VERSION || unknown !== 0) {',
        replace: 'if (version > FRAME_VERSION) {',
      },
    ],
    noticedBy: {
      test: 'test/journal/frame.test.ts',
      title: 'a newer format and an unknown feature say "upgrade the replica first"; a damaged version is damage',
    },
  },
  {
    name: 'damage at or below the proven end is cut like a torn tail',
    rules: [3],
    invariant: 'R2',
    changes: [
      {
        file: 'journal/recovery-verdict.ts',
        find: 'if (bootChanged && (previous.nextLsn > provenLsn || run.firstLsn > provenLsn + 1)) break;',
        replace: 'if (bootChanged) break;',
      },
    ],
    noticedBy: { test: RECOVERY, title: 'damage at or below the watermark is reported and never truncated' },
  },
  {
    name: 'within one boot a hole is taken for a torn tail',
    rules: [3],
    invariant: 'R3',
    changes: [
      {
        file: 'journal/recovery-verdict.ts',
        find: 'if (bootChanged && (previous.nextLsn > provenLsn || run.firstLsn > provenLsn + 1)) break;',
        replace: 'if (previous.nextLsn > provenLsn || run.firstLsn > provenLsn + 1) break;',
      },
    ],
    noticedBy: {
      test: RECOVERY,
      title: 'within one boot a hole without a witness is damage too: the page cache loses nothing',
    },
  },
  {
    name: 'what stands behind a torn place is kept after a power loss',
    rules: [3],
    invariant: 'R3',
    changes: [
      {
        file: 'journal/recovery-verdict.ts',
        find: 'if (bootChanged && (previous.nextLsn > provenLsn || run.firstLsn > provenLsn + 1)) break;',
        replace: '',
      },
    ],
    noticedBy: { simulation: striking('power-source') },
  },
  {
    name: 'recovery believes the page cache',
    rules: [14],
    invariant: 'D5',
    changes: [
      {
        file: 'journal/rewrite-tail.ts',
        find: '        bytes += await rewrite(file, window.bytesOf(batch), batch.address % fileBytes);',
        replace: '        bytes += file.path.length;',
      },
    ],
    noticedBy: {
      simulation: both(striking('kill-source', 'power-source'), failingSyncs),
    },
  },
  {
    name: 'recovery does not sync what it kept',
    rules: [1, 14],
    invariant: 'D5',
    changes: [
      {
        file: 'journal/rewrite-tail.ts',
        find: '    for (const file of files.values()) await file.dataSync();\n    if (files.size > 0) await host',
        replace: '    if (files.size > 0) await host',
      },
    ],
    noticedBy: {
      test: 'test/journal/held-rules.test.ts',
      title: 'what recovery writes again it syncs, in every file, before anybody is answered',
    },
  },
  {
    name: 'recovery leaves the mark at the end of a file as it is',
    rules: [14],
    invariant: 'D5',
    changes: [
      {
        file: 'journal/rewrite-tail.ts',
        find: 'note.lsn <= provenLsn)?.address',
        replace: 'note.lsn <= provenLsn + 1)?.address',
      },
    ],
    noticedBy: {
      test: 'test/journal/held-rules.test.ts',
      title: 'recovery writes the mark at the end of a file again, although every record before it is proven',
    },
  },
  {
    name: 'headers of files behind a cut stay',
    rules: [2],
    invariant: 'R3',
    changes: [
      {
        file: 'journal/recovery.ts',
        find: '  await wipeHeaders(host, options.directory, files.live.filter(isCut));\n',
        replace: '',
      },
    ],
    noticedBy: {
      test: 'test/journal/held-rules.test.ts',
      title:
        'a file behind a cut is not taken for the log again, though its LSNs were given anew and the stop was clean',
    },
  },
  {
    name: 'a batch is believed at an address that is not its own',
    rules: [2],
    invariant: 'R1',
    changes: [
      {
        file: 'journal/batch-codec.ts',
        find: '  if (own !== address) return `the batch belongs to address ${own}`;\n',
        replace: '',
      },
    ],
    noticedBy: {
      test: 'test/journal/format.test.ts',
      title: 'a batch reads back as written; any flipped bit and any truncation is found',
    },
  },
  {
    name: 'the chain from batch to batch is not followed',
    rules: [2],
    invariant: 'R1',
    changes: [
      {
        file: 'journal/log-walk.ts',
        find: "    if (this.chain !== undefined && header.previousCrc !== this.chain) return 'the chain is broken';\n",
        replace: '',
      },
    ],
    noticedBy: {
      test: RECOVERY,
      title: 'a whole batch that does not continue the one before it is not believed, whatever it says of itself',
    },
  },
  {
    name: 'a batch of an older incarnation continues the log',
    rules: [2],
    invariant: 'R1',
    changes: [
      {
        file: 'journal/log-walk.ts',
        find: '    if (header.incarnation < this.incarnation) return `incarnation ${header.incarnation} is older`;\n',
        replace: '',
      },
    ],
    noticedBy: { test: RECOVERY, title: 'a batch of an older incarnation ends the log, however well it fits' },
  },
  {
    name: 'bytes of the journal are sealed unlooked at',
    rules: [16],
    invariant: 'R1',
    changes: [
      {
        file: 'journal/batch-window.ts',
        find: "    if (!bodyIsWhole(this.#buffer, bodyStart, header)) return 'the body crc is wrong';\n",
        replace: '',
      },
    ],
    noticedBy: {
      test: 'test/ship/shipper.test.ts',
      title: 'bytes that rot in the journal are never sealed into a frame',
    },
  },
  {
    name: 'the place on the disk is kept in 32 bits',
    rules: [6],
    invariant: 'D8',
    changes: [
      {
        file: 'journal/record.ts',
        find: '  writeU64(view, at + 8, sector);',
        replace: '  writeU64(view, at + 8, sector % 0x1_0000_0000);',
      },
    ],
    noticedBy: {
      test: 'test/journal/format.test.ts',
      title: 'a record header reads back as written, for disks of any size',
    },
  },
  {
    name: 'two processes may use one directory',
    rules: [15],
    invariant: 'H3',
    changes: [
      {
        file: 'journal/host/real-disk.ts',
        find: "    if (outcome !== 'taken') {",
        replace: "    if (outcome === 'unsupported') {",
      },
    ],
    noticedBy: {
      test: JOURNAL,
      title: 'a second process and a second journal in this one are refused by the kernel lock',
    },
  },
  {
    name: 'a network file system is taken for a local one',
    rules: [15],
    invariant: 'H3',
    changes: [
      {
        file: 'journal/host/real-disk.ts',
        find: '    if (network !== undefined) {',
        replace: "    if (network === '') {",
      },
    ],
    noticedBy: { test: JOURNAL, title: 'a network file system is refused: a lock there proves nothing' },
  },
  {
    name: 'a mark between threads goes back',
    rules: [27],
    invariant: 'P1',
    changes: [
      {
        file: 'journal/shared-marks.ts',
        find: '    assert(to >= present, `mark ${mark} would go back from ${present} to ${to}`);\n',
        replace: '    assert(present >= 0, `mark ${mark} would go back from ${present} to ${to}`);\n',
      },
    ],
    noticedBy: { test: JOURNAL, title: 'marks in shared memory wake the other thread and are never seen early' },
  },
];
