import test from 'ava';
import { RecordKind } from '../../journal/record.ts';
import { encodeDegreeChange, encodeGap, encodeHeartbeat, type LeaseBody } from '../../journal/record-bodies.ts';
import { CatalogBuilder, EMPTY_CATALOG } from '../../replica/catalog/catalog.ts';
import { clipCatalog } from '../../replica/catalog/clip-catalog.ts';
import { PromiseOfSource, type RpoClaim } from '../../replica/receive/promise-of-source.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../replica/replica-group.ts';
import { GROUP, HandSource, History, seal } from './support/history.ts';
import { type MemoryHost, memoryHost } from './support/memory-host.ts';

const SYNC = { ack: 'replica', ackAt: 'flush' };

/** What a source says, record by record, and the replica that hears it. */
class Said {
  readonly catalog = new CatalogBuilder(EMPTY_CATALOG);
  readonly host: MemoryHost = memoryHost(1);
  readonly promise = new PromiseOfSource(this.host, 'r1', () => this.catalog.promise);
  lsn = 0;

  degree(to: string, edit: { ack?: string; ackAt?: string; brokenFromLsn?: number } = {}): void {
    const body = { from: 'x', to, reason: 'for the test', ...SYNC, ...edit };
    this.#record(RecordKind.degreeChange, encodeDegreeChange(body));
  }

  /** A heartbeat that names this state of ours. */
  lease(sent: LeaseBody['heard'][string], leaseMs = 10_000, name = 'r1'): void {
    const lease = { ...SYNC, leaseMs, heard: { [name]: sent } };
    this.#record(RecordKind.heartbeat, encodeHeartbeat({ monotonicMs: 1, wallMicros: 1, lease }));
  }

  claim(damaged = false, durableLsn = this.lsn): RpoClaim {
    return this.promise.claim(durableLsn, damaged);
  }

  gap(): void {
    this.#record(RecordKind.gap, encodeGap({ fromLsn: 1, toLsn: 2, reason: 'no room' }), this.lsn - 1);
  }

  #record(kind: RecordKind, body: Uint8Array, afterLsn = this.lsn): void {
    this.lsn += 1;
    this.catalog.control(kind, this.lsn, this.lsn * 1_000_000, body, afterLsn);
    this.catalog.advance(this.lsn);
  }
}

test('a replica claims that nothing is missing while a lease that names a state of its run lasts, less the drift of two clocks, and no longer', (t) => {
  const said = new Said();
  said.degree('in-sync');
  said.host.clock.advance(500);
  const sent = said.promise.nameState()!;
  said.host.clock.advance(100);
  t.is(said.claim().rpo, 'unknown', 'nobody has vouched for it');
  said.lease(sent);
  t.like(said.claim(), { rpo: 'zero', promise: 'replica at flush', sureForMs: 9_800 });
  t.like(said.claim(true), { rpo: 'unknown' }, 'what cannot be read is not here');
  said.host.clock.advance(9_799);
  t.is(said.claim().rpo, 'zero');
  said.host.clock.advance(2);
  t.is(said.claim().rpo, 'unknown', 'counted from when it was sent, not from when the lease came');
  t.regex(said.claim().reason, /^for 9\.9 s the source has not said/);
  said.lease(said.promise.nameState()!);
  t.is(said.claim().rpo, 'zero');
});

test('a promise counts from when the record that makes it is durable: what was answered before it may only be in memory here', (t) => {
  const said = new Said();
  said.degree('in-sync');
  const beginLsn = said.lsn;
  said.lease(said.promise.nameState()!);
  t.like(said.claim(false, beginLsn - 1), {
    rpo: 'unknown',
    reason: `it begins at LSN ${beginLsn}, and that is not durable here yet`,
  });
  t.is(said.claim(false, beginLsn).rpo, 'zero');
});

