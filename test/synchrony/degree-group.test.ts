import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Shipper } from '../../daemon/ship/shipper.ts';
import { readDegree } from '../../daemon/synchrony/degree-file.ts';
import { type DegreePolicy, LOCAL_POLICY } from '../../daemon/synchrony/degree-policy.ts';
import type { FarSide } from '../../daemon/synchrony/far-side.ts';
import type { ProtectedGroup } from '../../daemon/volume/protected-group.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import type { Host } from '../../journal/host/host.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { RecordKind } from '../../journal/record.ts';
import { type DegreeChangeBody, decodeDegreeChange, decodeHeartbeat } from '../../journal/record-bodies.ts';
import { MemorySink } from '../ship/memory-sink.ts';
import { GroupBench, HandClient, MIB, pattern, until } from '../volume/support/group-bench.ts';

const TIMES = { lookMs: 5, levelMs: 20, resumeMs: 40 };
const STALL_MS = 250;
const REPLICA: DegreePolicy = { ...LOCAL_POLICY, ack: 'replica', stallAfterMs: STALL_MS };

/** A far side the test moves by hand. */
class HandFar implements FarSide {
  lsn = 0;
  lost = false;
  withoutImage: string | undefined;
  heard: FarSide['heard'] = [];
  /** Where the standby image stands still; undefined: it has what the replica has. */
  imageLsn: number | undefined;
  /** It has everything at once. */
  follows: ProtectedGroup | undefined;

  reachedLsn(ack?: string): number {
    if (ack === 'applied' && this.imageLsn !== undefined) return this.imageLsn;
    return this.follows?.journal.marks.lsn('durable') ?? this.lsn;
  }

  /** From now on it has what it has now, and no more. */
  stand(): void {
    this.lsn = this.reachedLsn();
    this.follows = undefined;
  }
}

class Rig {
  readonly bench = new GroupBench();
  readonly far = new HandFar();
  group!: ProtectedGroup;
  client!: HandClient;
  readonly #t: ExecutionContext;

  constructor(t: ExecutionContext) {
    this.#t = t;
    this.bench.disk('a.raw', 16 * MIB);
    // the product's timers keep no process alive
    const alive = setInterval(() => undefined, 1_000);
    t.teardown(async () => {
      clearInterval(alive);
      await this.group.close();
      this.bench.remove();
    });
  }

  async open(degree: DegreePolicy, host: Host = realHost(), heartbeatMs = 20): Promise<void> {
    const volumes = [{ name: 'a', backing: this.bench.backing('a.raw') }];
    this.group = await this.bench.open(this.bench.options(volumes, { degree, degreeTimes: TIMES, heartbeatMs }), host);
    this.client = new HandClient(this.group.exports('local')[0]!);
    this.group.degree.attach(this.far);
  }

  /** With a far side that keeps up until it is told to stand. */
  async openInSync(degree: DegreePolicy): Promise<void> {
    await this.open(degree);
    this.far.follows = this.group;
    await until(() => this.group.degree.status.holds === true);
  }

  until(state: string): Promise<void> {
    return until(() => this.group.degree.status.state === state);
  }

  /** What the journal says of the degree, in order. */
  async said(): Promise<(DegreeChangeBody & { lsn: number })[]> {
    await this.group.journal.sync();
    const reader = this.group.journal.reader(this.group.journal.oldestAddress);
    const found: (DegreeChangeBody & { lsn: number })[] = [];
    for (
      let batch = reader.next(this.group.journal.endAddress);
      batch;
      batch = reader.next(this.group.journal.endAddress)
    ) {
      for (const { kind, lsn, payload } of batch) {
        if (kind === RecordKind.degreeChange) found.push({ ...decodeDegreeChange(payload), lsn });
      }
    }
    await reader.close();
    return found;
  }

  /** As a kill would leave it, opened anew under the same names. */
  async restart(degree: DegreePolicy): Promise<void> {
    this.client.client.detach();
    await this.group.close();
    await this.open(degree);
  }

  write(seed: number, fua = false): Promise<string> {
    const [answer] = this.client.submit([{ do: 'write', offset: seed * 4096, bytes: pattern(4096, seed), fua }]);
    return answer ?? Promise.resolve('none');
  }

  get waiting(): number {
    return this.group.degree.status.waiting;
  }

  close(): Promise<void> {
    this.#t.is(this.group.journal.poisonedBy, undefined);
    return this.group.close();
  }
}

