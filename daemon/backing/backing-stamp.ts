import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import { readStateFile, StateFields, type StatePlace, writeStateFile } from '../volume/state-file.ts';
import type { BackingIdentity } from './backing.ts';

/**
 * What is known about a volume's backing when the daemon does not hold it (DESIGN rule 8).
 *
 * `dirty`: the daemon was writing it; it is one whole only together with the journal above the checkpoint.
 * `clean`: the daemon stopped in order; still only one whole with the journal.
 * `detached`: a plain disk, everything up to `lsn` is in it and synced.
 */
export type StampState = 'dirty' | 'clean' | 'detached';

export interface BackingStamp {
  readonly state: StampState;
  readonly lsn: Lsn;
  readonly identity: BackingIdentity;
}

const STATES: readonly StampState[] = ['dirty', 'clean', 'detached'];
const KINDS: readonly BackingIdentity['kind'][] = ['file', 'block-device', 'nbd', 'memory'];

/** The identity of a backing that has none of its own (a memory device of a test). */
export function plainIdentity(size: number): BackingIdentity {
  return { kind: 'memory', location: '', node: '', size, modifiedNanos: '' };
}

export function readStamp(host: Host, place: StatePlace, volume: number): BackingStamp | undefined {
  const value = readStateFile(host, place, stampName(volume));
  if (value === undefined) return undefined;
  const fields = new StateFields(`${place.directory}/${stampName(volume)}`, value);
  return {
    state: fields.oneOf('state', STATES),
    lsn: fields.count('lsn'),
    identity: {
      kind: fields.oneOf('kind', KINDS),
      location: fields.text('location'),
      node: fields.text('node'),
      size: fields.count('size'),
      modifiedNanos: fields.text('modifiedNanos'),
    },
  };
}

/** Durable when the promise resolves. */
export async function writeStamp(host: Host, place: StatePlace, volume: number, stamp: BackingStamp): Promise<void> {
  const { identity, lsn, state } = stamp;
  await writeStateFile(host, place, stampName(volume), { state, lsn, ...identity });
}

/**
 * Throws `backing-changed` when the disk cannot be the one the stamp was made of, or was written to since. Where it
 * lies does not matter. A dirty stamp says less: our own writes came after it, so only another disk is noticed.
 */
export function checkStamp(volume: string, stamp: BackingStamp, found: BackingIdentity, lastLsn: Lsn): void {
  const { identity } = stamp;
  const refuse = (what: string): never => {
    throw new TidemarkError('backing-changed', `volume ${volume}: changed outside, needs resync: ${what}`, {
      details: { volume, location: found.location },
    });
  };
  if (stamp.lsn > lastLsn) {
    refuse(`the disk holds record ${stamp.lsn}, the journal ends at ${lastLsn}`);
  }
  if (identity.kind !== found.kind) refuse(`it was a ${identity.kind} and is a ${found.kind}`);
  if (identity.size !== found.size) refuse(`it had ${identity.size} bytes and has ${found.size}`);
  if (identity.node !== found.node) refuse('it is another file');
  if (stamp.state !== 'dirty' && identity.modifiedNanos !== found.modifiedNanos) {
    refuse('it was written to while the daemon did not hold it');
  }
}

function stampName(volume: number): string {
  return `volume-${volume}.stamp`;
}
