import type { BlockDevice } from '../../journal/block-device.ts';

/** Where a restore writes. */
export type TargetSpec =
  | { readonly kind: 'raw' | 'qcow2'; readonly path: string }
  | { readonly kind: 'block-device'; readonly path: string }
  | { readonly kind: 'nbd'; readonly uri: string };

/** What was found at a target before anything is written: everything rule 25 refuses by. */
export interface TargetFacts {
  readonly exists: boolean;
  /** Bytes; 0 when it does not exist. A file is grown, a device is not. */
  readonly size: number;
  /** Where it is mounted, from /proc/mounts; empty: nowhere. */
  readonly mountedAt: string;
  /** Who has it open (O_EXCL of a block device, an image lock of QEMU); empty: nobody. */
  readonly heldBy: string;
  /** The backing, base or journal of ours it belongs to; empty: none. */
  readonly ours: string;
}

export interface OpenTarget {
  readonly device: BlockDevice;
  /** The target reads as zeroes where nothing was written: stretches of zeroes need no write. */
  readonly zeroed: boolean;
  /** The restore is whole and verified: gives the target its final name or lets go of it. */
  finish(): Promise<void>;
  /** The restore was not finished; the target stays marked as such. */
  abandon(): Promise<void>;
}

/** How targets are reached; the daemon fills it (qemu-img create, qemu-nbd, NBD client), raw files are filled here. */
export interface RestoreTargetPort {
  inspect(spec: TargetSpec): Promise<TargetFacts>;
  /** Opens the target with room for `sizeBytes`; `overwrite`: an existing file may be replaced. */
  open(spec: TargetSpec, sizeBytes: number, overwrite: boolean): Promise<OpenTarget>;
}

export function targetName(spec: TargetSpec): string {
  return spec.kind === 'nbd' ? spec.uri : spec.path;
}
