import { ALONE } from '../simulation/degree-options.ts';
import type { PlantedBug } from './planted-bug.ts';
import { agingHistory, both, type OptionBias, smallMemtable, striking } from './striking.ts';

/** A replica with a standby image whose mode is another one at each start; so often somebody takes files away at the end. */
function changingImage(taken: number): OptionBias {
  return (options) => ({
    ...options,
    apply: 'sync',
    image: { changes: taken === 0, taken, dies: { times: 10, share: 0.5 } },
    actMicros: 4_000,
    activeMicros: taken === 0 ? options.activeMicros : 1_000_000,
    habits: { ...options.habits, sectorsMax: 8 },
  });
}

/** Guests that wait for the replica, and a directory that cannot be synced when the degree was written down. */
const filing: OptionBias = (options) => ({
  ...options,
  activeMicros: 12_000_000,
  nemesisMicros: 2_000_000,
  network: { ...options.network, latencyMicrosMax: 5_000, cuts: 0 },
  degree: {
    policy: { ack: 'replica', ackAt: 'flush', onStall: 'degrade', stallAfterMs: 2_000, unshippedBytesMax: 1 << 24 },
    changes: false,
    heartbeatMs: 50,
  },
  degreeFile: { share: 0.7 },
});

const twoReplicas = (required: boolean): OptionBias => {
  return (options) => ({ ...options, second: { required }, actMicros: 4_000, journalFiles: 6 });
};

/** The first volume is not empty at the first start, and its image is there from the first. */
const seeding: OptionBias = (options) => ({
  ...options,
  journalFileBytes: 512 * 1024,
  life: { ...options.life, seeded: true },
  apply: 'sync',
  image: { changes: false, taken: 0, dies: { times: 10, share: 0.5 } },
});

/** Views stay open while history ages out under them. */
const heldViews: OptionBias = (options) => ({ ...options, life: { ...options.life, views: true } });

/** At the end records rot that nobody else holds, and the disk of the source fails while they are given up. */
const givingUpOnBadDisks: OptionBias = (options) => ({
  ...options,
  activeMicros: 1_000_000,
  journalFileBytes: 512 * 1024,
  degree: ALONE,
  apply: 'off',
  giveUp: {
    rounds: 1,
    nobodyBy: 'replica-down',
    rots: 'down',
    stretches: 1,
    beginsHeld: false,
    refused: [],
    waits: false,
    arrivesAfterAll: false,
    ends: 'kill',
    crashes: [],
    faults: {
      micros: 3_000_000,
      syncFails: 0.1,
      writeFails: 0.1,
      writeShort: 0,
      readFails: 0,
      full: false,
      replica: false,
    },
  },
});

/** Bugs that show with two replicas, with an image that changes, and with views that are held open. */
export const LATE_BUGS: readonly PlantedBug[] = [
  {
    name: 'the journal keeps what the required replica that is furthest behind does not hold, and no more than that of the first',
    rules: [],
    invariant: 'V2',
    changes: [
      {
        file: 'daemon/ship/replica-registry.ts',
        find: '    return this.#least(this.replicas.filter(({ required }) => required));',
        replace: '    return this.#least(this.replicas.slice(0, 1));',
      },
    ],
    noticedBy: { simulation: both(striking('cut-off-one', 'kill-replica'), twoReplicas(true)) },
    quick: true,
  },
  {
    name: 'a copy of the standby image is called there before it is synced',
    rules: [],
    invariant: 'B2',
    changes: [
      {
        file: 'replica/standby/standby-image.ts',
        find: '        await this.#files.sync();\n        await this.#write({ copied:',
        replace: '        await this.#write({ copied:',
      },
    ],
    noticedBy: { simulation: both(striking('power-replica'), changingImage(0)) },
  },
  {
    name: 'a standby image that history has left behind is gone on from',
    rules: [],
    invariant: 'L1',
    changes: [
      {
        file: 'replica/standby/standby-image.ts',
        find: '    return stamp.lsn >= floorLsn() && !isBehind',
        replace: '    return floorLsn() >= 0 && !isBehind',
      },
    ],
    noticedBy: { simulation: both(both(striking('kill-replica'), changingImage(0)), agingHistory) },
  },
  {
    name: 'an image that is ahead of what is left of history is called a point there',
    rules: [],
    invariant: 'B2',
    changes: [
      {
        file: 'replica/standby/standby-image.ts',
        find: "began === 'applying' ? this.#parts.lostToLsn() :",
        replace: "began === 'applying' ? 0 :",
      },
    ],
    noticedBy: { simulation: both(striking('kill-replica'), changingImage(3)) },
  },
  {
    name: 'a file of the standby image that was taken away is made anew as zeroes',
    rules: [],
    invariant: 'B2',
    changes: [
      {
        file: 'replica/standby/standby-stamp.ts',
        find: '    return isBegun && !disk.exists(`${directory}/${file}`);',
        replace: "    return isBegun && !disk.exists(directory) && file === '';",
      },
      {
        file: 'replica/standby/standby-files.ts',
        find: '    if (isBegun && !isThere) throw',
        replace: "    if (isBegun && !isThere && name === '') throw",
      },
    ],
    noticedBy: { simulation: both(striking('kill-replica'), changingImage(3)) },
  },
  {
    name: 'no stamp of the standby image says that a volume is being seeded',
    rules: [],
    invariant: 'B2',
    changes: [
      {
        file: 'replica/standby/standby-image.ts',
        find: "unsettled: open?.reason ?? said?.unsettled ?? '' };",
        replace: "unsettled: open === undefined ? '' : (said?.unsettled ?? '') };",
      },
    ],
    noticedBy: { simulation: both(striking('kill-replica'), seeding) },
  },
  {
    name: 'a change of the degree that is in the file and not known to be is passed over by leases',
    rules: [],
    invariant: 'P6',
    changes: [
      {
        file: 'daemon/synchrony/degree-keeper.ts',
        find: 'const isSettled = this.#isFiled && this.#changing === undefined;',
        replace: 'const isSettled = this.#changing === undefined;',
      },
      {
        file: 'daemon/synchrony/degree-keeper.ts',
        find: '(this.#record.state !== standing.state || !this.#isFiled)',
        replace: '(this.#record.state !== standing.state)',
      },
    ],
    noticedBy: { simulation: both(striking('partition'), filing) },
  },
  {
    name: 'a read whose segment is taken by retention does not look again in the base',
    rules: [],
    invariant: 'X1',
    changes: [
      {
        file: 'replica/view/history-reader.ts',
        find: "      if (!hasCode(error, 'trimmed') || this.#index.floorLsn === floorLsn) throw error;",
        replace: "      if (hasCode(error, 'trimmed') || this.#index.floorLsn === floorLsn) throw error;",
      },
    ],
    noticedBy: { simulation: both(both(both(striking('idle'), agingHistory), heldViews), smallMemtable) },
  },
  {
    name: 'a disk that fails while a gap is put drops the word of the operator',
    rules: [],
    invariant: 'G1',
    changes: [
      {
        file: 'daemon/ship/give-up.ts',
        find: '      const done = await giveUpAt(host, options, told, at);\n',
        replace:
          '      const done = await giveUpAt(host, options, told, at).catch(() => null);\n      if (done === null) break;\n',
      },
    ],
    noticedBy: { simulation: both(striking(), givingUpOnBadDisks) },
  },
];
