import type { Seams } from '../simulation/parts.ts';
import type { RunOptions } from '../simulation/run-options.ts';
import { type PatchedFile, patchSource } from './patch-loader.ts';

/** A change of a product file: the text must stand in it exactly once. */
export interface SourceChange {
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

/** Somebody who must notice: seeds of the simulation, or one named test. */
export type Noticer =
  | {
      /** What the run must be able to do for the bug to show. */
      readonly simulation: (options: RunOptions) => RunOptions;
    }
  | {
      readonly test: string;
      /** As it stands in the file; of a title with a variable part the beginning. */
      readonly title: string;
    };

/** A bug put into the product on purpose: a rule whose breaking nobody notices is not held by anybody. */
export interface PlantedBug {
  readonly name: string;
  /** Of the 27 in DURABILITY.md. */
  readonly rules: readonly number[];
  /** The promise that is broken, by its letter in DURABILITY.md. */
  readonly invariant: string;
  /** Made at load, in a process of their own. */
  readonly changes?: readonly SourceChange[];
  /** Wrappers between the real parts of a simulated run. */
  readonly seams?: Partial<Seams>;
  readonly noticedBy: Noticer;
  /** Found so soon that every run of the tests does it. */
  readonly quick?: true;
  /** Alone it does no harm: another mechanism repairs it. Found when that one is broken too, and not when only that one is. */
  readonly masked?: { readonly by: string; readonly changes: readonly SourceChange[] };
}

/** All files that are loaded in place of the product's; throws when a change does not apply. */
export function patchesOf(changes: readonly SourceChange[]): PatchedFile[] {
  const files = new Map<string, PatchedFile>();
  for (const { file, find, replace } of changes) {
    files.set(file, patchSource(file, find, replace, files.get(file)));
  }
  return [...files.values()];
}
