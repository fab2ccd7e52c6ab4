import { readFileSync } from 'node:fs';
import type { Host } from './host.ts';
import { RealClock } from './real-clock.ts';
import { RealDisk } from './real-disk.ts';
import { RealRandom } from './real-random.ts';
import { fromSystemError } from './system-error.ts';

const BOOT_ID_FILE = '/proc/sys/kernel/random/boot_id';

/** The machine this process runs on. Throws when the kernel's boot id cannot be read: no journal is safe without it. */
export function realHost(): Host {
  let bootId: string;
  try {
    bootId = readFileSync(BOOT_ID_FILE, 'utf8').trim();
  } catch (cause) {
    throw fromSystemError(cause, `read ${BOOT_ID_FILE}`);
  }
  return { disk: new RealDisk(), clock: new RealClock(), random: new RealRandom(), bootId };
}
