import { channel } from '../../journal/base/channels.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { DamagedStretch, StretchAnchor } from '../../journal/damaged-stretch.ts';
import type { Host, Timer } from '../../journal/host/host.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import { type MendOptions, mendStretch } from './mend-stretch.ts';

export interface MenderOptions extends Omit<MendOptions, 'onRefused'> {
  readonly groupName: string;
  /** Places in the journal that somebody relies on. */
  readonly anchors: () => readonly StretchAnchor[];
  /** Known to be damaged from now on: nothing may be read from there without being checked. */
  readonly onDamaged: (stretch: DamagedStretch) => void;
  /** The stretch reads well again. Records stand at other addresses in it than before. */
  readonly onMended: (stretch: DamagedStretch) => void;
  /** Who could not read may try again. */
  readonly onReadable: () => void;
}

/** What cannot be read now, for status. */
export interface JournalDamage {
  readonly fromLsn: Lsn;
  readonly toLsn: Lsn;
  readonly address: JournalAddress;
  /** Why it has not been mended yet. */
  readonly reason: string;
  /** What each of the sinks said when it was asked last, by its place in the list. */
  readonly answers: readonly FarAnswer[];
}

/** Why one side could not give back a stretch. */
export interface FarAnswer {
  readonly reason: string;
  /** It gave records up to here, but not the rest; absent: it gave none. */
  readonly heldLsn?: Lsn;
}

/** When there is nothing to mend where somebody could not read. */
const LOOK_AGAIN_MS = 100;
/** Between two attempts: the far side may come back, or get what it lacks. */
const RETRY_MS = 5_000;

const damageChannel = channel('tidemark:journal:damage');
const mendedChannel = channel('tidemark:journal:mended');
const unmendedChannel = channel('tidemark:journal:unmended');

/**
 * Mends a running journal: whoever finds a place that cannot be read names its address; the damage is told, fetched from
 * the far side, written, and told to be mended. One stretch at a time, again and again until it reads well.
 */
export class JournalMender {
  readonly #host: Host;
  readonly #options: MenderOptions;
  /** By the address at which they were found. */
  readonly #found: Map<JournalAddress, JournalDamage> = new Map();
  #working: Promise<void> | undefined;
  #timer: Timer | undefined;
  #closed = false;

  constructor(host: Host, options: MenderOptions) {
    this.#host = host;
    this.#options = options;
  }

  get damage(): readonly JournalDamage[] {
    return [...this.#found.values()].filter(({ toLsn, fromLsn }) => toLsn >= fromLsn);
  }

  /** To be called by whoever could not read at this address. */
  mendAt(address: JournalAddress): void {
    if (this.#closed) return;
    if (!this.#found.has(address)) this.#found.set(address, { fromLsn: 1, toLsn: 0, address, reason: '', answers: [] });
    this.#start();
  }

  /** Asks everybody now for what is damaged; resolves with what nobody gave back. */
  async askAgain(): Promise<readonly JournalDamage[]> {
    await this.#working;
    this.#start();
    await this.#working;
    return this.damage;
  }

  /** Waits for an attempt under way. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    await this.#working;
  }

  #start(): void {
    if (this.#working !== undefined || this.#closed) return;
    this.#timer?.cancel();
    this.#working = this.#mendAll().finally(() => {
      this.#working = undefined;
      if (this.#found.size > 0 && !this.#closed) this.#timer = this.#host.clock.after(RETRY_MS, () => this.#start());
    });
  }

  async #mendAll(): Promise<void> {
    for (const address of this.#found.keys()) {
      if (!this.#closed) await this.#mendOne(address);
    }
  }

  async #mendOne(address: JournalAddress): Promise<void> {
    const { journal, groupName: group, checkpoints, anchors, onDamaged, onMended, onReadable } = this.#options;
    const relied = checkpoints.list.map(({ lsn, address: at }) => ({ lsn: lsn + 1, address: at }));
    let told: { readonly fromLsn: Lsn; readonly toLsn: Lsn } | undefined;
    const answers: FarAnswer[] = [];
    try {
      if (address < journal.oldestAddress) {
        this.#found.delete(address);
        return;
      }
      const stretch = journal.damageAt(address, [...relied, ...anchors()]);
      if (stretch === undefined) {
        this.#found.delete(address);
        this.#host.clock.after(LOOK_AGAIN_MS, onReadable);
        return;
      }
      const { fromLsn, toLsn } = stretch;
      told = { fromLsn, toLsn };
      const known = this.#found.get(address);
      if (known?.toLsn !== toLsn) {
        this.#found.set(address, { fromLsn, toLsn, address, reason: stretch.reason, answers: [] });
        damageChannel.publish({ group, fromLsn, toLsn, address, reason: stretch.reason });
      }
      onDamaged(stretch);
      const onRefused = (sink: number, why: TidemarkError): void => {
        const { heldLsn } = why.details;
        answers[sink] = { reason: why.message, ...(typeof heldLsn === 'number' ? { heldLsn } : {}) };
      };
      const bytes = await mendStretch(this.#host, { ...this.#options, onRefused }, stretch);
      this.#found.delete(address);
      mendedChannel.publish({ group, fromLsn, toLsn, bytes });
      onMended(stretch);
      onReadable();
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      if (told === undefined) return;
      const before = this.#found.get(address)?.reason;
      this.#found.set(address, { ...told, address, reason: error.message, answers });
      if (before !== error.message) unmendedChannel.publish({ group, ...told, reason: error.message });
    }
  }
}
