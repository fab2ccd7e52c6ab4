import test from 'ava';
import { type ArrivedFrame, EarlyFrames } from '../../replica/receive/early-frames.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../replica/replica-group.ts';
import { GROUP, HandSource, History, seal } from './support/history.ts';
import { memoryHost } from './support/memory-host.ts';

const frame = (bytes: number, streamOffset = ''): ArrivedFrame => ({ bytes: new Uint8Array(bytes), streamOffset });

test('early frames are bounded in bytes and in number, and one that is replaced frees its room', (t) => {
  const early = new EarlyFrames(100, 3);
  t.true(early.hold(10, frame(40)));
  t.true(early.hold(20, frame(60)), 'exactly the room there is');
  t.false(early.hold(30, frame(1)), 'no byte more');
  t.true(early.hold(20, frame(50, 'again')), 'in the place of the other');
  t.true(early.hold(30, frame(10)));
  t.is(early.count, 3);
  t.false(early.hold(40, frame(0)), 'no frame more');
  t.true(early.hold(30, frame(1)), 'one more for a place that is taken');
  t.is(early.take(9), undefined);
  t.is(early.take(10)?.bytes.length, 40);
  t.is(early.take(10), undefined, 'taken once');
  t.true(early.hold(40, frame(49)), 'what was taken has made room');
  t.false(early.hold(50, frame(1)));
  t.like(early.take(25), { streamOffset: 'again' });
  early.clear();
  t.is(early.count, 0);
  t.is(early.take(1000), undefined);
  t.true(early.hold(1, frame(100)), 'all the room is back');
});

test('an early frame that finds the disk full when its turn comes is kept, and taken when there is room', async (t) => {
  const history = new History(41);
  history.addVolumes();
  history.fill(90);
  const host = memoryHost(41);
  const group = await ReplicaGroup.open(host, {
    ...REPLICA_DEFAULTS,
    directory: '/replica',
    groupId: GROUP,
    replica: 'r1',
    reserveBytes: 0,
    segmentBytes: 1024 * 1024,
  });
  const source = new HandSource();
  group.start(source);
  const frames = seal(history, { recordsPerFrame: () => 30 });
  t.is(frames.length, 3);
  const [first, second, third] = frames as [(typeof frames)[0], (typeof frames)[0], (typeof frames)[0]];
  source.push(first);
  await group.idle();
  source.push(third);
  await group.idle();
  t.is((await group.status()).receiver.earlyFrames, 1);
  host.disk.capacity = host.disk.used() + second.bytes.length + 300;
  source.push(second);
  await group.idle();
  t.is(group.headLsn, 60);
  t.is(source.last?.state, 'replica-full');
  t.true(source.paused);
  t.is((await group.status()).receiver.earlyFrames, 1, 'it is still held');
  host.disk.capacity = Number.MAX_SAFE_INTEGER;
  host.clock.advance(REPLICA_DEFAULTS.receiver.spaceProbeMs);
  await group.idle();
  t.is(group.headLsn, 90, 'and nobody had to send it again');
  t.false(source.paused);
  t.is((await group.status()).receiver.missingFrom, 0);
  await group.close();
});