test('at flush, plain writes are answered at once; FLUSH and FUA when the far side has all that was written before', async (t) => {
  const rig = new Rig(t);
  await rig.openInSync(REPLICA);
  rig.far.stand();
  t.is(await rig.write(1), 'ok');
  const order: string[] = [];
  const fua = rig.write(2, true).then((answer) => order.push(`fua ${answer}`));
  const { lastLsn } = rig.group.journal;
  const flush = rig.client.flush().then((answer) => order.push(`flush ${answer}`));
  t.is(await rig.write(3), 'ok', 'nobody behind them waits');
  await until(() => rig.waiting === 2);
  rig.far.lsn = lastLsn - 1;
  rig.group.degree.moved();
  t.is(rig.waiting, 2, 'not before all of it is there');
  rig.far.lsn = lastLsn;
  rig.group.degree.moved();
  await Promise.all([fua, flush]);
  t.deepEqual(order, ['fua ok', 'flush ok']);
  rig.far.follows = rig.group;
  await rig.close();
});

test('at write every answer waits, also to zeroes and trims, and for a flush among them', async (t) => {
  const rig = new Rig(t);
  await rig.openInSync({ ...REPLICA, ackAt: 'write' });
  rig.far.stand();
  const answers = rig.client.submit([
    { do: 'write', offset: 0, bytes: pattern(4096, 1) },
    { do: 'zero', offset: 8192, length: 4096 },
    { do: 'trim', offset: 16_384, length: 4096 },
    { do: 'flush' },
  ]);
  let count = 0;
  for (const answer of answers) void answer.then(() => count++);
  await until(() => rig.waiting === 1);
  t.is(count, 0);
  rig.far.follows = rig.group;
  await until(() => count === 4);
  t.deepEqual(await Promise.all(answers), ['ok', 'ok', 'ok', 'ok']);
  await rig.close();
});

test('nothing moves for the time of a stall: the change is in the journal before who waits is answered, and ends by itself', async (t) => {
  const rig = new Rig(t);
  await rig.openInSync(REPLICA);
  await rig.client.flush();
  rig.far.stand();
  const { lsn } = rig.far;
  await rig.write(1);
  let durable: boolean | undefined;
  const flush = rig.client.flush().then((answer) => {
    const { sinceLsn } = rig.group.degree.status;
    durable = rig.group.journal.marks.lsn('durable') >= sinceLsn;
    return answer;
  });
  t.is(await flush, 'ok');
  t.true(durable, 'the record that says so is durable');
  t.is(rig.group.degree.status.state, 'degraded');
  t.false(rig.group.degree.status.holds);
  t.is(rig.group.degree.status.brokenFromLsn, lsn + 1, 'the first record the far side lacks');
  t.is(await rig.client.flush(), 'ok', 'nobody waits any more');
  rig.far.follows = rig.group;
  await rig.until('in-sync');
  await until(() => rig.group.degree.status.holds === true);
  const said = await rig.said();
  t.deepEqual(
    said.map(({ from, to, brokenFromLsn }) => [from, to, brokenFromLsn]),
    [
      ['off', 'degraded', 1],
      ['degraded', 'in-sync', 0],
      ['in-sync', 'degraded', lsn + 1],
      ['degraded', 'in-sync', 0],
    ],
  );
  const [, stretch] = rig.group.degree.status.stretches;
  t.is(stretch?.fromLsn, lsn + 1);
  t.is(stretch?.toLsn, said[3]!.lsn - 1);
  rig.far.stand();
  await rig.write(2);
  const held = rig.client.flush();
  await until(() => rig.waiting === 1);
  rig.far.follows = rig.group;
  t.is(await held, 'ok', 'it is waited for again');
  await rig.close();
});

test('an image that stands still at a replica that has everything is named in place of the far side', async (t) => {
  const rig = new Rig(t);
  await rig.openInSync({ ...REPLICA, ack: 'applied' });
  rig.far.imageLsn = rig.far.reachedLsn();
  await rig.write(1);
  t.is(await rig.client.flush(), 'ok');
  const { reason, state } = rig.group.degree.status;
  t.is(state, 'degraded');
  t.regex(reason, /; a standby image is behind what its replica holds: status there says why$/);
  rig.far.imageLsn = undefined;
  await rig.until('in-sync');
  t.is(rig.group.degree.status.reason, 'the far side keeps up');
  await rig.close();
});

