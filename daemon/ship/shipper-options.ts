import type { SealerOptions } from '../../journal/frame-sealer.ts';
import type { Journal } from '../../journal/journal.ts';
import type { Marks } from '../../journal/marks.ts';
import type { JournalAddress } from '../../journal/position.ts';
import type { FrameSink, SourceIdentity } from '../../journal/stream.ts';
import type { ChainCheckpoint } from './chain-checkpoints.ts';
import type { MenderOptions } from './journal-mender.ts';
import type { RegisteredReplica } from './replica-registry.ts';
import type { LocalSealing, SealRunner } from './seal-runner.ts';
import type { ShipDelay } from './ship-pace.ts';

export interface ShipperOptions {
  /** The journal's: ship.state lies there. */
  readonly directory: string;
  readonly journal: Journal;
  readonly marks: Marks;
  /** Of this run: after `Journal.begin`. */
  readonly identity: SourceIdentity;
  /** Not opened yet: one for a topic, one per replica over direct. */
  readonly sinks: readonly FrameSink[];
  /** At least one is required. */
  readonly replicas: readonly RegisteredReplica[];
  readonly sealer?: Partial<SealerOptions>;
  /** Where a lane's reading and sealing is done; on the caller's thread when left out. */
  readonly sealing?: (sealer: SealerOptions, local: LocalSealing) => SealRunner;
  /** Where history ends that was given up, as the change map has it: ship.state may have had no room for it. */
  readonly givenUp?: { readonly address: JournalAddress; readonly end?: Omit<ChainCheckpoint, 'address'> } | undefined;
  /** Default 25. */
  readonly lingerMs?: number;
  /** How far shipping may be put off while guests write fast; default 2 s and 512 MiB. */
  readonly delay?: ShipDelay;
  /** Answers to guests wait for the far side: then nothing is put off. */
  readonly isAwaited?: () => boolean;
  /** For each sink whether a required replica reads from it; all when left out: a topic is read by every replica. */
  readonly requiredSinks?: readonly boolean[];
  /** Somebody may hold more now, or less. */
  readonly onFar?: () => void;
  /** Who else relies on places in the journal, and on what stands there; nobody when left out. */
  readonly mending?: Partial<Pick<MenderOptions, 'anchors' | 'onDamaged' | 'onMended'>>;
}
