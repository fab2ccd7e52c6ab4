import { AssertionError } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { SeededRandom } from '../replica/support/memory-host.ts';
import type { Allocations } from './allocations.ts';
import type { Coverage, Places } from './coverage.ts';
import { Mutator } from './mutator.ts';
import type { FuzzTarget } from './target.ts';
import type { Watchdog } from './watchdog.ts';

export interface Finding {
  readonly target: string;
  readonly kind: 'exception' | 'assertion' | 'memory' | 'slow';
  readonly message: string;
  readonly stack: string;
  readonly input: Uint8Array;
}

export interface FuzzReport {
  readonly target: string;
  readonly runs: number;
  readonly ms: number;
  readonly corpus: number;
  /** Bytes of the product's source that ran: with the seeds alone, at the end; 0 without coverage. */
  readonly coveredBySeeds: number;
  readonly covered: number;
  /** Distinct answers: error codes with their words. */
  readonly answers: number;
  readonly findings: readonly Finding[];
}

export interface FuzzTools {
  readonly allocations: Allocations;
  /** Without it only new answers make an input interesting. */
  readonly coverage?: Coverage;
  readonly watchdog?: Watchdog;
}

/** Inputs between two questions for coverage: more when nothing new comes. */
const BATCH_MIN = 64;
const BATCH_MAX = 8192;
const BATCH_MS = 500;
const RUNS_MIN = 32;
const ALLOCATED_BYTES_MAX = 1024 * 1024;
/** Of processor time: on a busy machine, or a slow disk, any input may take long. */
const SLOW_MS = 2000;
const CORPUS_MAX = 4000;
const ANSWERS_MAX = 500;
const FINDINGS_MAX = 20;
/** Frames of a finding's stack. Refusals get none: nobody reads it, and it costs more than most parsers. */
const STACK_FRAMES = 12;
const Bytes = Uint8Array;

/**
 * Coverage-guided: inputs that reach source that no input before reached, or get an answer that none got, are kept and
 * changed further. Coverage is asked per batch, and a batch that found something is halved until the inputs are known.
 */
export class FuzzLoop {
  readonly #target: FuzzTarget;
  readonly #tools: FuzzTools;
  readonly #mutator: Mutator;
  readonly #corpus: Uint8Array[] = [];
  readonly #answers = new Set<string>();
  readonly #findings = new Map<string, Finding>();
  /** Inputs of this batch that threw something else than a refusal. */
  readonly #suspects: Uint8Array[] = [];
  #runs = 0;

  constructor(target: FuzzTarget, tools: FuzzTools, seed: number) {
    this.#target = target;
    this.#tools = tools;
    this.#mutator = new Mutator(target, new SeededRandom(seed));
  }

