import { hasCode } from '../../journal/base/errors.ts';
import type { Lsn } from '../../journal/position.ts';
import type { LookupWindow } from './lookup-window.ts';
import type { Memtable } from './memtable.ts';
import type { RunFile } from './run-file.ts';

/** What is searched together; replaced, never changed. Readers hold it, so that no run is closed under them. */
export interface Version {
  readonly active: Memtable;
  readonly frozen: Memtable | undefined;
  /** Oldest first, covering consecutive disjoint LSN ranges. */
  readonly runs: readonly RunFile[];
  readers: number;
}

/** Paints a lookup when all of it is in memory; false: pages have to be waited for, or are damaged, which `lookup` finds. */
export function paintNow(
  { active, frozen, runs }: Version,
  window: LookupWindow,
  volume: number,
  atLsn: Lsn,
  floorLsn: Lsn,
): boolean {
  active.paint(window, volume, atLsn, floorLsn);
  if (!window.complete) frozen?.paint(window, volume, atLsn, floorLsn);
  for (let i = runs.length - 1; i >= 0 && !window.complete; i -= 1) {
    const run = runs[i];
    if (run === undefined || run.footer.baseLsn >= atLsn) continue;
    try {
      if (!run.paintNow(window, volume, atLsn, floorLsn)) return false;
    } catch (error) {
      if (!hasCode(error, 'journal-damaged') && !hasCode(error, 'device-failed')) throw error;
      return false;
    }
  }
  return true;
}
