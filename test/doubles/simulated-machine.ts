import type { Host } from '../../journal/host/host.ts';
import type { Scheduler } from '../simulation/scheduler.ts';
import { type DiskFaults, SimulatedDisk } from './simulated-disk.ts';
import { SimulatedClock, SimulatedProcess } from './simulated-process.ts';

/** A machine of the simulated world: its disk and its boot outlive the process that runs on it. */
export class SimulatedMachine {
  readonly name: string;
  readonly disk: SimulatedDisk;
  readonly #scheduler: Scheduler;
  #boot = 1;
  #process: SimulatedProcess | undefined;
  #wallOffsetMicros: number;
  readonly #clockRate: number;

  constructor(name: string, scheduler: Scheduler, faults: DiskFaults, capacityBytes: number) {
    this.name = name;
    this.#scheduler = scheduler;
    this.disk = new SimulatedDisk(scheduler, faults, capacityBytes);
    // Quartz: up to 200 parts in a million off.
    this.#clockRate = 1 + (scheduler.random.below(401) - 200) / 1e6;
    // Some time in 2026; two machines never agree to the microsecond.
    this.#wallOffsetMicros = 1_780_000_000_000_000 + scheduler.random.below(2_000_000);
  }

  /** The one started last, dead or alive. */
  get process(): SimulatedProcess | undefined {
    return this.#process;
  }

  /** Whether a process runs on the machine. */
  get running(): boolean {
    return this.#process?.alive === true;
  }

  /** Of the boot that is under way. */
  get bootId(): string {
    return `00000000-0000-4000-8000-${String(this.#boot).padStart(12, '0')}`;
  }

  /** Starts a new process; the one before must be dead. */
  start(): { host: Host; process: SimulatedProcess } {
    this.kill();
    const process = new SimulatedProcess(this.#scheduler);
    this.#process = process;
    return { host: this.#host(process), process };
  }

  /** Looks at the disk from outside, beside whatever runs, without faults. */
  observe(): Host {
    return this.#host(new SimulatedProcess(this.#scheduler, true));
  }

  #host(process: SimulatedProcess): Host {
    return {
      disk: this.disk.mount(process),
      clock: new SimulatedClock(this.#scheduler, process, () => this.#wallOffsetMicros, this.#clockRate),
      random: this.#scheduler.random.fork(),
      bootId: this.bootId,
    };
  }

  /** kill -9: nothing the process started is heard of again; the page cache stays. */
  kill(): void {
    this.#process?.kill();
  }

  /** The process dies and what was not synced may be gone; the next start is another boot. */
  losePower(): void {
    this.kill();
    this.#boot++;
    this.disk.losePower(this.#scheduler.random.pick([0, 0.1, 0.5, 0.9, 1]));
  }

  /** The wall clock steps by so many microseconds, forwards or back. */
  jumpClock(micros: number): void {
    this.#wallOffsetMicros += micros;
  }
}
