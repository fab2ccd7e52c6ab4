import type { Host } from '../../../journal/host/host.ts';
import { SimulatedContent } from '../../doubles/simulated-content.ts';
import { NO_DISK_FAULTS } from '../../doubles/simulated-disk.ts';
import { SimulatedMachine } from '../../doubles/simulated-machine.ts';
import type { SimulatedProcess } from '../../doubles/simulated-process.ts';
import { Scheduler } from '../scheduler.ts';
import { type Invariant, must } from '../violation.ts';

const DISK_BYTES = 256 * 1024 * 1024;
const LATENCY_MICROS_MAX = 100;
const LIMIT_MICROS = 600_000_000;

/** Files below one directory as they stood at one moment, by their paths. */
export interface FrozenDisk {
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly directories: ReadonlySet<string>;
  /** Of the boot that comes next. */
  readonly bootId: string;
}

/** What the page cache of a machine shows below a directory. Nothing of the run is changed by looking. */
export function freeze({ bootId, disk }: SimulatedMachine, directory: string): FrozenDisk {
  const files = new Map<string, Uint8Array>();
  for (const [path, content] of disk.files) {
    if (!path.startsWith(`${directory}/`)) continue;
    const bytes = new Uint8Array(content.size);
    content.read(bytes, 0);
    files.set(path, bytes);
  }
  return { files, directories: new Set(disk.directories), bootId };
}

/** The same with some files other than they were; undefined: gone. */
export function changed(frozen: FrozenDisk, changes: ReadonlyMap<string, Uint8Array | undefined>): FrozenDisk {
  const files = new Map(frozen.files);
  for (const [path, bytes] of changes) {
    if (bytes === undefined) files.delete(path);
    else files.set(path, bytes);
  }
  return { ...frozen, files };
}

/**
 * A machine of its own with a copy of a disk, in a time of its own: what is tried on it changes nothing in the run the copy
 * is from, nor in the next copy.
 */
export class Laboratory {
  readonly scheduler: Scheduler;
  readonly machine: SimulatedMachine;
  readonly #bootId: string;

  constructor(seed: number, frozen: FrozenDisk) {
    this.scheduler = new Scheduler(seed);
    const faults = { ...NO_DISK_FAULTS, latencyMicrosMax: LATENCY_MICROS_MAX };
    this.machine = new SimulatedMachine('laboratory', this.scheduler, faults, DISK_BYTES);
    this.#bootId = frozen.bootId;
    const { disk } = this.machine;
    for (const directory of frozen.directories) disk.directories.add(directory);
    for (const [path, bytes] of frozen.files) {
      const content = new SimulatedContent();
      content.write(bytes, 0);
      content.endSync(content.beginSync(), true);
      disk.files.set(path, content);
    }
  }

  /** A new process; the one before is dead. The machine was not started anew in between. */
  start(): { readonly host: Host; readonly process: SimulatedProcess } {
    const { host, process } = this.machine.start();
    return { process, host: { ...host, bootId: this.#bootId } };
  }

  /** Lets time pass until the promise is settled; what does not come to its end breaks the promise of that name. */
  async finish<T>(invariant: Invariant, promise: Promise<T>): Promise<T> {
    let settled = false;
    const end = promise.finally(() => {
      settled = true;
    });
    end.catch(() => undefined);
    const ended = await this.scheduler.runUntil(() => settled, LIMIT_MICROS);
    must(invariant, ended, () => 'what was begun on a copy of the disk does not come to its end');
    return end;
  }

  /** Lets so many events happen, or all there are. */
  async events(count: number): Promise<void> {
    const until = this.scheduler.events + count;
    await this.scheduler.runUntil(() => this.scheduler.events >= until, LIMIT_MICROS);
  }
}
