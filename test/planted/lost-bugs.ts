import type { GiveUpOptions } from '../simulation/give-up-options.ts';
import type { PlantedBug } from './planted-bug.ts';
import { both, type OptionBias, striking } from './striking.ts';

const GIVE_UP = 'daemon/ship/give-up.ts';
const PLAN = 'daemon/source/give-up-plan.ts';
const KIB = 1024;

/** A short run without other faults, at whose end records are lost for good. */
function givingUp(changed: Partial<GiveUpOptions>): OptionBias {
  return both(striking(), (options) => ({
    ...options,
    activeMicros: 500_000,
    journalFileBytes: Math.max(options.journalFileBytes, 512 * KIB),
    giveUp: {
      rounds: 1,
      nobodyBy: 'replica-down',
      rots: 'down',
      stretches: 2,
      beginsHeld: false,
      refused: [],
      waits: false,
      arrivesAfterAll: false,
      ends: 'kill',
      crashes: [],
      ...changed,
    },
  }));
}

/** Bugs around records that nobody holds any more; most are noticed by the simulation. */
export const LOST_BUGS: readonly PlantedBug[] = [
  {
    name: 'a word is taken though a replica that may hold the records is away',
    rules: [26],
    invariant: 'G5',
    changes: [{ file: PLAN, find: '  refuseAway(facts);\n', replace: '  void refuseAway;\n' }],
    noticedBy: { simulation: givingUp({ refused: ['away'] }) },
  },
  {
    name: 'a word is taken though the disks lack some of the records',
    rules: [26],
    invariant: 'G5',
    changes: [
      {
        file: PLAN,
        find: '  for (const { stretch } of stretches) refuseNeeded(facts, stretch);\n',
        replace: '  void refuseNeeded;\n',
      },
    ],
    noticedBy: { simulation: givingUp({ refused: ['disks-lack'] }) },
  },
  {
    name: 'the word is dropped before it is carried out',
    rules: [11, 26],
    invariant: 'G6',
    changes: [
      {
        file: GIVE_UP,
        find: '  let mended = 0;\n  for (const told',
        replace: '  let mended = 0;\n  await dropGivenWord(host, { directory, groupId });\n  for (const told',
      },
      {
        file: GIVE_UP,
        find: '  await dropGivenWord(host, { directory, groupId });\n  return { given, mended };',
        replace: '  return { given, mended };',
      },
    ],
    noticedBy: {
      simulation: givingUp({
        crashes: [
          { how: 'losePower', after: 'repair', micros: 0 },
          { how: 'losePower', after: 'repair', micros: 50 },
        ],
      }),
    },
  },
  {
    name: 'damage behind what a word names is taken for more of it',
    rules: [26],
    invariant: 'G6',
    changes: [
      { file: GIVE_UP, find: '    return isBehind ? undefined : at;', replace: '    return isBehind ? at : at;' },
    ],
    noticedBy: {
      test: 'test/ship/give-up.test.ts',
      title:
        'two stretches with nothing but a proof of the end between them are given up, each by its own part of the word',
    },
  },
  {
    name: 'points from a gap on are shown',
    rules: [11],
    invariant: 'G3',
    changes: [
      {
        file: 'replica/catalog/catalog.ts',
        find: '        this.#lose(lsn, `gap ${what}`);\n',
        replace: '',
      },
    ],
    noticedBy: { simulation: givingUp({}) },
  },
];
