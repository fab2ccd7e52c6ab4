import { TidemarkError } from '../../journal/base/errors.ts';
import type { JournalAddress } from '../../journal/position.ts';

/**
 * Stretches of the journal that were found damaged in this run. What an overlay names in one of them is an error for who
 * reads it, never other bytes; also after they were mended, for then the records stand at other addresses in them: the
 * next start builds the overlay anew.
 */
export class UnreadableStretches {
  readonly #stretches: { readonly from: JournalAddress; readonly to: JournalAddress }[] = [];

  add(from: JournalAddress, to: JournalAddress): void {
    if (this.#stretches.some((known) => known.from <= from && known.to >= to)) return;
    this.#stretches.push({ from, to });
  }

  /** Throws `journal-damaged` when any of the bytes stand in such a stretch. */
  refuse(address: JournalAddress, bytes: number): void {
    for (const { from, to } of this.#stretches) {
      if (address >= to || address + bytes <= from) continue;
      throw new TidemarkError('journal-damaged', `journal addresses ${from} to ${to} are damaged`, {
        details: { address: from },
      });
    }
  }
}
