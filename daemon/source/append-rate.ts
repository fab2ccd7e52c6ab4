const SAMPLES_MAX = 60;
const SAMPLE_MS = 1_000;

/** How many bytes a second go into a journal: over the last minute, or since the start. */
export class AppendRate {
  readonly #samples: { readonly ms: number; readonly address: number }[] = [];

  /** `endAddress`: where the journal ends now. To be called at least once a second. */
  note(nowMs: number, endAddress: number): void {
    const last = this.#samples.at(-1);
    if (last !== undefined && nowMs - last.ms < SAMPLE_MS) return;
    this.#samples.push({ ms: nowMs, address: endAddress });
    if (this.#samples.length > SAMPLES_MAX + 1) this.#samples.shift();
  }

  /** Null until two moments were seen. */
  get bytesPerSecond(): number | null {
    const [first] = this.#samples;
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined || first === last) return null;
    return ((last.address - first.address) * 1_000) / (last.ms - first.ms);
  }
}
