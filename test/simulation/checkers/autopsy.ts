import type { SimulatedMachine } from '../../doubles/simulated-machine.ts';
import { JOURNAL_DIRECTORY } from '../names.ts';
import type { RunOptions } from '../run-options.ts';
import { SeededRandom } from '../seeded-random.ts';
import type { AppendedRecords } from './appended-records.ts';
import { type FrozenDisk, freeze } from './frozen-disk.ts';
import { checkLostTail } from './lost-tail.ts';
import { journalOptions, type Look } from './recovered-journal.ts';
import { checkRecoveredAgain, checkTurnedBit } from './recovery-again.ts';
import { checkRefused } from './refused-journal.ts';

/** Not the numbers the run draws: it is the same run with and without this. */
const OWN_NUMBERS = 0x5eed_a070;
/** Of all runs; each costs a few starts more. */
const SHARE = 0.5;

/** One crash of a run, looked at when the run is over: on copies of what it had left of the source's journal. */
export class Autopsy {
  readonly #random: SeededRandom;
  readonly #options: RunOptions;
  readonly #appended: AppendedRecords;
  readonly #wanted: boolean;
  #crashes = 0;
  #frozen: FrozenDisk | undefined;

  constructor(seed: number, options: RunOptions, appended: AppendedRecords) {
    this.#random = new SeededRandom(seed ^ OWN_NUMBERS);
    this.#options = options;
    this.#appended = appended;
    this.#wanted = this.#random.chance(SHARE);
  }

  /** The machine has just gone down; of all the times it did so one is kept, each as likely. */
  consider(machine: SimulatedMachine): void {
    if (!this.#wanted) return;
    this.#crashes++;
    if (this.#random.below(this.#crashes) === 0) this.#frozen = freeze(machine, JOURNAL_DIRECTORY);
  }

  async perform(): Promise<void> {
    const frozen = this.#frozen;
    if (frozen === undefined || frozen.files.size === 0) return;
    const random = this.#random;
    const options = journalOptions(this.#options);
    const look: Look = (record, header) => this.#appended.mustHold(record, header);
    const whole = await checkRecoveredAgain(frozen, options, random, look);
    await checkTurnedBit(frozen, options, random, look);
    await checkRefused(frozen, options, random);
    if (whole !== undefined) await checkLostTail(frozen, options, whole, random, look);
  }
}
