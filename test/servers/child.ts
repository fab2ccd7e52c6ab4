import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { atEnd } from './at-end.ts';

const KEPT_OUTPUT_BYTES = 256 * 1024;
const children = new Set<ChildProcess>();
atEnd(() => {
  for (const child of children) child.kill('SIGKILL');
});

/** A program a test runs: its output is kept (the last 256 KiB), and it dies with the test, however that ends. */
export class Child {
  readonly process: ChildProcess;
  readonly name: string;
  #output = '';
  readonly #waiting = new Set<() => void>();

  constructor(name: string, command: string, args: readonly string[], env: Record<string, string> = {}) {
    this.name = name;
    this.process = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    children.add(this.process);
    this.process.once('exit', () => {
      children.delete(this.process);
      this.#wake();
    });
    this.process.once('error', (error) => {
      this.#output += `\n${error.message}`;
      this.#wake();
    });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#output = (this.#output + text).slice(-KEPT_OUTPUT_BYTES);
        this.#wake();
      });
    }
  }

  /** What it printed last, both streams in the order of arrival. */
  get output(): string {
    return this.#output;
  }

  get running(): boolean {
    return this.process.exitCode === null && this.process.signalCode === null && this.process.pid !== undefined;
  }

  /** Resolves with the match once the output has it; rejects with the output when the program ends or time is up. */
  async waitFor(pattern: RegExp, timeoutMs: number): Promise<RegExpMatchArray> {
    const end = performance.now() + timeoutMs;
    for (;;) {
      const match = this.#output.match(pattern);
      if (match !== null) return match;
      const left = end - performance.now();
      if (!this.running || left <= 0) {
        throw new Error(
          `${this.name}: no ${pattern} ${this.running ? 'in time' : 'before it ended'}:\n${this.#output}`,
        );
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#waiting.add(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  /** Sends the signal and waits for the end; returns the exit code, or null when a signal ended it. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    if (this.running) {
      const ended = once(this.process, 'exit');
      this.process.kill(signal);
      await ended;
    }
    return this.process.exitCode;
  }

  async exited(): Promise<number | null> {
    if (this.running) await once(this.process, 'exit');
    return this.process.exitCode;
  }

  #wake(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }
}

/** Runs a program to its end; rejects with its output unless it exits with 0. */
export async function run(command: string, args: readonly string[], env: Record<string, string> = {}): Promise<string> {
  const result = await attempt(command, args, env);
  if (result.code !== 0)
    throw new Error(`${command} ${args.join(' ')}: exit ${result.code}\n${result.stdout}${result.stderr}`);
  return result.stdout;
}

/** Runs a program to its end, whatever its exit code. */
export async function attempt(
  command: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  children.add(child);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', () => resolve());
  });
  children.delete(child);
  return { code: child.exitCode, stdout, stderr };
}
