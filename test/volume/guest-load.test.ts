import test from 'ava';
import { ShipPace } from '../../daemon/ship/ship-pace.ts';
import { DestagePace } from '../../daemon/volume/destage-pace.ts';
import type { Clock } from '../../journal/host/host.ts';
import { LocalMarks } from '../../journal/local-marks.ts';

const MIB = 1024 * 1024;

/** A clock that stands until it is told to go on, and a guest that writes meanwhile. */
class Bench {
  nowMs = 5000;
  readonly marks: LocalMarks = new LocalMarks();

  get clock(): Clock {
    return { wallMicros: () => 0, monotonicMs: () => this.nowMs, after: () => ({ cancel: () => undefined }) };
  }

  /** `ms` go by in which so much is written, and becomes durable at their end. */
  write(bytes: number, ms: number): void {
    this.nowMs += ms;
    const to = this.marks.address('written') + bytes;
    this.marks.advanceAddress('written', to);
    this.marks.advanceAddress('durable', to);
  }
}

test('shipping rests while a guest writes fast, the less the longer something waits, and not at all when its delay is over', (t) => {
  const bench = new Bench();
  const pace = new ShipPace(bench.clock, bench.marks, { ms: 2000, bytes: 512 * MIB });
  const rests: number[] = [];
  for (let tenth = 0; tenth <= 22; tenth++) {
    bench.write(10 * MIB, 100);
    pace.note();
    rests.push(pace.restMs(10, 0));
  }
  t.is(rests[0], 0, 'what a guest is up to is known after a tenth of a second');
  t.is(rests[1], 100, 'one rest is a tenth of a second at most');
  t.true(rests.slice(1).every((rest, index) => index === 0 || rest <= rests[index]!));
  t.true(rests[10]! > 5 && rests[10]! < 15, 'half way, half of the time');
  t.is(rests.at(-1), 0);
  const shipped = bench.marks.address('durable');
  bench.write(10 * MIB, 100);
  pace.note();
  t.is(pace.restMs(10, shipped), 100, 'what is shipped waits no more');
  bench.write(1024, 200);
  pace.note();
  t.is(pace.restMs(10, shipped), 0, 'a guest that is quiet is not waited for');
});

test('shipping rests less when many bytes wait, and never without a delay', (t) => {
  for (const [delay, expected] of [
    [{ ms: 60_000, bytes: 512 * MIB }, 10],
    [{ ms: 0, bytes: 512 * MIB }, 0],
    [{ ms: 60_000, bytes: 0 }, 0],
    [{ ms: 60_000, bytes: 256 * MIB }, 0],
  ] as const) {
    const bench = new Bench();
    const pace = new ShipPace(bench.clock, bench.marks, delay);
    pace.restMs(1, 0);
    bench.write(256 * MIB, 100);
    pace.note();
    t.is(pace.restMs(10, 0), expected);
  }
});

test('writing out rests while a guest writes fast, until its lag or another bound calls for it', (t) => {
  const bench = new Bench();
  let pressure = 0;
  const pace = new DestagePace(bench.clock, bench.marks, 1024 * MIB, () => pressure);
  const rest = (position: number): number => {
    pace.begin();
    bench.write(100 * MIB, 100);
    return pace.restMs(position);
  };
  rest(0);
  t.is(rest(0), 100);
  const behind = (bytes: number): number => rest(bench.marks.address('durable') + 100 * MIB - bytes);
  bench.write(1024 * MIB, 1000);
  t.is(behind(1024 * MIB), 0);
  t.true(behind(800 * MIB) > 50 && behind(800 * MIB) < 80, 'the share grows with the square of the lag');
  pressure = 0.5;
  t.is(rest(bench.marks.address('durable')), 0);
  pressure = 0;
  pace.begin();
  bench.write(1024, 1000);
  t.is(pace.restMs(0), 0);
});
