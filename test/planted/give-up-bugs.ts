import type { PlantedBug } from './planted-bug.ts';

const GIVE_UP = 'daemon/ship/give-up.ts';
const SOURCE_GIVE_UP = 'test/ship/give-up.test.ts';
const PUT_BACK_FIRST = {
  test: SOURCE_GIVE_UP,
  title:
    'what a replica still holds of the lost records is put back, in place of the rest stands a gap, and shipping goes on',
};
const WHILE_SOMEBODY_MAY = {
  test: SOURCE_GIVE_UP,
  title: 'nothing is given up while somebody may hold it: the word waits, the damage stays, no volume is seeded',
};
const KILLED = {
  test: SOURCE_GIVE_UP,
  title: 'at any write or sync of giving up: the damage is there with the word, or the gap with the seed behind it',
};
const SEED_ANEW = {
  test: 'test/volume/seed-anew.test.ts',
  title:
    'seeded anew: what the journal alone holds goes into the disks first, zeroes are told before the first block, the disks stay as they are',
};

/** Bugs in giving up what nobody holds, and in the new seed behind it. */
export const GIVE_UP_BUGS: readonly PlantedBug[] = [
  {
    name: 'the volumes are marked for a new seed only when the gap is written',
    rules: [11, 26],
    invariant: 'R2',
    changes: [
      { file: GIVE_UP, find: '  await options.seedAllAnew();\n', replace: '' },
      {
        file: GIVE_UP,
        find: '  await writeGap(host, asking, stretch, held, { fromLsn: from, toLsn, reason: word.reason });\n',
        replace:
          '  await writeGap(host, asking, stretch, held, { fromLsn: from, toLsn, reason: word.reason });\n  await options.seedAllAnew();\n',
      },
    ],
    noticedBy: KILLED,
  },
  {
    name: 'records are given up though somebody said that he holds them',
    rules: [26],
    invariant: 'R5',
    changes: [{ file: GIVE_UP, find: '  if (options.heldLsn >= from) {', replace: '  if (options.heldLsn < 0) {' }],
    noticedBy: WHILE_SOMEBODY_MAY,
  },
  {
    name: 'records are given up though somebody could not be asked',
    rules: [26],
    invariant: 'R5',
    changes: [{ file: GIVE_UP, find: '  if (!options.allAnswered) return', replace: "  if (lost === '') return" }],
    noticedBy: WHILE_SOMEBODY_MAY,
  },
  {
    name: 'records are given up that the disks lack',
    rules: [26],
    invariant: 'D1',
    changes: [
      {
        file: GIVE_UP,
        find: '  if (stretch.resumeAddress > writtenOutTo) return',
        replace: '  if (stretch.resumeAddress > writtenOutTo * Infinity) return',
      },
    ],
    noticedBy: WHILE_SOMEBODY_MAY,
  },
  {
    name: 'what is left of records that are given up is not put back',
    rules: [26],
    invariant: 'R2',
    changes: [
      {
        file: GIVE_UP,
        find: '      if (proven !== undefined) best = { toLsn, sink, proven };',
        replace: '      if (proven === undefined) best = { toLsn, sink };',
      },
    ],
    noticedBy: PUT_BACK_FIRST,
  },
  {
    name: 'chains that were known behind a gap are believed',
    rules: [17, 26],
    invariant: 'R5',
    changes: [
      {
        file: GIVE_UP,
        find: '  if (known.length < checkpoints.list.length) await saveShipState(host.disk, directory, groupId, known);\n',
        replace: '  void [known, groupId, directory, saveShipState];\n',
      },
    ],
    noticedBy: PUT_BACK_FIRST,
  },
  {
    name: 'an empty batch mended at the beginning of a file goes back in time',
    rules: [7, 26],
    invariant: 'R2',
    changes: [
      {
        file: 'journal/damaged-stretch.ts',
        find: '      time: Math.max(time, fileHeader?.time ?? 0),',
        replace: '      time,',
      },
    ],
    noticedBy: {
      test: 'test/journal/mend.test.ts',
      title: 'at the beginning of the oldest file no time is known but that of its header',
    },
  },
  {
    name: 'any seed that ends behind a gap makes points of what follows',
    rules: [11],
    invariant: 'P3',
    changes: [
      {
        file: 'replica/catalog/catalog.ts',
        find: '      stretch.toLsn === 0 && stretch.blankLsn !== 0 ? { ...stretch, toLsn: lsn } : stretch,',
        replace: '      stretch.toLsn === 0 ? { ...stretch, toLsn: lsn } : stretch,',
      },
    ],
    noticedBy: {
      test: 'test/replica/unsettled.test.ts',
      title:
        'lost records: no point from the first of them on, whatever seed ends behind them, until one that began behind them with a blank',
    },
  },
  {
    name: 'a seed behind a gap leaves out zeroes, so that older bytes shine through',
    rules: [11],
    invariant: 'V1',
    changes: [
      {
        file: 'daemon/volume/seeding.ts',
        find: '  if (options.anew && options.from === 0) await appendBlank(options);\n',
        replace: '  void appendBlank;\n',
      },
    ],
    noticedBy: SEED_ANEW,
  },
  {
    name: 'a seed behind a gap reads disks that the journal is ahead of',
    rules: [8, 11],
    invariant: 'P1',
    changes: [
      {
        file: 'daemon/volume/group-seeding.ts',
        find: '    await Promise.race([this.#drain(), this.#interrupted()]);\n',
        replace: '    void [this.#drain, this.#interrupted];\n',
      },
    ],
    noticedBy: SEED_ANEW,
  },
];