test('block lets the guest wait however long it takes; fail answers with an error and keeps the promise', async (t) => {
  const blocking = new Rig(t);
  await blocking.openInSync({ ...REPLICA, onStall: 'block' });
  blocking.far.stand();
  await blocking.write(1);
  const held = blocking.client.flush();
  await blocking.until('blocked');
  t.is(blocking.waiting, 1);
  t.true(blocking.group.degree.status.holds, 'nobody was answered without it');
  blocking.far.follows = blocking.group;
  t.is(await held, 'ok');
  await blocking.until('in-sync');
  await blocking.close();

  const failing = new Rig(t);
  await failing.openInSync({ ...REPLICA, onStall: 'fail' });
  failing.far.stand();
  await failing.write(1);
  t.is(await failing.client.flush(), 'timed-out');
  t.is(failing.group.degree.status.state, 'failing');
  t.is(await failing.write(2), 'ok', 'a plain write waits for nobody');
  t.is(await failing.client.flush(), 'timed-out', 'at once');
  failing.far.follows = failing.group;
  await failing.until('in-sync');
  t.is(await failing.client.flush(), 'ok');
  await failing.close();
});

test('after a restart who was in sync is waited for again, and nobody is answered without it before a lease of the run before is over', async (t) => {
  const rig = new Rig(t);
  await rig.openInSync(REPLICA);
  await rig.client.flush();
  rig.far.stand();
  const began = performance.now();
  await rig.restart(REPLICA);
  t.is(rig.group.degree.status.state, 'in-sync');
  await rig.write(7);
  t.is(await rig.client.flush(), 'ok');
  t.true(performance.now() - began >= STALL_MS, 'it waited');
  t.is(rig.group.degree.status.state, 'degraded');

  await rig.restart(REPLICA);
  t.is(rig.group.degree.status.state, 'degraded', 'a group that was alone goes on alone');
  t.is(await rig.client.flush(), 'ok');
  t.deepEqual(
    (await rig.said()).slice(-1).map(({ from, to, reason }) => [from, to, reason]),
    [['degraded', 'degraded', 'start of the source']],
  );
  await rig.close();
});

test('an operator changes the degree while it runs: the old promise holds until no replica relies on it, the new one survives a restart', async (t) => {
  const rig = new Rig(t);
  await rig.openInSync({ ...REPLICA, stallAfterMs: 4_000 });
  const sent = { run: 'ab'.repeat(8), sentMs: 5 };
  const { clock } = realHost();
  const takenMs = clock.monotonicMs();
  rig.far.heard = [{ replica: 'site-b', sent, takenMs }];
  await until(() => rig.group.degree.lease() !== undefined);
  t.deepEqual(rig.group.degree.lease()?.heard, { 'site-b': sent });
  const local = { ...LOCAL_POLICY, stallAfterMs: 4_000 };
  const plan = await rig.group.degree.change(local, true);
  t.true(
    plan.some((step) => step.startsWith('when no replica relies on the old promise any more')),
    plan.join('; '),
  );
  t.is(rig.group.degree.status.next, undefined, 'a dry run changes nothing');
  await rig.group.degree.change(local, false);
  t.is(rig.group.degree.lease(), undefined, 'no further lease');
  rig.far.stand();
  await rig.write(1);
  const held = rig.client.flush();
  await until(() => rig.waiting === 1);
  t.is(await held, 'ok');
  t.true(clock.monotonicMs() - takenMs >= 4_000, 'not before the lease was over');
  t.is(rig.group.degree.status.state, 'off');
  t.is(rig.group.degree.status.holds, null);
  await rig.restart({ ...REPLICA, stallAfterMs: 4_000 });
  t.is(rig.group.degree.status.policy.ack, 'local', 'what the operator said wins over the same configuration');
  await rig.restart({ ...REPLICA, stallAfterMs: 4_000, onStall: 'block' });
  await rig.until('degraded');
  t.is(rig.group.degree.status.policy.onStall, 'block', 'another configuration since wins');
  t.is(rig.group.degree.status.state, 'degraded');
  await rig.close();
});

test('a degree file that cannot be believed costs a wait, never the promise of a replica', async (t) => {
  const rig = new Rig(t);
  await rig.openInSync(REPLICA);
  await rig.client.flush();
  rig.client.client.detach();
  await rig.group.close();
  const path = join(rig.bench.journalDirectory, 'degree.state');
  t.true(existsSync(path));
  const bytes = readFileSync(path);
  bytes[40] = bytes[40]! ^ 1;
  writeFileSync(path, bytes);
  rig.far.stand();
  await rig.open(LOCAL_POLICY);
  t.is(rig.group.degree.status.state, 'in-sync', 'although the configuration says local');
  t.is(rig.group.degree.status.policy.ackAt, 'write');
  const answer = rig.write(1);
  await until(() => rig.waiting === 1);
  rig.far.follows = rig.group;
  t.is(await answer, 'ok');
  await rig.close();
  rmSync(path);
});

