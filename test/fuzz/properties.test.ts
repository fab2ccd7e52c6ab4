import { crc32c } from '@node-rs/crc32';
import test from 'ava';
import fc from 'fast-check';
import { parseDuration, parseSize } from '../../daemon/config/units.ts';
import { formatNbdUri, type NbdAddress, parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import * as direct from '../../daemon/stream/direct/direct-protocol.ts';
import { decodeFeedback, encodeFeedback } from '../../daemon/stream/kafka/feedback-codec.ts';
import { decodeLogDirsResponse } from '../../daemon/stream/kafka/log-dirs-codec.ts';
import { ChangeMap, GRANULE_BYTES } from '../../daemon/volume/change-map.ts';
import { readStateFile, writeStateFile } from '../../daemon/volume/state-file.ts';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import { readStopMark, writeStopMark } from '../../journal/stop-mark.ts';
import type { ReplicaFeedback } from '../../journal/stream.ts';
import type { Lease } from '../../replica/base/leases.ts';
import { decideRetention } from '../../replica/base/retention-policy.ts';
import { checkPage, decodeFooter, encodeFooter, PAGE_BYTES, sealPage } from '../../replica/index/run-format.ts';
import { ReplicaGroup } from '../../replica/replica-group.ts';
import { assertAllowed, planRestore } from '../../replica/restore/restore-plan.ts';
import { parseRestoreTarget } from '../../replica/restore/restore-target.ts';
import { PositionMark } from '../../replica/store/position-mark.ts';
import { readReplicaState, StateKeeper } from '../../replica/store/replica-state.ts';
import * as segment from '../../replica/store/segment-format.ts';
import { goldenReplicaOptions, makeReplica } from '../golden/make-replica.ts';
import { GROUP } from '../replica/support/history.ts';
import { MemoryDisk, type MemoryHost, memoryHost } from '../replica/support/memory-host.ts';
import { logDirsResponse } from './targets/streams.ts';

const PLACE = { directory: '/s', groupId: GROUP };
const u53 = fc.maxSafeNat();
const u32 = fc.nat(0xffff_ffff);
const hex = (digits: number): fc.Arbitrary<string> =>
  fc
    .array(fc.nat(15), { minLength: digits, maxLength: digits })
    .map((all) => all.map((one) => one.toString(16)).join(''));

/** A copy with one bit changed. */
function flipped(bytes: Uint8Array, bit: number): Buffer {
  const copy = Buffer.from(bytes);
  const at = Math.floor(bit / 8) % copy.length;
  copy[at] = copy[at]! ^ (1 << (bit % 8));
  return copy;
}

function refuses(run: () => unknown): boolean {
  try {
    run();
    return false;
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    return true;
  }
}

async function refusesLater(run: () => Promise<unknown>): Promise<boolean> {
  try {
    await run();
    return false;
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    return true;
  }
}

function hostWith(path: string, bytes: Uint8Array): MemoryHost {
  const disk = new MemoryDisk();
  disk.files.set(path, { bytes: Buffer.from(bytes), length: bytes.length });
  return memoryHost(1, disk);
}

function fileOf(host: MemoryHost, path: string): Buffer {
  const file = host.disk.files.get(path)!;
  return Buffer.from(file.bytes.subarray(0, file.length));
}

test('segment headers and footers: as written, and any flipped bit is found', (t) => {
  const headers = fc.record({ groupId: hex(32), sequence: u53, firstLsn: u53 });
  const footers = fc.record({
    directoryCrc: u32,
    entries: u32,
    directoryOffset: u53,
    firstLsn: u53,
    lastLsn: u53,
    openFromLsn: u53,
    firstTime: u53,
    lastTime: u53,
  });
  fc.assert(
    fc.property(headers, footers, fc.nat(), (header, footer, bit) => {
      const page = segment.encodeSegmentHeader(header);
      t.deepEqual(segment.decodeSegmentHeader(Buffer.from(page), 'x'), header);
      t.true(refuses(() => segment.decodeSegmentHeader(flipped(page, bit), 'x')));
      const end = segment.encodeSegmentFooter(footer);
      t.deepEqual(segment.decodeSegmentFooter(Buffer.from(end), 'x'), footer);
      t.true(refuses(() => segment.decodeSegmentFooter(flipped(end, bit), 'x')));
    }),
  );
});

test('pages and footers of index runs: as written, and any flipped bit is found', (t) => {
  const footers = fc.record({
    groupId: hex(32),
    baseLsn: u53,
    lastLsn: u53,
    entries: u53,
    openFromLsn: u53,
    groups: u32,
    topCrc: u32,
    classCounts: fc.array(u53, { minLength: 8, maxLength: 8 }),
  });
  fc.assert(
    fc.property(footers, fc.uint8Array({ minLength: 64, maxLength: 64 }), fc.nat(), (footer, content, bit) => {
      const end = encodeFooter(footer);
      t.deepEqual(decodeFooter(Buffer.from(end), 'x'), footer);
      t.true(refuses(() => decodeFooter(flipped(end, bit), 'x')));
      const newer = Buffer.from(end);
      newer.writeUInt16LE(newer.readUInt16LE(4) + 1, 4);
      newer.writeUInt32LE(0, 8);
      newer.writeUInt32LE(crc32c(newer), 8);
      t.throws(() => decodeFooter(newer, 'x'), { code: 'format-too-new' });
      const page = Buffer.alloc(PAGE_BYTES);
      page.set(content, 8);
      sealPage(page);
      checkPage(page, 'x');
      t.true(refuses(() => checkPage(flipped(page, bit), 'x')));
    }),
  );
});

test('the position mark: as written; a flipped bit or a cut gives the one before, or damage, never another', async (t) => {
  const positions = fc.record({
    durableLsn: u53,
    chain: hex(16),
    epoch: u32,
    incarnation: fc.record({ counter: u32, nonce: hex(16) }),
    heartbeatMs: fc.double({ noNaN: true, min: 0 }),
    resumeOffset: fc.string({ maxLength: 100 }),
  });
  await fc.assert(
    fc.asyncProperty(positions, positions, fc.nat(8192 * 8 - 1), async (one, other, bit) => {
      const host = memoryHost(1);
      const mark = await PositionMark.open(host, '/r', GROUP);
      await mark.write(one);
      await mark.write(other);
      await mark.close();
      const bytes = fileOf(host, '/r/position');
      const read = async (from: Uint8Array): Promise<unknown> =>
        (await PositionMark.open(hostWith('/r/position', from), '/r', GROUP)).initial;
      t.deepEqual(await read(bytes), other);
      const damaged = await read(flipped(bytes, bit));
      t.true([JSON.stringify(one), JSON.stringify(other)].includes(JSON.stringify(damaged)));
    }),
    { numRuns: 60 },
  );
});

test('replica state, source state and stop mark: as written; any flipped bit and any cut is found', async (t) => {
  const replica = memoryHost(1);
  const empty = {
    groupId: GROUP,
    floorLsn: 3,
    floorIntentLsn: 3,
    oldestNeededLsn: 4,
    halt: undefined,
    orphans: [],
    damage: [],
  };
  const catalog = { upToLsn: 9, volumes: [], bookmarks: [], events: [], heartbeat: undefined, epoch: 1 };
  await new StateKeeper(replica, '/r', { ...empty, catalog }).update(() => ({}));
  const source = memoryHost(2);
  await writeStateFile(source, PLACE, 'x', { lsn: 7, list: [1, 2], name: 'n' });
  const stop = memoryHost(3);
  const mark = { groupId: GROUP, incarnation: 3, nonce: '0123456789abcdef', lastLsn: 77, endAddress: 8192 };
  await writeStopMark(stop.disk, '/j', mark);
  t.deepEqual(await readStopMark(stop.disk, '/j'), mark);
  await fc.assert(
    fc.asyncProperty(fc.nat(), fc.nat(), async (bit, cut) => {
      const readState = async (bytes: Uint8Array): Promise<unknown> =>
        readReplicaState(hostWith('/r/state', bytes), '/r', GROUP);
      const state = fileOf(replica, '/r/state');
      // Bytes 6 and 7 mean nothing.
      if (![6, 7].includes(Math.floor(bit / 8) % state.length))
        t.true(await refusesLater(() => readState(flipped(state, bit))));
      t.true(await refusesLater(() => readState(state.subarray(0, cut % state.length))));
      const value = fileOf(source, '/s/x');
      t.true(refuses(() => readStateFile(hostWith('/s/x', flipped(value, bit)), PLACE, 'x')));
      t.true(refuses(() => readStateFile(hostWith('/s/x', value.subarray(0, cut % value.length)), PLACE, 'x')));
      const last = fileOf(stop, '/j/journal.stop');
      t.is(await readStopMark(hostWith('/j/journal.stop', flipped(last, bit)).disk, '/j'), undefined);
      t.is(await readStopMark(hostWith('/j/journal.stop', last.subarray(0, cut % 64)).disk, '/j'), undefined);
    }),
    // Bit 32 made version 0 of version 1, which was read.
    { numRuns: 300, examples: [[32, 0]] },
  );
});

test('the change map: what is marked stays marked through damage of one slot and through other sizes of a volume', async (t) => {
  const sizes = fc.nat(60).map((granules) => (granules + 1) * GRANULE_BYTES);
  await fc.assert(
    fc.asyncProperty(
      sizes,
      sizes,
      fc.array(fc.nat(59), { maxLength: 8 }),
      fc.nat(),
      async (size, next, granules, bit) => {
        const host = memoryHost(1);
        const map = await ChangeMap.open(host, PLACE, [{ id: 1, size }]);
        for (const granule of granules) if (granule * GRANULE_BYTES < size) map.mark(1, granule * 128, 8);
        const givenUp = { fromLsn: 2, toLsn: 5, address: 4096, announcedLsn: 0 };
        await map.save(givenUp);
        await map.save(givenUp);
        await map.close();
        const file = flipped(fileOf(host, '/s/change-map.state'), bit);
        const again = await ChangeMap.open(hostWith('/s/change-map.state', file), PLACE, [{ id: 1, size: next }]);
        t.deepEqual(again.givenUp, givenUp);
        for (const granule of granules) {
          if (granule * GRANULE_BYTES < Math.min(size, next)) t.true(again.isMarked(1, granule * 128));
        }
        await again.close();
      },
    ),
    // A flipped bit of the magic once made it that of version 1.
    { numRuns: 150, examples: [[65_536, 65_536, [], 25]] },
  );
});

const bareFeedbacks: fc.Arbitrary<ReplicaFeedback> = fc.record({
  replica: fc.string({ maxLength: 64 }),
  groupId: fc.constant(GROUP),
  epoch: u53,
  incarnation: u53,
  durableLsn: u53,
  chain: hex(16),
  state: fc.constantFrom('receiving', 'replica-full', 'needs-resync', 'diverged', 'upgrade-required', 'stopped'),
  reason: fc.string(),
  missingFrom: u53,
  heartbeatMs: fc.double({ noNaN: true, noDefaultInfinity: true }).map((ms) => ms || 0),
  resumeOffset: fc.string(),
});

const feedbacks = fc
  .tuple(
    bareFeedbacks,
    fc.option(fc.record({ run: hex(16), sentMs: fc.double({ min: 0, noNaN: true, noDefaultInfinity: true }) })),
  )
  .map(([feedback, sent]): ReplicaFeedback => (sent === null ? feedback : { ...feedback, sent }));

test('messages and feedback are read as they were written', (t) => {
  const identities = fc.record({
    groupId: hex(32),
    groupName: fc.string(),
    epoch: u53,
    incarnation: fc.record({ counter: u53, nonce: hex(16) }),
    frameVersion: u32,
  });
  fc.assert(
    fc.property(identities, feedbacks, u53, (identity, feedback, durableLsn) => {
      const sent = [
        direct.encodeMessage(direct.MessageType.hello, 0, direct.helloBody(identity)),
        direct.encodeMessage(direct.MessageType.welcome, 0, {
          protocol: 1,
          frameVersion: 1,
          replica: 'b',
          durableLsn,
          windowBytes: 5,
          feedback,
        }),
        direct.encodeMessage(direct.MessageType.feedback, 7, feedback),
      ];
      const bodies: Uint8Array[] = [];
      new direct.MessageParser().push(Buffer.concat(sent), ({ body }) => bodies.push(body) > 0);
      t.deepEqual(direct.readHello(bodies[0]!), { protocol: direct.DIRECT_PROTOCOL, ...identity });
      t.like(direct.readWelcome(bodies[1]!), { durableLsn, feedback });
      t.deepEqual(direct.readFeedback(bodies[2]!), feedback);
      t.deepEqual(decodeFeedback(`${GROUP}/${feedback.replica}`, encodeFeedback(feedback), GROUP), feedback);
      t.is(decodeFeedback(`${GROUP}/${feedback.replica}x`, encodeFeedback(feedback), GROUP), undefined);
    }),
  );
});

test('any bit that turned in a replica’s word, and any end cut off it, is no word of its', (t) => {
  fc.assert(
    fc.property(feedbacks, fc.nat(), (feedback, at) => {
      const [key, value] = [`${GROUP}/${feedback.replica}`, encodeFeedback(feedback)];
      t.is(decodeFeedback(key, flipped(value, at), GROUP), undefined);
      t.is(decodeFeedback(key, value.subarray(0, at % value.length), GROUP), undefined);
    }),
  );
});

test('retention removes from the oldest on, keeps what is in use or in the window, and says why', (t) => {
  const segments = fc
    .array(fc.record({ records: fc.integer({ min: 1, max: 50 }), ms: fc.nat(1000), bytes: fc.nat(1000) }), {
      minLength: 1,
      maxLength: 12,
    })
    .map((all) => {
      let [lsn, time] = [0, 0];
      return all.map(({ records, ms, bytes }, i) => {
        const firstLsn = lsn + 1;
        lsn += records;
        time += ms * 1000;
        return { sequence: i + 1, firstLsn, lastLsn: lsn, lastTime: time, bytes, sealed: i < all.length - 1 };
      });
    });
  const leases = fc.array(
    fc.nat(400).map((lsn): Lease => ({ id: lsn, lsn, kind: 'view', owner: 'o' })),
    { maxLength: 3 },
  );
  const policies = fc.record({ windowMs: fc.nat(5000), bytesMax: fc.oneof(fc.constant(0), fc.nat(6000)) });
  fc.assert(
    fc.property(segments, leases, policies, fc.nat(20), (all, held, policy, floorLsn) => {
      const now = all.at(-1)!.lastTime;
      const decided = decideRetention(all, held, policy, floorLsn, now);
      t.is(decided.segments.length, all.length);
      const kept = decided.segments.findIndex(({ keep }) => keep);
      t.true(kept >= 0 && decided.segments.slice(kept).every(({ keep }) => keep), 'only the oldest go');
      t.true(decided.segments.every(({ reason }) => reason !== ''));
      t.true(decided.floorLsn === floorLsn || held.every(({ lsn }) => lsn >= decided.floorLsn), 'no lease is passed');
      for (const [i, { keep }] of decided.segments.entries()) {
        if (keep) continue;
        const gone = all[i]!;
        t.true(gone.sealed && gone.lastLsn <= decided.floorLsn && held.every(({ lsn }) => lsn >= gone.lastLsn));
        if (policy.bytesMax === 0) t.true(gone.lastTime < now - policy.windowMs * 1000, 'the window is whole');
      }
      const wider = decideRetention(all, held, { ...policy, windowMs: policy.windowMs * 2 }, floorLsn, now);
      t.true(wider.floorLsn <= decided.floorLsn, 'a wider window keeps no less');
    }),
    { numRuns: 400 },
  );
});

test('a restore plan refuses exactly what is not the target of a restore', (t) => {
  const text = fc.constantFrom('', 'somebody');
  const requests = fc.record({
    file: fc.boolean(),
    size: fc.nat(4096),
    overwrite: fc.boolean(),
    facts: fc.record({ exists: fc.boolean(), size: fc.nat(4096), mountedAt: text, heldBy: text, ours: text }),
  });
  fc.assert(
    fc.property(requests, ({ file, size, overwrite, facts }) => {
      const plan = planRestore({
        volume: { id: 1, name: 'v', size, blockBytes: 512 },
        choice: { lsn: 1, epoch: 1, at: undefined, before: undefined, after: undefined, text: 'x' },
        spec: file ? { kind: 'raw', path: '/x' } : { kind: 'block-device', path: '/dev/x' },
        facts,
        overwrite,
        verify: true,
        readers: 1,
        dataBytes: 0,
      });
      const inUse = facts.mountedAt !== '' || facts.heldBy !== '' || facts.ours !== '';
      const fits = file || (facts.exists && facts.size >= size);
      t.is(plan.refusals.length === 0, !inUse && fits && (!facts.exists || overwrite));
      const first = plan.refusals[0];
      t.is(
        refuses(() => assertAllowed(plan)),
        first !== undefined,
      );
      if (facts.ours !== '') t.is(first?.code, 'target-is-ours');
    }),
  );
});

test('a later time never gives an earlier record, and no record is newer than the time asked for', async (t) => {
  const host = memoryHost(4);
  for (const [name, bytes] of await makeReplica())
    host.disk.files.set(`/r/${name}`, { bytes: Buffer.from(bytes), length: bytes.length });
  const group = await ReplicaGroup.open(host, goldenReplicaOptions('/r'));
  const headTime = (await group.status()).headTime;
  const lsnAt = async (micros: number): Promise<number> => {
    try {
      const choice = await group.resolve({ kind: 'time', micros });
      t.true((choice.at?.time ?? 0) <= micros && (choice.after?.time ?? Infinity) >= micros);
      return choice.lsn;
    } catch (error) {
      if (!hasCode(error, 'trimmed')) throw error;
      return 0;
    }
  };
  const times = fc.integer({ min: headTime - 200_000, max: headTime + 5000 });
  await fc.assert(
    fc.asyncProperty(times, fc.nat(20_000), async (time, later) => {
      t.true((await lsnAt(time)) <= (await lsnAt(time + later)));
    }),
  );
  t.is(await lsnAt(headTime), group.headLsn);
  await group.close();
});

test('texts of operators: sizes, durations, times, positions and addresses mean what they say', (t) => {
  const name = fc.string({ minLength: 1, maxLength: 40 }).filter((text) => text !== '.' && text !== '..');
  const addresses: fc.Arbitrary<NbdAddress> = fc
    .oneof(
      fc.record({
        kind: fc.constant('tcp'),
        host: fc.constantFrom('host', '10.0.0.1', '[::1]', 'a-b.example'),
        port: fc.nat(65_535),
        exportName: name,
        tls: fc.boolean(),
      }),
      fc.record({
        kind: fc.constant('unix'),
        path: name.map((text) => `/${text}`),
        exportName: name,
        tls: fc.boolean(),
      }),
    )
    .map(
      (address) =>
        (address.kind === 'tcp' ? { ...address, host: address.host.replaceAll(/[[\]]/g, '') } : address) as NbdAddress,
    );
  fc.assert(
    fc.property(fc.nat(2 ** 20), fc.nat(4_000_000_000_000), addresses, u53, u32, (count, ms, address, lsn, epoch) => {
      t.deepEqual(parseSize(`${count}GiB`), { ok: true, value: count * 2 ** 30 });
      t.deepEqual(parseDuration(`${count} m`), { ok: true, value: count * 60_000 });
      t.deepEqual(parseRestoreTarget(new Date(ms).toISOString()), { kind: 'time', micros: ms * 1000 });
      t.deepEqual(parseRestoreTarget(`${epoch}:${lsn}`), { kind: 'lsn', lsn, epoch });
      t.deepEqual(parseNbdUri(formatNbdUri(address)), address);
    }),
  );
});

test('what a topic takes on disk is read as the broker says it; a cut answer, or one that is too long, is an error', (t) => {
  fc.assert(
    fc.property(u53, fc.nat(9), fc.nat(), (bytes, others, cut) => {
      const topics = Array.from({ length: others }, (_, index): [string, bigint] => [`other${index}`, 7n]);
      const whole = logDirsResponse([
        { error: 0, topics },
        { error: 0, topics: [...topics, ['mine', BigInt(bytes)]] },
      ]);
      t.is(decodeLogDirsResponse(whole, 'mine'), bytes);
      t.is(decodeLogDirsResponse(whole, 'absent'), undefined);
      t.true(refuses(() => decodeLogDirsResponse(whole.subarray(0, cut % whole.length), 'mine')));
    }),
    { numRuns: 300 },
  );
  t.is(decodeLogDirsResponse(logDirsResponse([]), 'mine'), undefined, 'no right: an empty list');
  t.is(decodeLogDirsResponse(logDirsResponse([{ error: 56, topics: [['mine', 5n]] }]), 'mine'), undefined);
  t.true(refuses(() => decodeLogDirsResponse(logDirsResponse([{ error: 0, topics: [['mine', -1n]] }]), 'mine')));
  const long = Buffer.concat([logDirsResponse([]), Buffer.alloc(1024 * 1024)]);
  t.true(refuses(() => decodeLogDirsResponse(long, 'mine')));
});
