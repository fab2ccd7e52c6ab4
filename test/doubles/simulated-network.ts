import { crc32 } from '@node-rs/crc32';
import type { Dialer, Wire, WireEvents, WireListener } from '../../daemon/stream/direct/wire.ts';
import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { Scheduler } from '../simulation/scheduler.ts';
import type { SimulatedProcess } from './simulated-process.ts';

export interface NetworkFaults {
  /** Uniform up to this, per delivery; order is kept within one direction of a wire. */
  readonly latencyMicrosMax: number;
  readonly bytesPerMicro: number;
  /** Probability per send that the connection breaks, with what is on its way. */
  readonly cuts: number;
  /** Probability that a process that dies is not missed by the other end: half-open. */
  readonly silentDeaths: number;
}

export const NO_NETWORK_FAULTS: NetworkFaults = {
  latencyMicrosMax: 2000,
  bytesPerMicro: 100,
  cuts: 0,
  silentDeaths: 0,
};

/** A sender is asked to wait from so many bytes on their way. */
const SEND_BUFFER_BYTES = 256 * 1024;
/** TCP tries again this long after a partition ended, at most. */
const RETRANSMIT_MICROS_MAX = 1_500_000;

/** Which way nothing arrives: a link can be dead in one direction only, and neither end is told. */
export type Blocked = 'none' | 'both' | 'to-listener' | 'to-dialer';

interface Listening {
  readonly process: SimulatedProcess;
  readonly onWire: (wire: Wire) => void;
}

/** The network between simulated machines: wires that deliver late, in pieces, or break; and a partition of all. */
export class SimulatedNetwork {
  readonly scheduler: Scheduler;
  faults: NetworkFaults;
  readonly #listening: Map<string, Listening> = new Map();
  readonly #ends: Set<WireEnd> = new Set();
  #blocked: Blocked = 'none';
  /** Of one listener's address only. */
  readonly #blockedTo: Map<string, Blocked> = new Map();

  constructor(scheduler: Scheduler, faults: NetworkFaults) {
    this.scheduler = scheduler;
    this.faults = faults;
  }

  get blocked(): Blocked {
    return this.#blocked;
  }

