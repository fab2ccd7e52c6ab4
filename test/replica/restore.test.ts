import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { RestoreJobs } from '../../daemon/replica/restore-jobs.ts';
import { RestoreTargets, targetSpec } from '../../daemon/replica/restore-targets.ts';
import { claimTarget, isClaimed } from '../../daemon/replica/target-claim.ts';
import { timelineReply } from '../../daemon/replica/timeline-reply.ts';
import { hasCode } from '../../journal/base/errors.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { volumeAt } from '../../replica/catalog/volume-at.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../replica/replica-group.ts';
import { openRawTarget } from '../../replica/restore/raw-file-target.ts';
import { assertAllowed, describePlan, planRestore } from '../../replica/restore/restore-plan.ts';
import { isUnfinished, RESTORE_DEFAULTS, runRestore } from '../../replica/restore/restore-run.ts';
import { chooseTarget, parseRestoreTarget } from '../../replica/restore/restore-target.ts';
import type { TargetFacts } from '../../replica/restore/restore-target-port.ts';
import { MemoryDevice } from '../doubles/memory-device.ts';
import { EPOCH_MICROS, GROUP, HandSource, History, Model, seal } from './support/history.ts';

/** A group on real files with a history of 500 records, in a directory of its own. */
async function onDisk(directory: string): Promise<{ group: ReplicaGroup; history: History }> {
  const history = new History(42);
  history.addVolumes();
  history.fill(500);
  const group = await ReplicaGroup.open(realHost(), {
    ...REPLICA_DEFAULTS,
    directory: join(directory, 'replica'),
    groupId: GROUP,
    replica: 'r1',
    segmentBytes: 256 * 1024,
    reserveBytes: 0,
    memtableEntries: 128,
    policy: { windowMs: 200, bytesMax: 0 },
  });
  const source = new HandSource();
  group.start(source);
  for (const frame of seal(history)) source.push(frame);
  await group.idle();
  return { group, history };
}

const FREE: TargetFacts = { exists: false, size: 0, mountedAt: '', heldBy: '', ours: '' };

test('a position restored to a raw file is the model, byte for byte, read back and verified', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-restore-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const { group, history } = await onDisk(directory);
  const host = realHost();
  await group.retain();
  t.true(group.floorLsn > 0);
  for (const lsn of [group.floorLsn, 444, 500]) {
    const model = new Model();
    model.advance(history, lsn);
    const view = group.openView({ lsn, owner: 'restore', kind: 'restore', scratchBytesMax: 0 });
    for (const { volume, device } of view.volumes) {
      const path = join(directory, `${volume.name}-${lsn}.raw`);
      const target = openRawTarget(host, path, volume.size, false);
      const seen: number[] = [];
      const report = await runRestore(device, target.device, {
        ...RESTORE_DEFAULTS,
        clock: host.clock,
        chunkBytes: 256 * 1024,
        targetZeroed: target.zeroed,
        verify: true,
        signal: new AbortController().signal,
        onProgress: ({ doneBytes }) => seen.push(doneBytes),
      });
      t.throws(() => readFileSync(path), { code: 'ENOENT' });
      await target.finish();
      t.true(readFileSync(path).equals(model.disk(volume.id)));
      t.is(report.verifiedBytes, volume.size);
      t.is(report.copiedBytes + report.zeroBytes, volume.size);
      t.true(seen.length > 2);
      t.true(
        hasCode(
          t.throws(() => openRawTarget(host, path, volume.size, false)),
          'target-exists',
        ),
      );
    }
    await group.views.close(view.id);
  }
  t.deepEqual(group.leases.list(), []);
  await group.close();
});

test('an interrupted or falsified restore is marked as unfinished', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-restore-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const { group } = await onDisk(directory);
  const host = realHost();
  const device = group.openView({ lsn: 400, owner: 't', scratchBytesMax: 0 }).volumes[1]?.device;
  if (device === undefined) return t.fail('no device');
  const run = async (path: string, signal: AbortSignal, onProgress: () => void, falsify: boolean): Promise<unknown> => {
    const target = openRawTarget(host, path, device.size, true);
    const write = target.device.write.bind(target.device);
    if (falsify) {
      target.device.write = async (offset, from) => {
        await write(offset, offset > 1_000_000 ? Uint8Array.from(from, (byte) => byte ^ 1) : from);
      };
    }
    const options = { ...RESTORE_DEFAULTS, clock: host.clock, chunkBytes: 65_536, targetZeroed: true, verify: true };
    const error = await t.throwsAsync(runRestore(device, target.device, { ...options, signal, onProgress }));
    await target.abandon();
    t.true(isUnfinished(readFileSync(`${path}.unfinished`)));
    t.throws(() => readFileSync(path), { code: 'ENOENT' });
    return error;
  };
  const abort = new AbortController();
  const cancelled = await run(join(directory, 'a.raw'), abort.signal, () => abort.abort(), false);
  t.true(hasCode(cancelled, 'cancelled'));
  const falsified = await run(join(directory, 'b.raw'), new AbortController().signal, () => undefined, true);
  t.true(hasCode(falsified, 'verification-failed'));
  await group.close();
});

