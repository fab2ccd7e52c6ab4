import { WindowPart } from '../../daemon/nbd/export.ts';
import { ModelDisk, pattern, type Request, randomRequest, randomSource } from '../volume/support/group-bench.ts';

export const VOLUME_NAMES: readonly string[] = ['a', 'b'];
export const VOLUME_BYTES: number = 128 * 1024;

const PIECES = 3;
const PIECE_BYTES = 4096;

/** One request of the workload; it takes effect whole or not at all. Numbered from 1 in the order they are submitted. */
export interface Unit {
  readonly number: number;
  readonly volume: number;
  /** What is submitted for it: one request, or the pieces of one. */
  readonly requests: readonly Request[];
  /** Its answer says that it, and all before it, is on stable storage. */
  readonly flushes: boolean;
}

/** Units that go to the group in one window; a request in pieces is alone, and takes a window for each. */
export type Step = readonly Unit[];

/** A fixed sequence of requests over two volumes, so that any moment of it can be told from the bytes of the disks. */
export class Workload {
  readonly steps: readonly Step[];
  readonly units: readonly Unit[];

  constructor(seed: number, steps: number) {
    const random = randomSource(seed);
    const made: Step[] = [];
    let number = 0;
    for (let index = 0; index < steps; index++) {
      const volume = random(VOLUME_NAMES.length);
      if (index % 12 === 7) {
        made.push([{ number: ++number, volume, requests: piecesOf(random), flushes: false }]);
        continue;
      }
      const count = 1 + random(3);
      const step: Unit[] = [];
      for (let one = 0; one < count; one++) {
        const request = randomRequest(random, VOLUME_BYTES);
        const flushes = request.do === 'flush' || (request.do === 'write' && request.fua === true);
        step.push({ number: ++number, volume, requests: [request], flushes });
      }
      made.push(step);
    }
    this.steps = made;
    this.units = made.flat();
  }

  /** Index of the step in which the unit behind `number` is. */
  stepBehind(number: number): number {
    const index = this.steps.findIndex((step) => step.some((unit) => unit.number > number));
    return index === -1 ? this.steps.length : index;
  }

  /**
   * The last moment in [from, to] at which the disks held exactly these bytes: so many units had taken effect. Undefined
   * when they never did.
   */
  momentOf(disks: readonly Uint8Array[], from: number, to: number): number | undefined {
    const models = VOLUME_NAMES.map(() => new ModelDisk(VOLUME_BYTES));
    let found: number | undefined;
    const look = (number: number): void => {
      if (number >= from && number <= to && models.every(({ bytes }, i) => bytes.equals(disks[i] as Uint8Array))) {
        found = number;
      }
    };
    look(0);
    for (const unit of this.units) {
      if (unit.number > to) break;
      for (const request of unit.requests) models[unit.volume]?.apply(request);
      look(unit.number);
    }
    return found;
  }
}

function piecesOf(random: (bound: number) => number): Request[] {
  const offset = random((VOLUME_BYTES - PIECES * PIECE_BYTES) / 512) * 512;
  return Array.from({ length: PIECES }, (_, piece) => ({
    do: 'write',
    offset: offset + piece * PIECE_BYTES,
    bytes: pattern(PIECE_BYTES, random(2 ** 31)),
    part: piece === PIECES - 1 ? WindowPart.last : WindowPart.more,
  }));
}
