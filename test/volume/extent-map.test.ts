import test from 'ava';
import fc from 'fast-check';
import { ExtentMap, NO_SOURCE, ZERO_SOURCE } from '../../daemon/volume/extent-map.ts';

const SECTORS = 600;

/** Per sector what is expected: the address of its bytes (or ZERO_SOURCE) and the stamp. */
class NaiveMap {
  readonly source: number[] = Array.from({ length: SECTORS }, () => NO_SOURCE);
  readonly stamp: number[] = Array.from({ length: SECTORS }, () => 0);

  insert(start: number, end: number, source: number, stamp: number): void {
    for (let sector = start; sector < end; sector++) {
      this.source[sector] = source < 0 ? source : source + (sector - start) * 512;
      this.stamp[sector] = stamp;
    }
  }

  /** Whether an answer about stamps in (after, below) is right: younger zeroes may have lent theirs to older ones. */
  allows(from: number, to: number, after: number, below: number, deadBelow: number, answer: boolean): boolean {
    const sectors = Array.from({ length: to - from }, (_, at) => from + at);
    const isZero = (sector: number): boolean => this.source[sector] === ZERO_SOURCE;
    if (!answer) {
      return sectors.some((sector) => {
        const stamp = this.stamp[sector]!;
        return isZero(sector) || stamp <= after || stamp >= below || stamp < deadBelow;
      });
    }
    return sectors.every((sector) => this.stamp[sector]! < below && (this.stamp[sector]! > after || isZero(sector)));
  }

  /** Zeroes may be known for longer than they have to be: they are joined with younger ones. */
  agrees(sector: number, deadBelow: number, found: number): boolean {
    const source = this.source[sector]!;
    if (this.stamp[sector]! >= deadBelow) return found === source;
    return found === NO_SOURCE || (source === ZERO_SOURCE && found === ZERO_SOURCE);
  }
}

function sectorsOf(map: ExtentMap, start: number, end: number): number[] {
  const found: number[] = [];
  map.forEachRun(start, end, (from, to, source) => {
    for (let sector = from; sector < to; sector++) {
      found.push(source < 0 ? source : source + (sector - from) * 512);
    }
  });
  return found;
}

type Step =
  | { do: 'insert'; start: number; length: number; zero: boolean; contiguous: boolean }
  | { do: 'kill'; back: number; sweep: boolean };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 20,
    arbitrary: fc.record({
      do: fc.constant('insert' as const),
      start: fc.integer({ min: 0, max: SECTORS - 1 }),
      length: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: SECTORS })),
      zero: fc.boolean(),
      contiguous: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('kill' as const),
      back: fc.integer({ min: 0, max: 40 }),
      sweep: fc.boolean(),
    }),
  },
);

test('an extent map agrees with a map of single sectors after any inserts, deaths and sweeps', (t) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 1200, minLength: 1, size: 'max' }), (steps) => {
      const map = new ExtentMap();
      const naive = new NaiveMap();
      let address = 4096;
      for (const one of steps) {
        if (one.do === 'kill') {
          map.deadBelow = Math.max(map.deadBelow, address - one.back * 700);
          if (one.sweep) map.sweep();
          continue;
        }
        const end = Math.min(SECTORS, one.start + one.length);
        const source = one.zero ? ZERO_SOURCE : address;
        map.insert(one.start, end, source, address);
        naive.insert(one.start, end, source, address);
        address += (end - one.start) * 512 + (one.contiguous ? 0 : 28);
      }
      for (const [from, to] of [
        [0, SECTORS],
        [17, 18],
        [100, 333],
      ] as const) {
        const found = sectorsOf(map, from, to);
        if (found.length !== to - from) return false;
        if (!found.every((source, at) => naive.agrees(from + at, map.deadBelow, source))) return false;
        const [after, below] = [address * 0.2, address * 0.9];
        if (!naive.allows(from, to, after, below, map.deadBelow, map.isNewer(from, to, after, below))) return false;
      }
      return true;
    }),
    { numRuns: 150 },
  );
  t.pass();
});

test('single-sector extents over many chunks keep order through overwrites', (t) => {
  const map = new ExtentMap();
  const naive = new Map<number, number>();
  let address = 0;
  let seed = 12345;
  for (let round = 0; round < 30_000; round++) {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    const sector = (seed >>> 8) % 5000;
    const length = 1 + ((seed >>> 4) % 3);
    address += length * 512 + 28;
    map.insert(sector, sector + length, address, address);
    for (let at = 0; at < length; at++) naive.set(sector + at, address + at * 512);
  }
  let wrong = 0;
  for (let sector = 0; sector < 5002; sector++) {
    map.forEachRun(sector, sector + 1, (_from, _to, source) => {
      if (source !== (naive.get(sector) ?? NO_SOURCE)) wrong++;
    });
  }
  t.is(wrong, 0);
});

test('a trim of a terabyte over a full map is one extent', (t) => {
  const map = new ExtentMap();
  for (let block = 0; block < 20_000; block++) map.insert(block * 16, block * 16 + 8, 1000 + block * 4124, 5);
  const full = map.bytes;
  map.insert(0, 2 ** 31, ZERO_SOURCE, 6);
  const runs: number[] = [];
  map.forEach((start, end, source) => runs.push(start, end, source));
  t.deepEqual(runs, [0, 2 ** 31, ZERO_SOURCE]);
  t.true(map.bytes < full / 10);
});

test('dead extents are not seen at once, and their memory comes back with the sweep', (t) => {
  const map = new ExtentMap();
  for (let block = 0; block < 10_000; block++) map.insert(block * 16, block * 16 + 8, block * 4124, block * 4124);
  map.deadBelow = 9_999 * 4124;
  t.deepEqual(
    sectorsOf(map, 0, 8),
    Array.from({ length: 8 }, () => NO_SOURCE),
  );
  map.sweep();
  const left: number[] = [];
  map.forEach((start) => left.push(start));
  t.deepEqual(left, [9_999 * 16]);
  t.true(map.bytes < 20_000);
});
