import type { Journal, JournalOptions } from '../../journal/journal.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import type { Backing } from '../backing/backing.ts';
import type { DegreePolicy, DegreeTimes } from '../synchrony/degree-policy.ts';
import type { ChainAtEnd } from './change-map.ts';
import type { HolderPatience } from './throttle.ts';

export interface VolumeOptions {
  readonly name: string;
  /** Of a new volume; the next free one when left out. Ids are never used again. */
  readonly id?: number;
  /** Belongs to the group once `open` has resolved: the group closes it. */
  readonly backing: Backing;
  /** Bytes; when given it must be the backing's. */
  readonly size?: number;
  /** A new volume that is not empty: journal its content before its export opens. */
  readonly seed?: boolean;
}

/**
 * What happens when the journal's budget is spent because what is in it was not shipped. `block`: the guest waits.
 * `stop-protecting`: history is given up, the guest goes on (DESIGN rule 13).
 */
export type OutOfRoomPolicy = 'block' | 'stop-protecting';

export interface GroupOptions {
  readonly journal: JournalOptions;
  readonly volumes: readonly VolumeOptions[];
  /** Memory for the overlays of all volumes; writers are slowed down before it is spent. */
  readonly overlayBytesMax: number;
  readonly outOfRoom: OutOfRoomPolicy;
  /** What guests' answers wait for; `local` when left out. */
  readonly degree?: DegreePolicy;
  readonly degreeTimes?: DegreeTimes;
  /** After a power loss: keep remote guests out until `release`, or let them go on (rule 12); hold-remote. */
  readonly afterPowerLoss?: 'hold-remote' | 'serve';
  /** Payload bytes sorted together on their way to the backings; 16 MiB. */
  readonly destageWindowBytes?: number;
  /** Journal bytes between two syncs of the backings; an eighth of the budget, at most 256 MiB. */
  readonly flushBytes?: number;
  /** ... or this long after the last write to them; 5 s. */
  readonly flushAgeMs?: number;
  /** Between two HEARTBEAT records (rule 7); 1 s. */
  readonly heartbeatMs?: number;
  /** With a client that holds all of the room by a request that has not arrived whole; 3 s when silent, 30 s in all. */
  readonly holderPatience?: HolderPatience;
  /**
   * Asks the far side what it holds before a cut is accepted (rule 4), and puts back what was lost here (`journal
   * .restoreRecords`). Called once, before the first record of this run. Undefined: nobody could be asked. `seedAllAnew`
   * is to be awaited before records are given up: every volume is seeded anew from then on.
   */
  readonly settle?: (
    journal: Journal,
    seedAllAnew: () => Promise<void>,
  ) => Promise<{ readonly highestLsn: Lsn } | undefined>;
  /**
   * The journal below this end of a file is about to be overwritten, whoever does not hold it. Resolves to the chain there,
   * which is kept with the change map: that has its room when nothing else has. Undefined: it cannot be told.
   */
  readonly beforeGivingUp?: (end: JournalAddress) => Promise<ChainAtEnd | undefined>;
  /** The write-out to the backings stands still: the journal cannot be read at this address. */
  readonly onUnreadable?: (address: JournalAddress) => void;
}

export const DESTAGE_WINDOW_BYTES: number = 16 * 1024 * 1024;
/** Waits at most to be written out while guests write fast: a start after a kill reads it again, at some GB/s. */
export const DESTAGE_LAG_BYTES_MAX: number = 2 * 1024 ** 3;
/**
 * Each sync of the backings makes a checkpoint durable, and with it all that anybody has allocated on that file system: guests
 * that write meanwhile may wait for it.
 */
export const FLUSH_BYTES_MAX: number = 256 * 1024 * 1024;
export const FLUSH_AGE_MS = 5_000;
export const HEARTBEAT_MS = 1_000;
