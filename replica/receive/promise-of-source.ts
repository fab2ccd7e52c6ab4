import type { Host } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import type { StateName } from '../../journal/record-bodies.ts';
import { type Catalog, WAITING_STATES } from '../catalog/catalog.ts';

/** What this replica may say of the loss if the source were gone now. */
export interface RpoClaim {
  /** `zero`: everything a guest was answered under the promise is here. */
  readonly rpo: 'zero' | 'unknown';
  /** As the source said it last, like "replica at flush"; empty: it promises nothing. */
  readonly promise: string;
  readonly reason: string;
  /** So long it stays so without another word; 0 when it is unknown. */
  readonly sureForMs: number;
}

/** Parts of a lease that two clocks may differ by while it runs: far more than quartz does. */
const DRIFT = 0.01;
const RUN_BYTES = 8;
/** What the source says of replicas is only said of those it waits for. */
const WAITS_FOR_REPLICAS: ReadonlySet<string> = new Set(['replica', 'applied']);

/**
 * The source's promise as this replica knows it. A lease in a heartbeat names the newest state of ours that was taken:
 * until `leaseMs` after the source took it, which is later than we sent it, nothing is answered that we do not hold. By
 * our clock that is so until `leaseMs` less the drift after we sent it, if nothing that came later took it back.
 */
export class PromiseOfSource {
  readonly #host: Host;
  readonly #replica: string;
  readonly #known: () => Pick<Catalog, 'degree' | 'lease'>;
  /** Drawn when it is needed first. */
  #run: string | undefined;

  constructor(host: Host, replica: string, known: () => Pick<Catalog, 'degree' | 'lease'>) {
    this.#host = host;
    this.#replica = replica;
    this.#known = known;
  }

  /** Guests of the source wait for what this replica says. */
  get isWaitedFor(): boolean {
    const { degree } = this.#known();
    return degree !== undefined && WAITS_FOR_REPLICAS.has(degree.ack) && WAITING_STATES.has(degree.state);
  }

  /** ... for what its standby image holds. */
  get waitsForApplied(): boolean {
    return this.isWaitedFor && this.#known().degree?.ack === 'applied';
  }

  /** For a state that leaves now; undefined: the source has no use for it. */
  nameState(): StateName | undefined {
    const { degree } = this.#known();
    if (degree === undefined || !WAITS_FOR_REPLICAS.has(degree.ack)) return undefined;
    this.#run ??= Buffer.from(this.#host.random.bytes(RUN_BYTES)).toString('hex');
    return { run: this.#run, sentMs: this.#host.clock.monotonicMs() };
  }

  /**
   * `durableLsn`: up to here nothing is lost with this machine. `damaged`: something of that cannot be read here now.
   * A promise begins with the record that makes it: what was answered before may be on its way, or in memory here.
   */
  claim(durableLsn: Lsn, damaged: boolean): RpoClaim {
    const { degree, lease } = this.#known();
    if (degree === undefined || degree.state === 'off') {
      return unknown('', 'the source answers its guests without waiting for anybody');
    }
    const promise = `${degree.ack} at ${degree.ackAt}`;
    if (!WAITS_FOR_REPLICAS.has(degree.ack)) return unknown(promise, 'the source does not wait for replicas');
    if (!WAITING_STATES.has(degree.state)) {
      return unknown(promise, `the source has answered without the far side since LSN ${degree.brokenFromLsn}`);
    }
    if (durableLsn < degree.lsn)
      return unknown(promise, `it begins at LSN ${degree.lsn}, and that is not durable here yet`);
    if (damaged) return unknown(promise, 'some of what was acknowledged is damaged here');
    const heard = lease?.heard[this.#replica];
    if (lease === undefined || heard === undefined) return unknown(promise, 'the source has not vouched for it yet');
    if (heard.run !== this.#run) return unknown(promise, 'the source has not heard of this replica since its start');
    const elapsedMs = this.#host.clock.monotonicMs() - heard.sentMs;
    const sureForMs = lease.leaseMs * (1 - DRIFT) - elapsedMs;
    if (sureForMs > 0) return { rpo: 'zero', promise, reason: '', sureForMs };
    return unknown(promise, `for ${(elapsedMs / 1000).toFixed(1)} s the source has not said that it still waits`);
  }
}

function unknown(promise: string, reason: string): RpoClaim {
  return { rpo: 'unknown', promise, reason, sureForMs: 0 };
}
