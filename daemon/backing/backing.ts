import type { BlockDevice } from '../../journal/block-device.ts';

/**
 * The disk behind a protected volume. Any BlockDevice serves; one that can say who it is lets the group notice at the
 * next start that somebody else wrote to it (DESIGN rule 8).
 *
 * Beyond BlockDevice's promises: a write or flush rejected with `device-gone` says that anything written since the last
 * successful flush may be lost (a failed sync, an upstream server that went away); the owner writes it again (rule 9).
 */
export interface Backing extends BlockDevice {
  /** What tells this disk from another one, and its content from a later one; settled first, so a power loss keeps it. */
  identity?(): Promise<BackingIdentity>;
}

export interface BackingIdentity {
  readonly kind: 'file' | 'block-device' | 'nbd' | 'memory';
  /** Path or URI, for people: a disk may move. */
  readonly location: string;
  /** Inode number of a file, device number of a block device; '' where there is none. */
  readonly node: string;
  /** Bytes. */
  readonly size: number;
  /** Nanoseconds since 1970 as decimal digits; '' where the disk keeps no time of its last change. */
  readonly modifiedNanos: string;
}
