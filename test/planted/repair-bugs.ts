import type { PlantedBug } from './planted-bug.ts';

const JOURNAL_MEND = 'test/journal/mend.test.ts';
const SOURCE_MEND = 'test/ship/mending.test.ts';
const REPLICA_REPAIR = 'test/replica/repair.test.ts';

const AT_A_START = 'whatever was lost of a journal is put back in its place, at a start';
const ONLY_WHAT_AGREES =
  'what the far side gives back is written only when it agrees with everything that can be read here';
const OVERLAY = {
  test: 'test/source/mending.test.ts',
  title: 'what is found damaged is not read out of the overlay; put back above the checkpoint, the group opens anew',
};
const DAMAGED_LIST = {
  test: 'test/replica/damaged-list.test.ts',
  title: 'a frame without its record list: no point behind it is shown until it is back, the catalog loses nothing',
};
const REPLICA_PUTS_BACK = 'damaged frames are named, do not stop the group, and are put back from the far side';

/** Bugs in what puts damaged history back from the other side: wrong records, the wrong place, too early, too late. */
export const REPAIR_BUGS: readonly PlantedBug[] = [
  {
    name: 'a repair of the journal does not look at the chain behind it',
    rules: [26],
    invariant: 'R2',
    changes: [
      {
        file: 'daemon/ship/mend-stretch.ts',
        find: '    if (behind !== undefined && holds(view, behind.lsn)) {',
        replace: '    if (behind !== undefined && behind.lsn < 0) {',
      },
    ],
    noticedBy: { test: SOURCE_MEND, title: ONLY_WHAT_AGREES },
  },
  {
    name: 'a repair of the journal does not look at the records beside it',
    rules: [26],
    invariant: 'R2',
    changes: [
      {
        file: 'daemon/ship/mend-stretch.ts',
        find: '        before.every((byte, at) => entryAt(view, fromLsn - 1)[at] === byte),',
        replace: '        before.length > 0,',
      },
      {
        file: 'daemon/ship/mend-stretch.ts',
        find: '        after.every((byte, at) => entryAt(view, toLsn + 1)[at] === byte),',
        replace: '        after.length > 0,',
      },
    ],
    noticedBy: {
      test: SOURCE_MEND,
      title: 'where no chain leads to the damage, the records beside it say whether what comes is ours',
    },
  },
  {
    name: 'a repair of the journal writes before everything is proven',
    rules: [26],
    invariant: 'R2',
    changes: [
      {
        file: 'daemon/ship/mend-stretch.ts',
        find: `      const proven = await proveRecords(host, options, sink, stretch);
      return await write(journal, stretch, readAgain(host, options, sink, stretch, proven));`,
        replace: `      const bytes = await write(journal, stretch, fetchFrames(host, options, sink, stretch.fromLsn, stretch.toLsn));
      const proven = await proveRecords(host, options, sink, stretch);
      void [proven, readAgain];
      return bytes;`,
      },
    ],
    noticedBy: { test: SOURCE_MEND, title: ONLY_WHAT_AGREES },
  },
  {
    name: 'a repair of the journal moves what others point at',
    rules: [26],
    invariant: 'R2',
    changes: [
      {
        file: 'journal/stretch-writer.ts',
        find: '    this.#anchors = [...stretch.anchors];',
        replace: '    this.#anchors = stretch.anchors.slice(stretch.anchors.length);',
      },
    ],
    noticedBy: {
      test: JOURNAL_MEND,
      title: 'what points into a damaged stretch points at the same record afterwards, also in a running journal',
    },
  },
  {
    name: 'the last repaired batch is called by its own checksum',
    rules: [2, 26],
    invariant: 'R1',
    changes: [
      {
        file: 'journal/stretch-writer.ts',
        find: '    this.#closeAt(resumeAddress, resumeChain);',
        replace: '    this.#closeAt(resumeAddress, resumeChain < 0 ? resumeChain : undefined);',
      },
    ],
    noticedBy: { test: JOURNAL_MEND, title: AT_A_START },
  },
  {
    name: 'a repaired batch proves a durable end',
    rules: [3, 26],
    invariant: 'R2',
    changes: [
      {
        file: 'journal/batch-codec.ts',
        find: 'durableLsn: repaired ? 0 : readU64(',
        replace: "durableLsn: repaired ? readU64(scratchView, 24, 'durable LSN') : readU64(",
      },
    ],
    noticedBy: { test: JOURNAL_MEND, title: AT_A_START },
  },
  {
    name: 'a repair of the journal is not synced',
    rules: [1, 26],
    invariant: 'D5',
    changes: [
      {
        file: 'journal/stretch-writer.ts',
        find: '    for (const file of this.#files.values()) await file.dataSync();\n',
        replace: '',
      },
    ],
    noticedBy: { test: JOURNAL_MEND, title: 'a repair is synced, in every file, before it counts as done' },
  },
  {
    name: 'what a power loss left of a repair stays apart from what stands behind it',
    rules: [2, 26],
    invariant: 'R2',
    changes: [
      {
        file: 'journal/stretch-writer.ts',
        find: '      if (chain !== undefined && chain !== this.#chain) this.#rename(chain);\n',
        replace: '',
      },
    ],
    noticedBy: {
      test: JOURNAL_MEND,
      title: 'whatever a power loss leaves of a repair, sector by sector, is mended by the next',
    },
  },
  {
    name: 'what of a repair cannot be read is taken for written again',
    rules: [14, 26],
    invariant: 'D5',
    changes: [
      {
        file: 'journal/mending-note.ts',
        find: '  await endMending(disk, directory, left && { groupId, ...left });',
        replace: '  await endMending(disk, directory, left && undefined);',
      },
    ],
    noticedBy: {
      test: JOURNAL_MEND,
      title:
        'a noted place with sectors that cannot be read: the start goes on, what can be read is written again, the rest stays damaged and noted',
    },
  },
  {
    name: 'after a repair above the checkpoint the overlay points at what stood there before',
    rules: [26],
    invariant: 'D6',
    changes: [
      {
        file: 'daemon/source/mending.ts',
        find: "      if (resumeAddress <= group.journal.marks.address('checkpoint')) return;",
        replace: "      if (resumeAddress > group.journal.marks.address('checkpoint')) return;",
      },
    ],
    noticedBy: OVERLAY,
  },
  {
    name: 'bytes of a damaged stretch are read out of the overlay',
    rules: [26],
    invariant: 'D6',
    changes: [
      {
        file: 'daemon/volume/unreadable-stretches.ts',
        find: '      if (address >= to || address + bytes <= from) continue;',
        replace: '      if (address >= to || address + bytes >= 0) continue;',
      },
    ],
    noticedBy: OVERLAY,
  },
  {
    name: 'the replica puts back a frame that nothing proves',
    rules: [26],
    invariant: 'R2',
    changes: [{ file: 'replica/repair/frame-repair.ts', find: '      await this.#prove(frame, ref);\n', replace: '' }],
    noticedBy: {
      test: REPLICA_REPAIR,
      title: 'frames with other records are never put in place of damaged ones',
    },
  },
  {
    name: 'chunks of a damaged frame are kept for the one that stands in for it',
    rules: [26],
    invariant: 'V1',
    changes: [
      {
        file: 'replica/store/frame-reader.ts',
        find: '  return `${segment}:${offset}:${standIn ?? 0}:${chunk}`;',
        replace: '  return `${segment}:${offset}:${chunk}`;',
      },
    ],
    noticedBy: { test: REPLICA_REPAIR, title: REPLICA_PUTS_BACK },
  },
  {
    name: 'index runs that were built past a missing frame are kept',
    rules: [26],
    invariant: 'P1',
    changes: [
      {
        file: 'replica/index/version-index.ts',
        find: 'const newest = Math.min(options.headLsn, (options.unindexedFrom ?? Number.POSITIVE_INFINITY) - 1);',
        replace: 'const newest = options.headLsn;',
      },
    ],
    noticedBy: DAMAGED_LIST,
  },
  {
    name: 'a view is read though the index lacks a frame',
    rules: [26],
    invariant: 'V1',
    changes: [
      {
        file: 'replica/view/history-reader.ts',
        find: '    if (from === undefined || from > atLsn) return;',
        replace: '    if (from === undefined || from > 0) return;',
      },
    ],
    noticedBy: DAMAGED_LIST,
  },
  {
    name: 'what a replica asks for again is trimmed',
    rules: [22, 26],
    invariant: 'P3',
    changes: [
      {
        file: 'daemon/ship/replica-registry.ts',
        find: '        damagedFrom >= oldestLsn && damagedFrom > 0 ? Math.min(least, damagedFrom - 1) : least,',
        replace: '        damagedFrom >= oldestLsn && damagedFrom < 0 ? Math.min(least, damagedFrom - 1) : least,',
      },
    ],
    noticedBy: {
      test: SOURCE_MEND,
      title: 'what a replica asks for again is not trimmed from the topic as long as it asks',
    },
  },
  {
    name: 'the catalog forgets what it knew above every damaged frame',
    rules: [26],
    invariant: 'B1',
    changes: [
      {
        file: 'replica/replica-recovery.ts',
        find: 'Math.min(headLsn, (uncataloguedFrom ?? headLsn + 1) - 1)',
        replace: 'Math.min(headLsn, (unindexedFrom ?? headLsn + 1) - 1)',
      },
    ],
    noticedBy: DAMAGED_LIST,
  },
  {
    name: 'a replica asks for ever for what nobody has',
    rules: [22, 26],
    invariant: 'P3',
    changes: [
      {
        file: 'replica/repair/frame-repair.ts',
        find: '.filter(({ fromLsn }) => !isFinal(this.#refusals.get(fromLsn)));',
        replace: '.filter(({ fromLsn }) => fromLsn < 0 || !isFinal(undefined));',
      },
    ],
    noticedBy: {
      test: REPLICA_REPAIR,
      title: 'what nobody has any more stays named and is asked for no longer; history goes on',
    },
  },
];
