import type { Dialer, Wire, WireEvents } from '../../daemon/stream/direct/wire.ts';

/** A dialer whose connections can be cut, held up and damaged. */
export class FaultyDialer implements Dialer {
  readonly #inner: Dialer;
  readonly #wires = new Set<FaultyWire>();
  dials = 0;

  constructor(inner: Dialer) {
    this.#inner = inner;
  }

  get address(): string {
    return this.#inner.address;
  }

  async dial(timeoutMs: number): Promise<Wire> {
    this.dials++;
    const wire = new FaultyWire(await this.#inner.dial(timeoutMs));
    this.#wires.add(wire);
    return wire;
  }

  /** Every connection breaks at both ends. */
  cut(): void {
    for (const wire of this.#wires) wire.cut();
    this.#wires.clear();
  }

  /** Nothing passes any more in either direction, and nobody is told: a cable pulled out. */
  freeze(): void {
    for (const wire of this.#wires) wire.frozen = true;
    this.#wires.clear();
  }

  /** The next `count` frame-sized pieces get one bit flipped. */
  damage(count: number): void {
    for (const wire of this.#wires) wire.damaging = count;
  }
}

class FaultyWire implements Wire {
  frozen = false;
  damaging = 0;
  readonly #inner: Wire;
  #events: WireEvents | undefined;
  #over = false;

  constructor(inner: Wire) {
    this.#inner = inner;
  }

  get remote(): string {
    return this.#inner.remote;
  }

  open(events: WireEvents): void {
    this.#events = events;
    this.#inner.open({
      onBytes: (bytes) => {
        if (!this.frozen) events.onBytes(bytes);
      },
      onDrain: () => events.onDrain(),
      onClose: (reason) => {
        if (!this.frozen) events.onClose(reason);
      },
    });
  }

  send(bytes: Uint8Array): boolean {
    if (this.frozen) return true;
    if (this.damaging === 0 || bytes.length < 1000) return this.#inner.send(bytes);
    this.damaging--;
    const damaged = bytes.slice();
    damaged[damaged.length - 1]! ^= 4;
    return this.#inner.send(damaged);
  }

  close(): void {
    this.#over = true;
    this.#inner.close();
  }

  cut(): void {
    if (this.#over) return;
    this.close();
    this.#events?.onClose('cut by the test');
  }
}