test('a group that promises nothing beyond its host writes no file and no record about it', async (t) => {
  const rig = new Rig(t);
  await rig.open(LOCAL_POLICY);
  t.is(await rig.client.flush(), 'ok');
  t.deepEqual(await rig.said(), []);
  t.false(existsSync(join(rig.bench.journalDirectory, 'degree.state')));
  t.is(rig.group.degree.lease(), undefined);
  await rig.close();
});

test('writers are slowed down, and then stopped, before too much is on its way; a far side that moves lets them go on', async (t) => {
  const rig = new Rig(t);
  await rig.openInSync({ ...REPLICA, unshippedBytesMax: 4 * MIB, stallAfterMs: 60_000 });
  rig.far.stand();
  const big = pattern(256 * 1024, 3);
  let written = 0;
  while (rig.client.paused === 0 || rig.group.degree.status.heldBack === 0) {
    if (rig.client.paused > 0) await rig.client.ready();
    else {
      await rig.client.write((written % 32) * big.length, big);
      written += big.length;
    }
    t.true(written <= 4.5 * MIB, `${written} bytes were taken`);
  }
  t.true(written >= 3 * MIB);
  t.true((rig.group.degree.status.unshippedBytes ?? 0) >= written);
  rig.far.follows = rig.group;
  await rig.client.ready();
  t.is(rig.group.degree.status.heldBack, 0);
  await rig.close();
});

test('a sync of the journal that fails while the far side is waited for ends the wait with an error', async (t) => {
  const rig = new Rig(t);
  const real = realHost();
  let broken = false;
  const disk = new Proxy(real.disk, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name);
      if (name !== 'open') return typeof value === 'function' ? value.bind(target) : value;
      return (...args: Parameters<typeof target.open>) => {
        const file = target.open(...args);
        return new Proxy(file, {
          get(inner, key) {
            const own: unknown = Reflect.get(inner, key);
            if (key === 'dataSync' && broken) return () => Promise.reject(new TidemarkError('sync-failed', 'EIO'));
            return typeof own === 'function' ? own.bind(inner) : own;
          },
        });
      };
    },
  });
  await rig.open({ ...REPLICA, stallAfterMs: 60_000 }, { ...real, disk });
  rig.far.follows = rig.group;
  await rig.until('in-sync');
  rig.far.stand();
  await rig.write(1);
  const held = rig.client.flush();
  await until(() => rig.waiting === 1);
  t.is(rig.waiting, 1);
  broken = true;
  void rig.write(2);
  await rig.group.journal.sync().catch(() => undefined);
  t.is(await held, 'device-failed');
  rig.far.follows = rig.group;
  rig.group.degree.moved();
  await rig.group.close().catch(() => undefined);
});

test('over a real shipper: a flush waits for the word of the replica, a heartbeat names the state that was taken, a stranger and a replica that is not required count for nothing', async (t) => {
  const rig = new Rig(t);
  await rig.open({ ...REPLICA, stallAfterMs: 5_000 });
  const { journal } = rig.group;
  const sink = new MemorySink();
  const shipper = await Shipper.open(realHost(), {
    directory: rig.bench.journalDirectory,
    journal,
    marks: journal.marks,
    identity: {
      groupId: rig.bench.groupId,
      groupName: 'bench',
      epoch: journal.epoch,
      incarnation: journal.incarnation!,
      frameVersion: FRAME_VERSION,
    },
    sinks: [sink],
    replicas: [
      { name: 'dr1', required: true },
      { name: 'dr2', required: false },
    ],
    onFar: () => rig.group.degree.moved(),
  });
  rig.group.degree.attach(shipper.far);
  sink.seek(1);
  const sent = (sentMs: number) => ({ run: '0123456789abcdef', sentMs });
  const holdAll = (): void => {
    const last = sink.frames.at(-1)?.lastLsn ?? 0;
    if (last > 0) sink.hold(last, { sent: sent(last) });
  };
  await sink.sent(1);
  holdAll();
  t.true(shipper.far.reachedLsn('replica') > 0, 'the other one has never said anything');
  const pace = setInterval(holdAll, 5);
  await rig.until('in-sync');
  await until(() => sink.frames.some((frame) => leaseIn(frame) !== undefined));
  clearInterval(pace);
  const named = sink.frames.map(leaseIn).findLast((lease) => lease !== undefined);
  t.is(named?.heard['dr1']?.run, sent(0).run);
  t.deepEqual(Object.keys(named?.heard ?? {}), ['dr1']);
  await rig.write(1);
  const held = rig.client.flush();
  const { lastLsn } = journal;
  await sink.sent(lastLsn);
  await until(() => rig.waiting === 1);
  sink.hold(sink.frames.at(-1)!.lastLsn, { replica: 'dr2' });
  sink.hold(sink.frames.at(-1)!.lastLsn, { replica: 'somebody' });
  t.is(rig.waiting, 1);
  holdAll();
  t.is(await held, 'ok');
  await shipper.close();
  await rig.close();
});

