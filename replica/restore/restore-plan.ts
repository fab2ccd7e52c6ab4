import type { ErrorCode } from '../../journal/base/errors.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { VolumeAt } from '../catalog/volume-at.ts';
import type { Choice } from './restore-target.ts';
import { type TargetFacts, type TargetSpec, targetName } from './restore-target-port.ts';

export interface RestoreRequest {
  readonly volume: VolumeAt;
  readonly choice: Choice;
  readonly spec: TargetSpec;
  readonly facts: TargetFacts;
  readonly overwrite: boolean;
  readonly verify: boolean;
  readonly readers: number;
  /** Bytes that hold data at the position; the others are zeroes. */
  readonly dataBytes: number;
}

export interface RestorePlan extends RestoreRequest {
  /** Why it may not be done; empty: it may. */
  readonly refusals: readonly { readonly code: ErrorCode; readonly reason: string }[];
}

/** Decides and changes nothing: `--dry-run` prints it, `runRestore` does it. */
export function planRestore(request: RestoreRequest): RestorePlan {
  const { facts, spec, volume, overwrite } = request;
  const name = targetName(spec);
  const refusals: { code: ErrorCode; reason: string }[] = [];
  const refuse = (code: ErrorCode, reason: string): void => {
    refusals.push({ code, reason });
  };
  if (facts.ours !== '') refuse('target-is-ours', `${name} is ${facts.ours}`);
  if (facts.mountedAt !== '') refuse('target-in-use', `${name} is mounted at ${facts.mountedAt}`);
  if (facts.heldBy !== '') refuse('target-in-use', `${name} is open elsewhere: ${facts.heldBy}`);
  const isFile = spec.kind === 'raw' || spec.kind === 'qcow2';
  if (facts.exists && !overwrite) {
    const what = isFile ? 'exists' : 'is a device whose content would be lost';
    refuse('target-exists', `${name} ${what}: --overwrite says that it may be replaced`);
  }
  if (!isFile && !facts.exists) refuse('not-found', `${name} is not there`);
  if (!isFile && facts.exists && facts.size < volume.size) {
    refuse('target-too-small', `${name} has ${facts.size} bytes, the volume has ${volume.size}`);
  }
  return { ...request, refusals };
}

/** Throws the first refusal. */
export function assertAllowed(plan: RestorePlan): void {
  const refusal = plan.refusals[0];
  if (refusal === undefined) return;
  throw new TidemarkError(refusal.code, plan.refusals.map(({ reason }) => reason).join('; '));
}

/** The plan in words, one line each. */
export function describePlan(plan: RestorePlan): string[] {
  const { volume, choice, spec, dataBytes, readers, verify, refusals } = plan;
  return [
    `position  ${choice.text}`,
    `volume    ${volume.name}, ${volume.size} bytes`,
    `target    ${spec.kind} ${targetName(spec)}`,
    `copy      ${dataBytes} bytes of data with ${readers} readers; ${volume.size - dataBytes} bytes of zeroes are not copied`,
    `verify    ${verify ? 'every byte is read back and compared by hash' : 'no'}`,
    ...refusals.map(({ code, reason }) => `refused   ${code}: ${reason}`),
  ];
}