test('a lease of another run or for another replica says nothing, and whatever takes the promise back ends it', (t) => {
  const said = new Said();
  said.degree('in-sync');
  const sent = said.promise.nameState()!;
  said.lease({ ...sent, run: '0'.repeat(16) });
  t.is(said.claim().rpo, 'unknown');
  said.lease(sent, 10_000, 'r2');
  t.is(said.claim().rpo, 'unknown');
  said.lease(sent);
  t.is(said.claim().rpo, 'zero');
  said.degree('blocked');
  t.is(said.claim().rpo, 'zero', 'who waits is not answered');
  said.degree('degraded', { brokenFromLsn: 9 });
  t.like(said.claim(), {
    rpo: 'unknown',
    reason: 'the source has answered without the far side since LSN 9',
  });
  said.degree('in-sync');
  t.is(said.claim().rpo, 'unknown', 'a lease of before says nothing of now');
  said.lease(said.promise.nameState()!);
  t.is(said.claim().rpo, 'zero');
  said.gap();
  t.is(said.claim().rpo, 'unknown', 'records are missing');
  said.degree('off', { ack: 'local' });
  t.like(said.claim(), { rpo: 'unknown', promise: '' });
  said.degree('in-sync', { ack: 'stream' });
  t.like(said.claim(), { rpo: 'unknown', reason: 'the source does not wait for replicas' });
});

test('the timeline says from which record to which a promise was not kept, once however often a start repeats it', (t) => {
  const said = new Said();
  said.degree('degraded', { brokenFromLsn: 1 });
  said.degree('in-sync');
  said.degree('in-sync');
  said.degree('degraded', { brokenFromLsn: 3 });
  said.degree('degraded', { brokenFromLsn: 3 });
  said.degree('in-sync');
  const events = said.catalog.snapshot().events.map(({ kind, lsn, text }) => [kind, lsn, text]);
  t.deepEqual(events, [
    ['degree', 1, 'ack replica at flush is degraded, not kept from LSN 1 on: for the test'],
    ['degree', 2, 'ack replica at flush is in-sync, was not kept from LSN 1 to 1: for the test'],
    ['degree', 4, 'ack replica at flush is degraded, not kept from LSN 3 on: for the test'],
    ['degree', 6, 'ack replica at flush is in-sync, was not kept from LSN 3 to 5: for the test'],
  ]);
  const whole = said.catalog.snapshot();
  t.is(clipCatalog(whole, 6).degree?.state, 'in-sync');
  t.is(clipCatalog(whole, 5).degree, undefined, 'what was cut is not known any more');
  t.is(new CatalogBuilder(whole).promise.degree?.lsn, 6);
});

test('a replica that guests wait for tells every sync at once, and names the state; one nobody waits for does neither', async (t) => {
  for (const waited of [true, false]) {
    const host = memoryHost(7);
    const history = new History(7);
    history.addVolumes();
    const degree = waited ? { ...SYNC, from: 'degraded', to: 'in-sync', reason: '' } : undefined;
    if (degree !== undefined) history.push(RecordKind.degreeChange, { payload: encodeDegreeChange(degree) });
    history.fill(80);
    const options = { ...REPLICA_DEFAULTS, directory: '/replica', groupId: GROUP, replica: 'r1', reserveBytes: 0 };
    const group = await ReplicaGroup.open(host, options);
    const source = new HandSource();
    group.start(source);
    for (const frame of seal(history, { recordsPerFrame: () => 20 })) {
      source.push(frame);
      await group.idle();
    }
    t.is(group.headLsn, history.lastLsn);
    const told = source.feedbacks.map(({ durableLsn }) => durableLsn);
    if (waited) {
      t.is(told.at(-1), history.lastLsn, 'no time had to pass');
      t.regex(source.last?.sent?.run ?? '', /^[0-9a-f]{16}$/);
      t.is(source.last?.sent?.sentMs, host.clock.monotonicMs());
    } else {
      t.deepEqual(told, [0]);
      t.is(source.last?.sent, undefined);
    }
    await group.close();
  }
});