function leaseIn(frame: MemorySink['frames'][number]): ReturnType<typeof decodeHeartbeat>['lease'] {
  for (let index = 0; index < frame.recordCount; index++) {
    if (frame.record(index).kind !== RecordKind.heartbeat) continue;
    const { lease } = decodeHeartbeat(frame.payloadOf(index));
    if (lease !== undefined) return lease;
  }
  return undefined;
}

test('a change that was written down and could not be journalled is tried again, and meanwhile the old promise holds', async (t) => {
  const rig = new Rig(t);
  await rig.openInSync(REPLICA);
  const { journal } = rig.group;
  const append = journal.append.bind(journal);
  let refused = 0;
  journal.append = (kind, options) => {
    if (kind === RecordKind.degreeChange && refused < 3) {
      refused += 1;
      throw new TidemarkError('journal-full', 'for the test');
    }
    return append(kind, options);
  };
  await rig.group.degree.change({ ...REPLICA, ackAt: 'write' }, false);
  await until(() => refused === 1);
  t.like(rig.group.degree.status, { policy: REPLICA, next: { ...REPLICA, ackAt: 'write' }, state: 'in-sync' });
  t.is(rig.group.degree.lease(), undefined);
  await until(() => rig.group.degree.status.policy.ackAt === 'write' && rig.group.degree.status.holds === true);
  t.is(refused, 3);
  t.is(rig.group.degree.status.next, undefined);
  await rig.close();
});

test('a start says that nothing is promised any more, when the run before was killed before it could', async (t) => {
  const rig = new Rig(t);
  await rig.openInSync(REPLICA);
  const { journal } = rig.group;
  const append = journal.append.bind(journal);
  let refused = 0;
  journal.append = (kind, options) => {
    if (kind !== RecordKind.degreeChange) return append(kind, options);
    refused += 1;
    throw new TidemarkError('journal-full', 'for the test');
  };
  await rig.group.degree.change(LOCAL_POLICY, false);
  await until(() => refused > 0);
  await rig.restart(REPLICA);
  rig.far.stand();
  t.like(rig.group.degree.status, { state: 'off', policy: LOCAL_POLICY });
  t.is(await rig.write(1, true), 'ok', 'answered alone');
  t.like((await rig.said()).at(-1), { to: 'off', ack: 'local' }, 'and the replica can know it');
  await rig.close();
});

test('a change whose file may be there or not is taken back in the file before a replica may rely on what holds', async (t) => {
  const rig = new Rig(t);
  const real = realHost();
  const place = { directory: rig.bench.journalDirectory, groupId: rig.bench.groupId };
  const filed = (): object | undefined => readDegree(real, place);
  let failing = false;
  const disk = Object.create(real.disk) as Host['disk'];
  disk.syncDirectory = (path) => {
    const isOurs = failing && JSON.stringify(filed()).includes('"state":"degraded"');
    if (!isOurs) return real.disk.syncDirectory(path);
    failing = false;
    // and at this very moment the far side comes back
    rig.far.follows = rig.group;
    return Promise.reject(new TidemarkError('sync-failed', 'for the test'));
  };
  await rig.open(REPLICA, { ...real, disk });
  rig.far.follows = rig.group;
  await until(() => rig.group.degree.status.holds === true);
  const { sinceLsn } = rig.group.degree.status;
  rig.far.stand();
  failing = true;
  await rig.write(1);
  await until(() => !failing);
  rig.far.heard = [{ replica: 'site-b', sent: { run: 'ab'.repeat(8), sentMs: 5 }, takenMs: 0 }];
  await until(() => rig.group.degree.lease() !== undefined);
  t.like(rig.group.degree.status, { state: 'in-sync', sinceLsn });
  t.like(filed(), { state: 'in-sync', brokenFromLsn: 0 });
  await rig.close();
});