test('of an almost empty disk the data and whatever else stands in the target is read back, its holes are not', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-restore-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const size = 256 * 1024 * 1024;
  const source = new MemoryDevice(size);
  await source.write(1024 * 1024, Buffer.alloc(65_536, 7));
  const restore = async (name: string, straySector: number | undefined): Promise<number> => {
    const target = openRawTarget(realHost(), join(directory, name), size, false);
    const { device } = target;
    const read = device.read.bind(device);
    let readBytes = 0;
    device.read = (offset, into) => {
      readBytes += into.length;
      return read(offset, into);
    };
    const write = device.write.bind(device);
    device.write = async (offset, from) => {
      await write(offset, from);
      if (offset > 0 && straySector !== undefined) await write(straySector * 512, Buffer.alloc(512, 1));
    };
    const signal = new AbortController().signal;
    const options = { ...RESTORE_DEFAULTS, clock: realHost().clock, targetZeroed: true, verify: true };
    try {
      await runRestore(source, device, { ...options, signal, onProgress: () => {} });
    } catch (error) {
      await target.abandon();
      throw error;
    }
    await target.finish();
    return readBytes;
  };
  const readBytes = await restore('whole', undefined);
  t.true(readBytes >= 65_536 && readBytes < 8 * 1024 * 1024, `${readBytes} bytes of ${size} were read back`);
  await t.throwsAsync(restore('stray', 400_001), { code: 'verification-failed' });
});

test('a plan refuses what rule 25 refuses, and says so', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-restore-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const { group } = await onDisk(directory);
  const choice = await group.resolve({ kind: 'latest' });
  const volume = volumeAt(group.catalog, 'data', choice.lsn);
  const plan = (facts: Partial<TargetFacts>, kind: 'raw' | 'block-device' = 'raw', overwrite = false) =>
    planRestore({
      volume,
      choice,
      spec: { kind, path: '/x' },
      facts: { ...FREE, ...facts },
      overwrite,
      verify: true,
      readers: 4,
      dataBytes: 4096,
    });
  t.deepEqual(plan({}).refusals, []);
  t.notThrows(() => assertAllowed(plan({ exists: true }, 'raw', true)));
  const codes = (facts: Partial<TargetFacts>, kind?: 'block-device', overwrite = true): string[] =>
    plan(facts, kind, overwrite).refusals.map(({ code }) => code);
  t.deepEqual(codes({ exists: true }, undefined, false), ['target-exists']);
  t.deepEqual(codes({ mountedAt: '/mnt' }), ['target-in-use']);
  t.deepEqual(codes({ heldBy: 'qemu' }), ['target-in-use']);
  t.deepEqual(codes({ ours: 'the base of vm1' }), ['target-is-ours']);
  t.deepEqual(codes({ exists: true, size: 512 }, 'block-device'), ['target-too-small']);
  t.deepEqual(codes({}, 'block-device'), ['not-found']);
  t.regex(
    describePlan(plan({ ours: 'the base of vm1' })).join('\n'),
    /refused {3}target-is-ours: \/x is the base of vm1/,
  );
  t.true(
    hasCode(
      t.throws(() => assertAllowed(plan({ mountedAt: '/mnt' }))),
      'target-in-use',
    ),
  );
  await group.close();
});

