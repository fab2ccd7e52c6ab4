import test from 'ava';
import { RecordKind } from '../../journal/record.ts';
import { encodeHeartbeat, encodeIncarnation } from '../../journal/record-bodies.ts';
import { CatalogBuilder, EMPTY_CATALOG } from '../../replica/catalog/catalog.ts';
import { clipCatalog } from '../../replica/catalog/clip-catalog.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../replica/replica-group.ts';
import { EPOCH_MICROS, GROUP, HandSource, History, seal } from './support/history.ts';
import { memoryHost } from './support/memory-host.ts';

const SECOND = 1_000_000;
const WEEK = 7 * 86_400 * SECOND;
const WINDOW_SECONDS = 60;

/** A source by two clocks, one write and one heartbeat a second. */
class ClockedHistory {
  readonly history = new History(1);
  wall = EPOCH_MICROS;
  #monotonicMs = 5_000;

  constructor() {
    this.history.addVolumes();
  }

  run(seconds: number): void {
    for (let second = 0; second < seconds; second++) {
      this.wall += SECOND;
      this.#monotonicMs += 1000;
      const payload = new Uint8Array(8192).map(() => this.history.random.below(256));
      this.#push(RecordKind.write, { volume: 1, sector: (second % 128) * 16, sectors: 16, payload });
      this.#push(RecordKind.heartbeat, {
        payload: encodeHeartbeat({ monotonicMs: this.#monotonicMs, wallMicros: this.wall }),
      });
    }
  }

  /** LSN of the newest record that is at least so many seconds of running old. */
  lsnBefore(seconds: number): number {
    return this.history.lastLsn - 2 * seconds;
  }

  #push(kind: RecordKind, options: object): void {
    this.history.push(kind, { time: this.wall, ...options });
  }
}

async function replicaOf({ history }: ClockedHistory): Promise<ReplicaGroup> {
  const group = await ReplicaGroup.open(memoryHost(1), {
    ...REPLICA_DEFAULTS,
    directory: '/replica',
    groupId: GROUP,
    replica: 'r1',
    segmentBytes: 64 * 1024,
    reserveBytes: 64 * 1024,
    policy: { windowMs: WINDOW_SECONDS * 1000, bytesMax: 0 },
  });
  const source = new HandSource();
  group.start(source);
  for (const frame of seal(history)) {
    source.push(frame);
    await group.idle();
  }
  return group;
}

test('a wall clock set forward by a week ages nothing: the window is kept until it has passed by a clock that runs', async (t) => {
  const source = new ClockedHistory();
  source.run(200);
  const early = await replicaOf(source);
  const floorBefore = early.retention().floorLsn;
  t.true(floorBefore > 0 && floorBefore <= source.lsnBefore(WINDOW_SECONDS), 'without a step the window moves');
  await early.close();

  source.wall += WEEK;
  source.run(3);
  const stepped = await replicaOf(source);
  const atStep = stepped.retention();
  t.true(atStep.floorLsn <= source.lsnBefore(WINDOW_SECONDS), `${atStep.floorLsn}`);
  await stepped.close();

  source.run(WINDOW_SECONDS * 3);
  const later = await replicaOf(source);
  const { floorLsn } = later.retention();
  t.true(floorLsn > source.lsnBefore(WINDOW_SECONDS * 2), 'the window has passed: what lay before the step may go');
  t.true(floorLsn <= source.lsnBefore(WINDOW_SECONDS));
  await later.close();
});

test('the records behind a step, before the next heartbeat, age nothing either', async (t) => {
  const source = new ClockedHistory();
  source.run(200);
  const { history } = source;
  for (let i = 0; i < 40; i++) {
    const payload = new Uint8Array(8192).map(() => history.random.below(256));
    history.push(RecordKind.write, { volume: 1, sector: i * 16, sectors: 16, payload, time: source.wall + WEEK });
  }
  const group = await replicaOf(source);
  t.true(group.retention().floorLsn <= history.lastLsn - 40 - 2 * WINDOW_SECONDS);
  await group.close();
});

test('a clock that runs too fast, and time while no source ran, age nothing; what is known of it is kept in the state', (t) => {
  const builder = new CatalogBuilder(EMPTY_CATALOG);
  let lsn = 0;
  const beat = (seconds: number, monotonicMs: number): void => {
    lsn += 1;
    const body = encodeHeartbeat({ monotonicMs, wallMicros: 0 });
    builder.control(RecordKind.heartbeat, lsn, seconds * SECOND, body);
  };
  for (let second = 0; second <= 10; second++) beat(second * 1.5, second * 1000);
  const passed = (): number => builder.unvouched.reduce((sum, { micros }) => sum + micros, 0);
  t.is(passed(), 5 * SECOND, 'half a second of each');
  lsn += 1;
  const start = encodeIncarnation({ counter: 2, nonce: 'ab'.repeat(8), bootId: 'c'.repeat(32) });
  builder.control(RecordKind.incarnation, lsn, 100 * SECOND, start);
  beat(115, 90_000_000);
  t.is(passed(), 105 * SECOND);
  beat(116, 90_001_000);
  t.is(passed(), 105 * SECOND);
  t.deepEqual(new CatalogBuilder(builder.snapshot()).unvouched, builder.unvouched);
  for (let i = 1; i <= 3000; i++) beat(116 + i * 10, 90_001_000);
  t.true(builder.unvouched.length <= 1000);
  t.is(passed(), (105 + 30_000) * SECOND, 'of many stretches none is forgotten');
  builder.trim(lsn);
  t.deepEqual(builder.unvouched, []);
});

test('a step of the clock ages nothing when what showed it is cut off and comes again', (t) => {
  const jumpAt = 11;
  const feed = (builder: CatalogBuilder, fromLsn: number, toLsn: number): void => {
    for (let lsn = fromLsn; lsn <= toLsn; lsn++) {
      const time = lsn * SECOND + (lsn >= jumpAt ? WEEK : 0);
      const body = encodeHeartbeat({ monotonicMs: lsn * 1000, wallMicros: time });
      builder.control(RecordKind.heartbeat, lsn, time, body);
      builder.advance(lsn);
    }
  };
  for (let cutTo = 1; cutTo <= 15; cutTo++) {
    const whole = new CatalogBuilder(EMPTY_CATALOG);
    feed(whole, 1, 15);
    // as it is read from the state
    const cut = new CatalogBuilder(clipCatalog(JSON.parse(JSON.stringify(whole.snapshot())), cutTo));
    feed(cut, cutTo + 1, 20);
    t.deepEqual(cut.unvouched, [{ lsn: jumpAt, micros: WEEK }], `cut to ${cutTo}`);
    t.is(cut.heartbeat?.lsn, 20);
  }
});
