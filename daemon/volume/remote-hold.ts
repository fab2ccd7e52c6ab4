import type { Host } from '../../journal/host/host.ts';
import type { RecoveryReport } from '../../journal/recovery-report.ts';
import { readStateFile, type StatePlace, writeStateFile } from './state-file.ts';

const NAME = 'remote-hold.state';

/**
 * After a power loss guests on other hosts stay out until an operator lets them on (DESIGN rule 12). The next start of
 * the daemon sees the same boot again, so the hold is a file: durable before the new incarnation is, gone only by
 * `release` or by the policy to serve.
 */
export class RemoteHold {
  readonly #host: Host;
  readonly #directory: string;
  #held: boolean;

  private constructor(host: Host, directory: string, held: boolean) {
    this.#host = host;
    this.#directory = directory;
    this.#held = held;
  }

  /** To be called before the journal begins. Rejects with `journal-damaged` when the file cannot be believed. */
  static async open(
    host: Host,
    place: StatePlace,
    report: RecoveryReport,
    policy: 'hold-remote' | 'serve',
  ): Promise<RemoteHold> {
    const before = readStateFile(host, place, NAME) !== undefined;
    const lostPower = report.bootChanged && !report.cleanStop;
    const hold = new RemoteHold(host, place.directory, policy === 'hold-remote' && (before || lostPower));
    if (hold.held && !before) await writeStateFile(host, place, NAME, { afterLsn: report.lastLsn });
    if (!hold.held && before) await hold.#remove();
    return hold;
  }

  get held(): boolean {
    return this.#held;
  }

  /** Durable when the promise resolves. */
  async release(): Promise<void> {
    if (!this.#held) return;
    await this.#remove();
    this.#held = false;
  }

  async #remove(): Promise<void> {
    this.#host.disk.unlink(`${this.#directory}/${NAME}`);
    await this.#host.disk.syncDirectory(this.#directory);
  }
}
