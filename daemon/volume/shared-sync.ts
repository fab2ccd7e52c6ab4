/** What a group's volumes wait for before they answer FLUSH and FUA. */
interface Syncable {
  sync(): Promise<void>;
  syncNow(): void;
}

/** Counts who waits, so that a lone flush knows that it is alone. */
export class SharedSync {
  readonly #journal: Syncable;
  #waiting = 0;

  constructor(journal: Syncable) {
    this.#journal = journal;
  }

  get waiting(): number {
    return this.#waiting;
  }

  async sync(): Promise<void> {
    this.#waiting++;
    try {
      await this.#journal.sync();
    } finally {
      this.#waiting--;
    }
  }

  syncNow(): void {
    this.#journal.syncNow();
  }
}
