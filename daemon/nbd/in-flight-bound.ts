/** At most so many holders and so many bytes at once; who does not fit waits in line. */
export class InFlightBound {
  readonly #countMax: number;
  readonly #bytesMax: number;
  readonly #waiting: { bytes: number; enter: () => void }[] = [];
  readonly #idle: (() => void)[] = [];
  #count = 0;
  #bytes = 0;

  constructor(countMax: number, bytesMax: number) {
    this.#countMax = countMax;
    this.#bytesMax = bytesMax;
  }

  /** Resolves when there is room. Something larger than the whole bound passes when it is alone. */
  async enter(bytes: number): Promise<void> {
    if (this.#waiting.length === 0 && this.#fits(bytes)) {
      this.#take(bytes);
      return;
    }
    await new Promise<void>((enter) => this.#waiting.push({ bytes, enter }));
  }

  leave(bytes: number): void {
    this.#count -= 1;
    this.#bytes -= bytes;
    for (let next = this.#waiting[0]; next !== undefined && this.#fits(next.bytes); next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#take(next.bytes);
      next.enter();
    }
    if (this.#count === 0) for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** Resolves when nobody is inside or waiting. */
  async idle(): Promise<void> {
    if (this.#count > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  #fits(bytes: number): boolean {
    return this.#count === 0 || (this.#count < this.#countMax && this.#bytes + bytes <= this.#bytesMax);
  }

  #take(bytes: number): void {
    this.#count += 1;
    this.#bytes += bytes;
  }
}
