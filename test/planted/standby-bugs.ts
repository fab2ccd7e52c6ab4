import type { PlantedBug } from './planted-bug.ts';
import { both, type OptionBias, striking } from './striking.ts';

const TEST = 'test/replica/standby.test.ts';
const KILLED =
  'killed before or behind any change of its files, the image is one position or stamped as none, and the next start ends at the head';
const AGAIN = 'killed while what a kill left is written again, it is stamped as a mixture until all of it is';

/** A replica with a standby image, and guests that write to few places over and over. */
const standing: OptionBias = (options) => ({
  ...options,
  apply: 'sync',
  actMicros: 4_000,
  habits: { ...options.habits, places: 'hot', sectorsMax: 8 },
});

/** Bugs in the standby image of a replica. */
export const STANDBY_BUGS: readonly PlantedBug[] = [
  {
    name: 'the newest change of a place is written before older ones of others',
    rules: [],
    invariant: 'B2',
    changes: [
      {
        file: 'replica/standby/ordered-effects.ts',
        find: '      yield effects;',
        replace: '      yield effects.toReversed();',
      },
    ],
    noticedBy: { simulation: both(striking('kill-replica'), standing) },
  },
  {
    name: 'a piece is applied before its request is whole',
    rules: [5],
    invariant: 'B2',
    changes: [
      {
        file: 'replica/standby/ordered-effects.ts',
        find: '        for (const effect of this.#pieces.feed(record, {',
        replace: '        for (const effect of this.#pieces.feed({ ...record, flags: 0 }, {',
      },
    ],
    noticedBy: { test: TEST, title: KILLED },
  },
  {
    name: 'an exact stamp stays while the image is written to',
    rules: [],
    invariant: 'B2',
    changes: [
      {
        file: 'replica/standby/standby-image.ts',
        find: "if (this.#stamp?.state === 'settled') await",
        replace: "if (this.#stamp?.state === 'copying') await",
      },
    ],
    noticedBy: { simulation: both(striking('kill-replica'), standing) },
    quick: true,
  },
  {
    name: 'what a kill left is written again without a stamp that says so',
    rules: [],
    invariant: 'B2',
    changes: [
      {
        file: 'replica/standby/standby-image.ts',
        find: "      await this.#write({ state: 'settling', settleToLsn });\n      await this.#applyTo",
        replace: '      await this.#applyTo',
      },
    ],
    noticedBy: { test: TEST, title: AGAIN },
  },
  {
    name: 'the image is told as applied before it is synced',
    rules: [],
    invariant: 'B2',
    changes: [
      {
        file: 'replica/standby/standby-image.ts',
        find: '        await this.#applyTo(goal);\n        await this.#files.sync();\n',
        replace: '        await this.#applyTo(goal);\n',
      },
    ],
    noticedBy: { simulation: both(striking('power-replica'), standing) },
  },
  {
    name: 'an image is stamped as exact before it is synced',
    rules: [],
    invariant: 'B2',
    changes: [
      {
        file: 'replica/standby/standby-files.ts',
        find: '    for (const file of this.#dirty) await file.dataSync();\n',
        replace: '',
      },
    ],
    noticedBy: { simulation: both(striking('power-replica'), standing) },
  },
  {
    name: 'history ages out under an image that is behind',
    rules: [],
    invariant: 'V2',
    changes: [
      {
        file: 'replica/standby/standby-image.ts',
        find: "    const release = this.#parts.leases.take(lsn, 'reader', 'the standby image');",
        replace: '    const release = (): void => void lsn;',
      },
    ],
    noticedBy: {
      test: TEST,
      title:
        'an image that begins late is copied at first, from the base and history, and goes on where a kill stopped it',
    },
  },
  {
    name: 'a standby image steps over history that is gone',
    rules: [],
    invariant: 'B2',
    changes: [
      {
        file: 'replica/standby/ordered-effects.ts',
        find: 'if (layout.firstLsn > this.#nextLsn) await',
        replace: 'if (layout.firstLsn < 0) await',
      },
    ],
    noticedBy: {
      test: TEST,
      title: 'history that is gone with its segment is not stepped over: the image stays before it and says so',
    },
  },
  {
    name: 'a standby image forgets the request that a damaged frame closes',
    rules: [],
    invariant: 'B2',
    changes: [
      {
        file: 'replica/standby/ordered-effects.ts',
        find: '    return this.#readFromLsn;',
        replace: '    return Math.min(this.#pieces.oldestOpen() ?? this.#nextLsn, this.#nextLsn);',
      },
    ],
    noticedBy: {
      test: TEST,
      title:
        'before a frame that cannot be read the image is exact, is not written again by each try, and goes on from there',
    },
  },
  {
    name: 'a standby image calls a volume a point that is being seeded',
    rules: [],
    invariant: 'B2',
    changes: [
      {
        file: 'replica/standby/standby-image.ts',
        find: 'one.fromLsn <= lsn &&',
        replace: 'one.fromLsn <= fromLsn &&',
      },
    ],
    noticedBy: {
      test: TEST,
      title: 'while a volume is seeded anew no stamp of the image calls it a point, whenever a kill comes',
    },
  },
];
