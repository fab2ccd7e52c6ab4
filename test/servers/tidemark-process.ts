import fs from 'node:fs';
import path from 'node:path';
import { attempt, Child, run } from './child.ts';

const CHECKOUT = path.join(import.meta.dirname, '../..');
const NODE = process.execPath;
const QUIET = ['--disable-warning=TimeoutNegativeWarning'];

/** A role of the product as a user runs it: the command with a config file. */
export class TidemarkProcess {
  readonly role: 'source' | 'replica';
  readonly configFile: string;
  readonly socket: string;
  #child: Child | undefined;

  constructor(role: 'source' | 'replica', configFile: string, socket: string) {
    this.role = role;
    this.configFile = configFile;
    this.socket = socket;
  }

  get child(): Child {
    if (this.#child === undefined) throw new Error(`${this.role} was not started`);
    return this.#child;
  }

  get pid(): number {
    return this.child.process.pid as number;
  }

  /** Starts the daemon; resolves when its control socket answers. */
  async start(timeoutMs = 60_000): Promise<void> {
    this.#child = new Child(this.role, NODE, [...QUIET, cliMain(), this.role, '--config', this.configFile]);
    const end = performance.now() + timeoutMs;
    for (;;) {
      if (!this.#child.running) throw new Error(`${this.role} ended:\n${this.#child.output}`);
      if (fs.existsSync(this.socket) && (await this.attempt('status', '-o', 'json')).code === 0) return;
      if (performance.now() > end) throw new Error(`${this.role} does not answer:\n${this.#child.output}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Runs a command of the CLI against this daemon. */
  async command(...args: readonly string[]): Promise<string> {
    if (!this.child.running) throw new Error(`the ${this.role} has ended by itself:\n${this.child.output}`);
    return run(NODE, [...QUIET, cliMain(), ...args, '--socket', this.socket]);
  }

  attempt(...args: readonly string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
    return attempt(NODE, [...QUIET, cliMain(), ...args, '--socket', this.socket]);
  }

  /** kill -9, then waits until it is gone. */
  async kill(): Promise<void> {
    await this.child.stop('SIGKILL');
  }

  async stop(): Promise<number | null> {
    return this.child.stop('SIGTERM');
  }

  async stopIfRunning(): Promise<void> {
    if (this.#child?.running === true) await this.#child.stop('SIGTERM');
  }
}

export function cliMain(): string {
  return path.join(CHECKOUT, 'cli/main.ts');
}