test('a target names a position: LSN, time with zone, ago, bookmark; the choice names its neighbours', async (t) => {
  t.deepEqual(parseRestoreTarget('latest'), { kind: 'latest' });
  t.deepEqual(parseRestoreTarget('12'), { kind: 'lsn', lsn: 12, epoch: undefined });
  t.deepEqual(parseRestoreTarget('3:12'), { kind: 'lsn', lsn: 12, epoch: 3 });
  t.deepEqual(parseRestoreTarget('5m ago'), { kind: 'ago', micros: 300e6 });
  t.deepEqual(parseRestoreTarget('before upgrade'), { kind: 'bookmark', name: 'before upgrade' });
  t.deepEqual(parseRestoreTarget('bookmark:12'), { kind: 'bookmark', name: '12' });
  t.deepEqual(parseRestoreTarget('2023-11-14T23:13:20.5+01:00'), { kind: 'time', micros: EPOCH_MICROS + 500_000 });
  const neverWas = ['2023-13-14T22:13:20Z', '2023-02-30T00:00:00Z', '99999999999w ago'];
  for (const wrong of ['', '2023-11-14', '2023-11-14T22:13:20', '9'.repeat(20), ...neverWas]) {
    t.true(
      hasCode(
        t.throws(() => parseRestoreTarget(wrong)),
        'invalid-argument',
      ),
      wrong,
    );
  }
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-restore-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const { group, history } = await onDisk(directory);
  // Record n stands at n - 1 ms.
  const byTime = await group.resolve({ kind: 'time', micros: EPOCH_MICROS + 199_500 });
  t.is(byTime.lsn, 200);
  t.deepEqual(byTime.before, { lsn: 199, time: EPOCH_MICROS + 198_000 });
  t.deepEqual(byTime.after, { lsn: 201, time: EPOCH_MICROS + 200_000 });
  t.regex(byTime.text, /^1:200 .*the next record is LSN 201 of 2023-11-14T22:13:20\.200Z/);
  t.is((await group.resolve({ kind: 'time', micros: EPOCH_MICROS + 1e9 })).lsn, group.headLsn);
  t.true(hasCode(await t.throwsAsync(group.resolve({ kind: 'time', micros: EPOCH_MICROS - 1 })), 'trimmed'));
  const bookmark = group.bookmarks()[0];
  t.is((await group.resolve({ kind: 'bookmark', name: bookmark?.name ?? '' })).lsn, bookmark?.lsn ?? -1);
  t.true(hasCode(await t.throwsAsync(group.resolve({ kind: 'bookmark', name: 'nope' })), 'not-found'));
  const twice = { floorLsn: 0, headLsn: 9, epoch: 1, nowMicros: 0, lastAt: () => Promise.resolve(undefined) };
  const around = () => Promise.resolve({ at: undefined, before: undefined, after: undefined });
  const marks = [1, 2].map((lsn) => ({ name: 'x', kind: 'crash' as const, lsn, time: 0, note: '', labels: {} }));
  const ambiguous = chooseTarget({ kind: 'bookmark', name: 'x' }, { ...twice, bookmarks: marks, around });
  t.true(hasCode(await t.throwsAsync(ambiguous), 'precondition-failed'));

  const timeline = await group.points(EPOCH_MICROS, EPOCH_MICROS + 600_000, 100_000);
  t.is(timeline.intervals.length, 6);
  t.deepEqual([timeline.intervals[1]?.firstLsn, timeline.intervals[1]?.lastLsn], [101, 200]);
  const changes = history.records.filter(({ kind }) => [1, 2, 3, 8].includes(kind)).length;
  t.is(
    timeline.intervals.reduce((sum, { writes }) => sum + writes, 0),
    changes,
  );
  t.is(timeline.bookmarks.length, group.bookmarks().length);
  // A timeline from long ago begins at the floor: nothing below it is left, and empty intervals are not counted.
  const status = await group.status();
  const asked = { from: '1999-01-01T00:00:00Z', everyMs: 100 };
  const clamped = await timelineReply(group, 'shop', status, asked);
  t.is(clamped.intervals[0]?.firstLsn, 1);
  t.is(
    clamped.intervals.reduce((sum, { writes }) => sum + writes, 0),
    changes,
  );
  await group.close();
});