  /** What was sent meanwhile arrives some time after the end of it, if both ends still wait. */
  set blocked(value: Blocked) {
    this.#blocked = value;
    this.scheduler.trace(`blocked ${value}`);
    if (value === 'none') for (const end of this.#ends) end.healed();
  }

  /** The same for the connections of one listener. */
  block(address: string, value: Blocked): void {
    this.#blockedTo.set(address, value);
    this.scheduler.trace(`blocked ${value} ${address}`);
    if (value === 'none') for (const end of this.#ends) if (end.address === address) end.healed();
  }

  blockedTo(address: string): Blocked {
    return this.#blocked === 'none' ? (this.#blockedTo.get(address) ?? 'none') : this.#blocked;
  }

  /** Breaks every connection after all that was sent to listeners has arrived: the answers are what gets lost. */
  loseAnswers(): void {
    for (const end of this.#ends) {
      if (end.isDialer) end.cut('connection reset');
      else end.endAfterwards('connection reset');
    }
  }

  /** Breaks every connection; each end hears of it at its own time. */
  cutAll(): void {
    for (const end of this.#ends) end.cut('connection reset');
  }

  dialer(process: SimulatedProcess, address: string): Dialer {
    return { address, dial: (timeoutMs) => this.#dial(process, address, timeoutMs) };
  }

  listener(process: SimulatedProcess, address: string): WireListener {
    return {
      listen: (onWire) => {
        this.#listening.set(address, { process, onWire });
        return Promise.resolve(address);
      },
      close: () => {
        if (this.#listening.get(address)?.process === process) this.#listening.delete(address);
        return Promise.resolve();
      },
    };
  }

  latencyMicros(bytes: number): number {
    return this.scheduler.random.below(this.faults.latencyMicrosMax + 1) + bytes / this.faults.bytesPerMicro;
  }

  #dial(process: SimulatedProcess, address: string, timeoutMs: number): Promise<Wire> {
    return new Promise((resolve, reject) => {
      const refuse = (why: string): void => {
        if (process.alive) reject(new TidemarkError('stream-unavailable', `${address}: ${why}`));
      };
      this.scheduler.trace(`dial ${address}`);
      if (this.blockedTo(address) !== 'none') {
        this.scheduler.after(timeoutMs * 1000, () => refuse('no answer'));
        return;
      }
      this.scheduler.after(this.latencyMicros(0), () => {
        const listening = this.#listening.get(address);
        if (!process.alive) return;
        if (listening?.process.alive !== true) {
          refuse('connection refused');
          return;
        }
        const near = new WireEnd(this, process, address, address, true);
        const far = new WireEnd(this, listening.process, 'a dialer', address, false);
        near.join(far);
        for (const end of [near, far]) {
          this.#ends.add(end);
          end.atEnd = (): void => {
            this.#ends.delete(end);
          };
        }
        resolve(near);
        this.scheduler.after(this.latencyMicros(0), () => {
          if (listening.process.alive) listening.onWire(far);
        });
      });
    });
  }
}

interface Packet {
  readonly bytes: Uint8Array;
  readonly crc: number;
}

class WireEnd implements Wire {
  readonly remote: string;
  /** Of the listener. */
  readonly address: string;
  readonly isDialer: boolean;
  readonly #network: SimulatedNetwork;
  readonly #process: SimulatedProcess;
  #peer!: WireEnd;
  #events: WireEvents | undefined;
  /** On their way to this end, in order. */
  readonly #arriving: Packet[] = [];
  /** Sent by this end and not arrived. */
  #underWayBytes = 0;
  #blocked = false;
  #nextArrivalMicros = 0;
  /** No event comes any more. */
  #closed = false;
  #broken: string | undefined;
  atEnd: () => void = () => undefined;

  constructor(
    network: SimulatedNetwork,
    process: SimulatedProcess,
    remote: string,
    address: string,
    isDialer: boolean,
  ) {
    this.#network = network;
    this.#process = process;
    this.remote = remote;
    this.address = address;
    this.isDialer = isDialer;
    process.atDeath(() => this.#died());
  }

  join(peer: WireEnd): void {
    this.#peer = peer;
    peer.#peer = this;
  }

  open(events: WireEvents): void {
    assert(this.#events === undefined, 'a wire is opened once');
    this.#events = events;
    this.#network.scheduler.after(0, () => this.#deliver());
  }

  send(bytes: Uint8Array): boolean {
    if (this.#closed || this.#broken !== undefined) return true;
    const { scheduler, faults } = this.#network;
    scheduler.trace('send', bytes.length, crc32(bytes));
    if (scheduler.random.chance(faults.cuts)) {
      this.cut('connection reset');
      this.#peer.cut('connection reset');
      return true;
    }
    this.#underWayBytes += bytes.length;
    this.#peer.#expect(bytes);
    this.#blocked = this.#underWayBytes > SEND_BUFFER_BYTES;
    return !this.#blocked;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.atEnd();
    this.#peer.#expectEnd('closed by the other end');
  }

  cut(reason: string): void {
    if (this.#closed || this.#broken !== undefined) return;
    this.#arriving.length = 0;
    this.#expectEnd(reason);
  }

  /** The connection is gone once what is on its way has been taken. */
  endAfterwards(reason: string): void {
    if (!this.#closed) this.#expectEnd(reason);
  }

  /** A partition ended: TCP comes round to it some time later. */
  healed(): void {
    const { scheduler } = this.#network;
    scheduler.after(scheduler.random.below(RETRANSMIT_MICROS_MAX), () => this.#deliver());
  }

  #expect(bytes: Uint8Array): void {
    const { random } = this.#network.scheduler;
    for (let from = 0; from < bytes.length; ) {
      const whole = random.chance(0.8);
      const count = whole ? bytes.length - from : random.between(1, bytes.length - from);
      const part = bytes.subarray(from, from + count);
      this.#arriving.push({ bytes: part, crc: crc32(part) });
      this.#arrive(count);
      from += count;
    }
  }

  #arrive(bytes: number): void {
    const { scheduler } = this.#network;
    const at = Math.max(this.#nextArrivalMicros, scheduler.nowMicros + this.#network.latencyMicros(bytes));
    this.#nextArrivalMicros = at;
    scheduler.after(at - scheduler.nowMicros, () => this.#deliver());
  }

  #deliver(): void {
    if (this.#closed || !this.#process.alive) return;
    const blocked = this.#network.blockedTo(this.address);
    if (blocked === 'both' || blocked === (this.isDialer ? 'to-dialer' : 'to-listener')) return;
    const events = this.#events;
    if (events === undefined) return;
    const packet = this.#arriving.shift();
    if (packet !== undefined) {
      assert(crc32(packet.bytes) === packet.crc, 'bytes were changed after they had been sent');
      this.#network.scheduler.trace(`arrives ${this.isDialer ? 'at the dialer' : 'at the listener'}`, packet.crc);
      events.onBytes(packet.bytes.slice());
      this.#peer.#arrived(packet.bytes.length);
      // A wire that was opened late, or a partition that ended, has more waiting than events to deliver it.
      if (this.#arriving.length > 0) this.#network.scheduler.after(0, () => this.#deliver());
      else if (this.#broken !== undefined) this.#arrive(0);
      return;
    }
    if (this.#broken === undefined) return;
    this.#closed = true;
    this.atEnd();
    this.#network.scheduler.trace(`closed ${this.isDialer ? 'at the dialer' : 'at the listener'}: ${this.#broken}`);
    events.onClose(this.#broken);
  }

  #arrived(bytes: number): void {
    this.#underWayBytes -= bytes;
    if (!this.#blocked || this.#underWayBytes > SEND_BUFFER_BYTES / 2) return;
    this.#blocked = false;
    this.#network.scheduler.after(this.#network.latencyMicros(0), () => {
      if (!this.#closed && this.#process.alive && this.#broken === undefined) this.#events?.onDrain();
    });
  }

  #expectEnd(reason: string): void {
    if (this.#broken !== undefined) return;
    this.#broken = reason;
    this.#arrive(0);
  }

  #died(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.atEnd();
    if (this.#network.scheduler.random.chance(this.#network.faults.silentDeaths)) return;
    this.#peer.cut('connection reset');
  }
}
