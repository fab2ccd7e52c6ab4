import { randomBytes, randomInt } from 'node:crypto';
import type { Random } from './host.ts';

/** The kernel's random numbers. */
export class RealRandom implements Random {
  bytes(length: number): Uint8Array {
    return randomBytes(length);
  }

  below(bound: number): number {
    return randomInt(bound);
  }
}