test('a second restore into one target is refused: of the same group, of another group, and by another path to it', async (t) => {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'tidemark-restore-')));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const { group, history } = await onDisk(directory);
  const at = (name: string) => join(directory, name);
  mkdirSync(at('images'));
  symlinkSync(at('images'), at('link'));
  const jobs = () => {
    const targets = new RestoreTargets(realHost(), { directories: [at('replica')], sockets: [] });
    return new RestoreJobs(realHost(), group, 'shop', targets, (error) => t.fail(String(error)));
  };
  const [one, other] = [jobs(), jobs()];
  const request = { at: '450', volume: 'system', to: at('images/disk.raw') };
  // which of the two comes first is decided by the thread pool
  const began = await Promise.allSettled([one.start(request), one.start(request)]);
  const [taken, refused] = began[0].status === 'fulfilled' ? began : began.toReversed();
  const first = taken?.status === 'fulfilled' ? taken.value.job : undefined;
  t.like(refused, { status: 'rejected', reason: { code: 'target-in-use' } });
  t.is(one.get(first?.id ?? '').state, 'running');
  for (const to of [request.to, at('link/disk.raw')]) {
    for (const dryRun of [true, false]) {
      const third = other.start({ ...request, to, overwrite: true, dryRun });
      await t.throwsAsync(third, { code: 'target-in-use', message: /another restore writes/ });
    }
  }
  while (one.get(first?.id ?? '').endedAt === null) await new Promise((resolve) => setTimeout(resolve, 5));
  t.like(one.get(first?.id ?? ''), { state: 'done', error: null });
  const model = new Model();
  model.advance(history, 450);
  t.true(readFileSync(request.to).equals(model.disk(1)));
  t.deepEqual(readdirSync(at('images')), ['disk.raw'], 'nothing is left of the claim');
  const next = await other.start({ ...request, overwrite: true });
  await other.close();
  t.is(other.get(next.job?.id ?? '').endedAt !== null, true);

  // What a kill left behind keeps nobody out.
  writeFileSync(at('images/new.raw.restoring'), '');
  const claim = claimTarget(at('images/new.raw'));
  t.true(isClaimed(at('images/new.raw')));
  t.throws(() => claimTarget(at('images/new.raw')), { code: 'target-in-use' });
  claim.release();
  t.false(isClaimed(at('images/new.raw')));
  await group.close();
});

test('what is no disk image is not replaced, nor anything of a daemon, by whatever path', async (t) => {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'tidemark-restore-')));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const at = (name: string) => join(directory, name);
  for (const name of ['journal', 'history', 'plain']) mkdirSync(at(name));
  for (const name of ['journal/lock', 'journal/journal-0000000000000000.tmj', 'plain/lock', 'plain/disk.raw']) {
    writeFileSync(at(name), '');
  }
  symlinkSync(at('history'), at('link'));
  symlinkSync(at('plain/disk.raw'), at('disk'));
  const targets = new RestoreTargets(realHost(), { directories: [at('history')], sockets: [] });
  const inspect = async (to: string) => targets.inspect(await targetSpec(to, undefined));
  for (const ours of ['journal/new', 'journal/journal-0000000000000000.tmj', 'history/base.img', 'link/new']) {
    t.not((await inspect(at(ours))).ours, '', ours);
  }
  t.like(await inspect(at('plain/new')), { ours: '', exists: false });
  t.deepEqual(await targetSpec(at('disk'), undefined), { kind: 'raw', path: at('plain/disk.raw') });
  for (const [wrong, code] of [
    ['/dev/null', 'invalid-argument'],
    [directory, 'invalid-argument'],
    [at('nowhere/new'), 'not-found'],
  ] as const) {
    t.true(hasCode(await t.throwsAsync(inspect(wrong)), code), wrong);
  }
});

test('the replica on real files: locked, reopened, the same', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-restore-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  writeFileSync(join(directory, 'other'), '');
  const { group, history } = await onDisk(directory);
  const options = { ...REPLICA_DEFAULTS, directory: join(directory, 'replica'), groupId: GROUP, replica: 'r1' };
  t.true(hasCode(await t.throwsAsync(ReplicaGroup.open(realHost(), options)), 'journal-locked'));
  await group.retain();
  const floor = group.floorLsn;
  await group.close();
  const again = await ReplicaGroup.open(realHost(), options);
  t.is(again.floorLsn, floor);
  t.is(again.headLsn, history.lastLsn);
  const model = new Model();
  model.advance(history, 450);
  const view = again.openView({ lsn: 450, owner: 't', scratchBytesMax: 1024 * 1024 });
  for (const { volume, device } of view.volumes) {
    const bytes = Buffer.alloc(volume.size);
    await device.read(0, bytes);
    t.true(bytes.equals(model.disk(volume.id)));
    await device.write(0, Buffer.alloc(4096, 7));
  }
  await again.close();
  // a file that is not there cannot be found damaged: what the mark knows of is named, and asked for again
  const last = readdirSync(join(directory, 'replica/segments'))
    .filter((name) => name.endsWith('.seg'))
    .toSorted()
    .at(-1);
  rmSync(join(directory, 'replica/segments', last ?? ''));
  const poorer = await ReplicaGroup.open(realHost(), options);
  t.true(poorer.headLsn < history.lastLsn);
  t.like((await poorer.status()).damage.at(-1), { fromLsn: poorer.headLsn + 1, toLsn: history.lastLsn });
  await poorer.close();
});
