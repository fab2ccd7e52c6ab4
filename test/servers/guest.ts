import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { Child, run } from './child.ts';
import { QmpClient } from './qmp-client.ts';

/** Where the set-up puts the guest's kernel, initial ram disk and the `rec` program. */
function guestDirectory(): string {
  const cache = process.env['XDG_CACHE_HOME'] ?? path.join(homedir(), '.cache');
  return process.env['TIDEMARK_GUEST'] ?? path.join(cache, 'tidemark', 'guest');
}

export interface GuestOptions {
  /** The disk: an NBD URI or a whole -blockdev option whose node is `disk0`. */
  readonly disk: string;
  /** A directory of the test's for serial log and monitor socket. */
  readonly directory: string;
  /** Seconds a request waits for a lost NBD server before the guest sees an error. */
  readonly reconnectDelay: number;
  /** Microseconds between two steps of the workload. */
  readonly pauseMicros?: number;
  /** Steps, then a clean power-off; endless when absent. */
  readonly steps?: number;
  /** The disk is the guest kernel's own NBD client's instead: `host:port/export`, the host being 10.0.2.2. */
  readonly kernelNbd?: { readonly address: string; readonly connections: number };
}

/** A real Linux guest whose workload writes numbered records, syncs each, and prints `DURABLE n` (test/guest). */
export class Guest {
  readonly child: Child;
  readonly serialLog: string;
  readonly #monitorPath: string;

  private constructor(child: Child, serialLog: string, monitorPath: string) {
    this.child = child;
    this.serialLog = serialLog;
    this.#monitorPath = monitorPath;
  }

  static start(options: GuestOptions): Guest {
    const serialLog = path.join(options.directory, 'serial.log');
    const monitor = path.join(options.directory, 'qmp.sock');
    fs.writeFileSync(serialLog, '');
    const append = [`tm.usleep=${options.pauseMicros ?? 0}`];
    if (options.steps !== undefined) append.push(`tm.count=${options.steps}`);
    const nbd = options.kernelNbd;
    if (nbd !== undefined) append.push(`tm.nbd=${nbd.address}`, `tm.nbdconnections=${nbd.connections}`);
    const script = path.join(import.meta.dirname, '../guest/run-guest.sh');
    const child = new Child('guest', 'bash', [script, guestDirectory(), 'write', options.disk], {
      SERIAL: serialLog,
      QMP: monitor,
      RD: String(options.reconnectDelay),
      APPEND: append.join(' '),
      ...(nbd === undefined ? {} : { NET: 'user' }),
    });
    return new Guest(child, serialLog, monitor);
  }

  /** The newest record the guest has said to be durable; 0 before the first. */
  lastDurable(): number {
    const matches = fs.readFileSync(this.serialLog, 'utf8').match(/^DURABLE \d+/gm);
    return matches === null ? 0 : Number((matches[matches.length - 1] as string).slice(8));
  }

  serial(): string {
    return fs.readFileSync(this.serialLog, 'utf8');
  }

  /** Resolves when the guest has made at least this many records durable. */
  async waitForDurable(count: number, timeoutMs: number): Promise<void> {
    const end = performance.now() + timeoutMs;
    while (this.lastDurable() < count) {
      if (performance.now() > end || !this.child.running) {
        throw new Error(
          `the guest stands at ${this.lastDurable()} of ${count}:\n${this.serial().slice(-2000)}\n${this.child.output}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  monitor(): Promise<QmpClient> {
    return QmpClient.connect(this.#monitorPath);
  }

  /** Cuts the guest's power. */
  async kill(): Promise<void> {
    await this.child.stop('SIGKILL');
  }
}

/** An ext4 file system on a new raw file, as the guest's workload wants it. */
export async function makeGuestDisk(file: string, bytes: number): Promise<void> {
  fs.writeFileSync(file, '');
  fs.truncateSync(file, bytes);
  await run('mkfs.ext4', ['-q', '-E', 'lazy_itable_init=0,nodiscard', file]);
}

/**
 * Mounts a copy of the image (its journal is replayed), verifies the records and checks the file system; `atLeast` is
 * the newest record that must be there. Root only. Resolves with what the check printed.
 */
export async function checkGuestImage(image: string, directory: string, atLeast: number): Promise<string> {
  const log = path.join(directory, `wanted-${path.basename(image)}.log`);
  fs.writeFileSync(log, `DURABLE ${atLeast}\n`);
  const script = path.join(import.meta.dirname, '../guest/check-cut.sh');
  return run('bash', [script, guestDirectory(), image, log]);
}

/** Why no guest can be run here, or undefined. Checking its image needs root. */
export function guestMissing(): string | undefined {
  if (process.getuid?.() !== 0) return 'not root, so no image of a guest can be mounted and checked';
  if (spawnSync('qemu-system-x86_64', ['--version']).status !== 0) return 'no qemu-system-x86_64';
  return fs.existsSync(path.join(guestDirectory(), 'initrd.gz')) ? undefined : `no test guest in ${guestDirectory()}`;
}