  /** Until `runsMax` inputs ran or `msMax` passed, and some ran however slow the machine is. `extra`: inputs to begin with beside the seeds. */
  async run(runsMax: number, msMax: number, extra: readonly Uint8Array[] = []): Promise<FuzzReport> {
    const started = performance.now();
    Error.stackTraceLimit = 0;
    for (const seed of [...(await this.#target.seeds()), ...extra]) {
      this.#corpus.push(seed);
      await this.#execute(seed);
    }
    const { coverage } = this.#tools;
    await this.#explain();
    coverage?.take();
    const coveredBySeeds = coverage?.bytes ?? 0;
    let size = BATCH_MIN;
    const isLate = (): boolean => performance.now() - started >= msMax && this.#runs >= RUNS_MIN;
    while (this.#runs < runsMax && !isLate() && this.#findings.size < FINDINGS_MAX) {
      const batch: Uint8Array[] = [];
      const batchEnds = performance.now() + BATCH_MS;
      for (let i = 0; i < size && this.#runs < runsMax && performance.now() < batchEnds; i++) {
        const input = this.#mutator.mutate(this.#corpus);
        batch.push(input);
        const fresh = this.#execute(input);
        if (typeof fresh === 'boolean' ? fresh : await fresh) this.#keep(input);
      }
      await this.#explain();
      if (coverage === undefined) continue;
      const places: Places = new Set();
      coverage.take(places);
      size = places.size > 0 ? Math.max(BATCH_MIN, size / 4) : Math.min(BATCH_MAX, size * 2);
      if (places.size > 0) await this.#locate(batch, places, coverage);
    }
    return {
      target: this.#target.name,
      runs: this.#runs,
      ms: performance.now() - started,
      corpus: this.#corpus.length,
      coveredBySeeds,
      covered: coverage?.bytes ?? 0,
      answers: this.#answers.size,
      findings: [...this.#findings.values()],
    };
  }

  /** Runs one input; throws nothing: what is found is in the report. True when its answer is new. */
  #execute(input: Uint8Array): boolean | Promise<boolean> {
    const { allocations, watchdog } = this.#tools;
    this.#runs += 1;
    watchdog?.begin(input);
    const copy = Bytes.prototype.slice.call(input);
    const began = cpuMs();
    allocations.bytes = 0;
    try {
      const running = this.#target.run(copy);
      if (running === undefined) return this.#done(input, began, undefined);
      return running.then(
        () => this.#done(input, began, undefined),
        (error: unknown) => this.#done(input, began, error ?? 'nothing'),
      );
    } catch (error) {
      return this.#done(input, began, error ?? 'nothing');
    }
  }

  #done(input: Uint8Array, began: number, error: unknown): boolean {
    const { allocations, watchdog } = this.#tools;
    watchdog?.end();
    const { bytes } = allocations;
    const ms = cpuMs() - began;
    if (error !== undefined && !(error instanceof TidemarkError)) this.#suspects.push(input);
    const allowed = (this.#target.allocatedBytesMax ?? ALLOCATED_BYTES_MAX) + 64 * input.length;
    if (bytes > allowed) this.#found('memory', 'more memory than allowed', `${bytes} bytes, ${allowed} allowed`, input);
    if (ms > SLOW_MS) this.#found('slow', 'too slow', `${Math.round(ms)} ms`, input);
    const answer = error === undefined ? '' : answerOf(error);
    if (this.#answers.has(answer) || this.#answers.size >= ANSWERS_MAX) return false;
    this.#answers.add(answer);
    return true;
  }

  /** Runs again, with stacks, what threw something else than a refusal. */
  async #explain(): Promise<void> {
    const suspects = this.#suspects.splice(0);
    Error.stackTraceLimit = STACK_FRAMES;
    for (const input of suspects.slice(0, FINDINGS_MAX)) {
      let error: unknown;
      try {
        await this.#target.run(Bytes.from(input));
      } catch (caught) {
        error = caught;
      }
      if (error instanceof TidemarkError) continue;
      const kind = error instanceof AssertionError ? 'assertion' : 'exception';
      const stack = error instanceof Error ? (error.stack ?? '') : '';
      const message = error instanceof Error ? `${error.name}: ${error.message}` : `once only, then ${String(error)}`;
      this.#found(kind, message, stack, input);
    }
    Error.stackTraceLimit = 0;
  }

  #found(kind: Finding['kind'], message: string, stack: string, input: Uint8Array): void {
    // One finding for each line of ours that it came through first.
    const line = /\/(?:journal|replica|daemon|cli|test)\/[^\s)]*/.exec(stack.replaceAll(/.*node_modules.*/g, ''))?.[0];
    const key = `${kind} ${line ?? message}`;
    const known = this.#findings.get(key);
    if (known !== undefined && known.input.length <= input.length) return;
    this.#findings.set(key, { target: this.#target.name, kind, message, stack, input });
  }

  #keep(input: Uint8Array): void {
    if (this.#corpus.length < CORPUS_MAX) this.#corpus.push(input);
  }

  /** Finds the inputs of a batch that reached these places, by halves. */
  async #locate(batch: readonly Uint8Array[], places: Places, coverage: Coverage): Promise<void> {
    const only = batch[0];
    if (only === undefined) return;
    if (batch.length === 1) {
      if (!this.#corpus.includes(only)) this.#keep(only);
      return;
    }
    const middle = batch.length >>> 1;
    const left = batch.slice(0, middle);
    coverage.set(places, 0);
    for (const input of left) await this.#execute(input);
    const reached: Places = new Set();
    coverage.take(reached);
    const rest = new Set([...places].filter((place) => !reached.has(place)));
    coverage.set(rest, 1);
    const here = new Set([...places].filter((place) => reached.has(place)));
    if (here.size > 0) await this.#locate(left, here, coverage);
    if (rest.size > 0) await this.#locate(batch.slice(middle), rest, coverage);
  }
}

/** Processor time of this thread. */
function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

/** The words without what differs from input to input. */
function answerOf(error: unknown): string {
  if (!(error instanceof TidemarkError)) return 'other';
  return `${error.code} ${error.message
    .replaceAll(/["'].*["']|[0-9a-f]{3,}|\d+/gs, '#')
    .split(': ')
    .at(-1)}`.slice(0, 80);
}
