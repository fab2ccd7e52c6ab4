import { SEALER_DEFAULTS } from '../../journal/frame-sealer.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import type { ChainCheckpoints } from './chain-checkpoints.ts';
import { FrameMaker } from './frame-maker.ts';
import { journalFrames } from './journal-frames.ts';
import type { LaneOptions } from './lane.ts';
import { LocalSealing } from './seal-runner.ts';
import { SHIP_DELAY } from './ship-pace.ts';
import type { ShipperOptions } from './shipper-options.ts';

/** What a guest writes record by record, each synced, is a frame forty times a second and not a thousand times. */
const LINGER_MS = 25;

/** What the lanes of a shipper are made of; each call makes one of its own, with its own sealing. */
export function laneMaker(host: Host, options: ShipperOptions, checkpoints: ChainCheckpoints): () => LaneOptions {
  const { identity, marks, journal } = options;
  const sealer = { ...SEALER_DEFAULTS, ...options.sealer };
  const makeFrames = () => new FrameMaker((from) => journal.reader(from), journal.fileBytes, identity, sealer);
  return () => {
    const local = new LocalSealing(makeFrames);
    return {
      journal,
      marks,
      clock: host.clock,
      identity,
      frameBytes: sealer.targetBytes,
      lingerMs: options.lingerMs ?? LINGER_MS,
      delay: options.delay ?? SHIP_DELAY,
      isAwaited: options.isAwaited ?? (() => false),
      checkpoints,
      framesFrom: (fromLsn: Lsn) => journalFrames(journal, checkpoints, identity, fromLsn),
      sealing: options.sealing?.(sealer, local) ?? local,
    };
  };
}
