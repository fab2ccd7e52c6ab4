import { hasCode, type TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import { readStateFile, StateFields, type StatePlace, writeStateFile } from '../volume/state-file.ts';
import { DEGREE_STATES, type DegreeState } from './degree-machine.ts';
import { ACK_ANSWERS, ACK_DEGREES, type BrokenStretch, type DegreePolicy, STALL_ACTIONS } from './degree-policy.ts';

/** What the next start has to know of a group's degree of synchrony: `degree.state` beside the journal. */
export interface DegreeRecord {
  readonly policy: DegreePolicy;
  /** The configuration's when `policy` was chosen: another one there since wins over what an operator had said. */
  readonly configured: DegreePolicy;
  /** To be in force as soon as no replica relies on `policy` any more. */
  readonly next: DegreePolicy | undefined;
  readonly state: DegreeState;
  /** 0: the promise holds. */
  readonly brokenFromLsn: Lsn;
  /** A replica may rely on the promise for so long after a state of its that was taken. */
  readonly leaseMs: number;
  /** The newest stretches that are over. */
  readonly stretches: readonly BrokenStretch[];
}

const NAME = 'degree.state';

/**
 * Undefined when there is none; the error when it cannot be believed: then nobody knows what replicas rely on. Throws
 * `journal-foreign`, `format-too-new`.
 */
export function readDegree(host: Host, place: StatePlace): DegreeRecord | TidemarkError | undefined {
  try {
    const value = readStateFile(host, place, NAME);
    return value === undefined ? undefined : recordOf(`${place.directory}/${NAME}`, value);
  } catch (error) {
    if (hasCode(error, 'journal-damaged')) return error;
    throw error;
  }
}

/** Durable when it resolves. Calls must not overlap. */
export async function writeDegree(host: Host, place: StatePlace, record: DegreeRecord): Promise<void> {
  const { next, ...others } = record;
  await writeStateFile(host, place, NAME, next === undefined ? others : { ...others, next });
}

function recordOf(path: string, value: unknown): DegreeRecord {
  const fields = new StateFields(path, value);
  const policy = (name: string): DegreePolicy => policyOf(new StateFields(path, fields.map(name)));
  return {
    policy: policy('policy'),
    configured: policy('configured'),
    next: fields.has('next') ? policy('next') : undefined,
    state: fields.oneOf('state', DEGREE_STATES),
    brokenFromLsn: fields.count('brokenFromLsn'),
    leaseMs: fields.count('leaseMs'),
    stretches: fields.list('stretches').map((entry) => {
      const one = new StateFields(path, entry);
      return { fromLsn: one.count('fromLsn'), toLsn: one.count('toLsn'), reason: one.text('reason') };
    }),
  };
}

function policyOf(fields: StateFields): DegreePolicy {
  return {
    ack: fields.oneOf('ack', ACK_DEGREES),
    ackAt: fields.oneOf('ackAt', ACK_ANSWERS),
    onStall: fields.oneOf('onStall', STALL_ACTIONS),
    stallAfterMs: fields.count('stallAfterMs'),
    unshippedBytesMax: fields.count('unshippedBytesMax'),
  };
}
