import { type Chain, chainString } from '../../journal/chain.ts';
import type { Lsn } from '../../journal/position.ts';

const KNOWN_MAX = 32_768;

/** The chain at the ends of frames shipped in this run: where a replica's acknowledgements fall. */
export class KnownChains {
  readonly #chains = new Map<Lsn, string>();

  note(lsn: Lsn, chain: Chain): void {
    this.#chains.delete(lsn);
    this.#chains.set(lsn, chainString(chain));
    if (this.#chains.size <= KNOWN_MAX) return;
    for (const oldest of this.#chains.keys()) {
      this.#chains.delete(oldest);
      return;
    }
  }

  /** 16 hex digits; undefined: not known. */
  at(lsn: Lsn): string | undefined {
    return lsn === 0 ? '0'.repeat(16) : this.#chains.get(lsn);
  }
}
