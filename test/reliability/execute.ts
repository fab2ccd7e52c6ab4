import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

const CHECKOUT = path.join(import.meta.dirname, '../..');
const KILL_AFTER_SECONDS = 30;
const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
const INTERRUPTED = 130;
/** The last of what it printed, characters. */
const PRINTED_MAX = 1024 * 1024;

export interface Execution {
  readonly code: number | null;
  readonly printed: string;
  readonly seconds: number;
}

/** Runs a script of package.json in a process group that ends with its time; what it prints is shown and kept. */
export async function runScript(
  script: string,
  args: readonly string[],
  limitSeconds: number,
  env: Readonly<Record<string, string>> = {},
): Promise<Execution> {
  const began = performance.now();
  const limit = [`--kill-after=${KILL_AFTER_SECONDS}`, String(Math.ceil(limitSeconds))];
  const command = [...limit, 'npm', 'run', '--silent', script, '--', ...args];
  const child = spawn('timeout', command, {
    cwd: CHECKOUT,
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  });
  let printed = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    process.stdout.write(text);
    printed = (printed + text).slice(-PRINTED_MAX);
  });
  // its group is not the terminal's: Ctrl-C ends it, and this program with it
  const interrupt = (): void => {
    child.kill('SIGTERM');
    child.once('close', () => process.exit(INTERRUPTED));
  };
  for (const signal of SIGNALS) process.once(signal, interrupt);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  for (const signal of SIGNALS) process.off(signal, interrupt);
  return { code, printed, seconds: (performance.now() - began) / 1000 };
}

/** What a program wrote with --json; undefined when it wrote nothing. */
export function readJson(file: string): unknown {
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
}
