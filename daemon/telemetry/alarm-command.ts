import { spawn } from 'node:child_process';
import type { AlarmChange } from './alarms.ts';
import type { Log } from './log.ts';

/**
 * Runs the operator's alarm command, one at a time, with the change as one line of JSON on its standard input. It may
 * hang or fail without any effect on the daemon: it has a time limit, and a bounded queue that drops the oldest.
 */
export class AlarmCommand {
  readonly #argv: readonly string[];
  readonly #log: Log;
  readonly #timeoutMs: number;
  readonly #waiting: AlarmChange[] = [];
  #running: Promise<void> | undefined;

  constructor(argv: readonly string[], log: Log, timeoutMs = 10_000) {
    this.#argv = argv;
    this.#log = log;
    this.#timeoutMs = timeoutMs;
  }

  run(change: AlarmChange): void {
    if (this.#waiting.length === WAITING_MAX) {
      const dropped = this.#waiting.shift();
      this.#log.error({ code: 'alarm-command-queue-full', dropped }, 'an alarm did not reach the alarm command');
    }
    this.#waiting.push(change);
    this.#running ??= this.#drain();
  }

  /** Resolves when nothing is running or waiting. */
  async idle(): Promise<void> {
    await this.#running;
  }

  async #drain(): Promise<void> {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      const problem = await this.#spawn(next);
      if (problem !== undefined) {
        this.#log.error({ code: 'alarm-command-failed', command: this.#argv[0], alarm: next.alarm.code }, problem);
      }
    }
    this.#running = undefined;
  }

  #spawn(change: AlarmChange): Promise<string | undefined> {
    return new Promise((resolve) => {
      const [program, ...words] = this.#argv;
      const child = spawn(program ?? '', words, { stdio: ['pipe', 'ignore', 'ignore'] });
      const timer = setTimeout(() => {
        child.kill('SIGKILL');
        resolve(`the alarm command took longer than ${this.#timeoutMs} ms and was killed`);
      }, this.#timeoutMs);
      const end = (problem: string | undefined): void => {
        clearTimeout(timer);
        resolve(problem);
      };
      child.once('error', (error) => end(`the alarm command cannot be started: ${error.message}`));
      child.once('close', (code, signal) =>
        end(code === 0 ? undefined : `the alarm command ended with ${code ?? signal}`),
      );
      // a command that does not read its input closes the pipe
      child.stdin.on('error', () => undefined);
      child.stdin.end(`${JSON.stringify({ change: change.change, ...change.alarm })}\n`);
    });
  }
}

const WAITING_MAX = 64;
