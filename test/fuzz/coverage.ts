import { type Profiler, Session } from 'node:inspector';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const PRODUCT = ['journal', 'replica', 'daemon', 'cli'].map(
  (folder) => pathToFileURL(path.join(import.meta.dirname, '../..', folder)).href,
);

/** Bytes of source, as `function range:offset`. */
export type Places = Set<string>;

/**
 * Which bytes of the product's source have run, told by V8's block coverage. It counts only in functions that were
 * compiled after `start`: targets are imported later. Asking costs a few milliseconds, so it is asked once for many inputs.
 */
export class Coverage {
  readonly #session = new Session();
  readonly #covered = new Map<string, Uint8Array>();
  /** Bytes of source that ran at least once since `start`. */
  bytes = 0;

  start(): void {
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: false, detailed: true });
  }

  stop(): void {
    this.#session.post('Profiler.stopPreciseCoverage');
    this.#session.disconnect();
  }

  /** What has run since the last call is known from now on; what of it was not goes into `fresh`. */
  take(fresh?: Places): void {
    for (const script of this.#collect()) {
      if (!PRODUCT.some((folder) => script.url.startsWith(folder))) continue;
      for (const one of script.functions) this.#merge(script.scriptId, one, fresh);
    }
  }

  /** The places are unknown, or known, again. */
  set(places: Places, known: 0 | 1): void {
    for (const place of places) {
      const border = place.lastIndexOf(':');
      const bytes = this.#covered.get(place.slice(0, border));
      const at = Number(place.slice(border + 1));
      if (bytes === undefined || bytes[at] === known) continue;
      bytes[at] = known;
      this.bytes += known === 1 ? 1 : -1;
    }
  }

  #collect(): Profiler.ScriptCoverage[] {
    let result: Profiler.ScriptCoverage[] = [];
    // An in-process session answers before `post` returns.
    this.#session.post('Profiler.takePreciseCoverage', (error, answer) => {
      if (error !== null) throw error;
      ({ result } = answer);
    });
    return result;
  }

  #merge(script: string, one: Profiler.FunctionCoverage, fresh: Places | undefined): void {
    const whole = one.ranges[0];
    if (whole === undefined || whole.count === 0) return;
    const { startOffset: start, endOffset: end } = whole;
    const now = new Uint8Array(end - start);
    // Outer ranges come before those inside them.
    for (const range of one.ranges)
      now.fill(Math.min(range.count, 1), range.startOffset - start, range.endOffset - start);
    const key = `${script}:${start}:${end}`;
    const known = this.#covered.get(key) ?? new Uint8Array(end - start);
    for (let i = 0; i < now.length; i++) {
      if (now[i] === 0 || known[i] === 1) continue;
      fresh?.add(`${key}:${i}`);
      known[i] = 1;
      this.bytes += 1;
    }
    this.#covered.set(key, known);
  }
}
