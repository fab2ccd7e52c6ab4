import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { Journal } from '../../journal/journal.ts';
import { ReplicaGroup } from '../../replica/replica-group.ts';
import { journalOptions } from '../journal/journal-fixture.ts';
import { Child, run } from '../servers/child.ts';
import { until } from '../volume/support/group-bench.ts';
import { cannotMount, DISK_BYTES, FILE_SYSTEMS, type FileSystem, FileSystemBench } from './file-system-bench.ts';
import { replicaOptions } from './replica-under-test.ts';
import { GROUP_ID, JOURNAL_FILE_BYTES, SourceUnderTest } from './source-under-test.ts';
import { type Subject, subjectOf } from './subjects.ts';
import { readWitness } from './witness.ts';
import { type Step, Workload } from './workload.ts';

/* Real file systems that fail, fill up and turn read-only under a source and a replica. */

const MIB = 1024 * 1024;
const SMALL_DISK_BYTES: number = 16 * MIB;
const TROUBLE_MS = 1500;
const LARGE_BYTES: number = 32 * 1024;

function benchFor(t: ExecutionContext, systems: readonly FileSystem[]): FileSystemBench | undefined {
  t.timeout(120_000);
  const reason = cannotMount(systems);
  if (reason !== undefined) {
    if (process.env['CI'] === 'true') t.fail(`file systems cannot be mounted here: ${reason}`);
    else t.log(`skipped: ${reason}`);
    t.pass();
    return undefined;
  }
  const bench = new FileSystemBench();
  t.teardown(() => bench.remove());
  return bench;
}

async function closeFailed(source: SourceUnderTest): Promise<void> {
  try {
    await source.close();
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
  }
}

function isLargeWrite(step: Step): boolean {
  const [request] = step[0]?.requests ?? [];
  return step[0]?.requests.length === 1 && request?.do === 'write' && request.bytes.length > LARGE_BYTES;
}

async function failOneSync(t: ExecutionContext, bench: FileSystemBench, system: FileSystem): Promise<void> {
  const switchOn = bench.path('fail-writes');
  const { file, socket } = await bench.failingDisk(DISK_BYTES[system], switchOn);
  await bench.make(system, file);
  let point = await bench.mount(system, file);
  mkdirSync(bench.path('disks'));
  const place = { directory: point, disks: bench.path('disks'), witness: bench.path('witness') };
  const workload = new Workload(5, 120);
  const source = await SourceUnderTest.open(place, workload, 'flushed');
  // what the failing sync has to write covers whole pages: later writes do not bring them along
  const large = workload.steps.findIndex((step, index) => index > 30 && isLargeWrite(step));
  await source.run(large);
  await source.drainedDisks();
  writeFileSync(switchOn, '');
  t.true((await t.throwsAsync(source.run(workload.steps.length))) instanceof TidemarkError);
  t.is(source.group.status().state, 'failed');
  t.true(await source.refusesAll());
  rmSync(switchOn);
  await closeFailed(source);

  let again: SourceUnderTest;
  try {
    again = await SourceUnderTest.open(place, workload, 'flushed');
    t.true(again.report.rewrittenBytes > 0);
    t.log(`${again.report.rewrittenBytes} bytes written again`);
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    t.log(`${system} needs a person: ${error.message}`);
    await bench.unmount(point);
    point = await bench.mount(system, file);
    again = await SourceUnderTest.open(place, workload, 'flushed');
  }
  // the medium as it is now: all that recovery kept is on it, whatever the cache says
  const { lastLsn } = again.report;
  const medium = bench.path('medium');
  // one program: this one may be held up by the frozen file system
  const copying = `fsfreeze -f ${point}; nbdcopy 'nbd+unix:///?socket=${socket}' ${medium}; fsfreeze -u ${point}`;
  await run('sh', ['-c', copying]);
  const copy = await bench.mountCopy(system, medium);
  const options = { ...journalOptions(join(copy, 'journal')), groupId: GROUP_ID, fileBytes: JOURNAL_FILE_BYTES };
  const journal = await Journal.open({ ...realHost(), bootId: 'after a power loss' }, options);
  t.deepEqual(journal.report.damage, []);
  t.true(journal.report.lastLsn >= lastLsn, `${journal.report.lastLsn} on the medium, ${lastLsn} recovered`);
  await journal.close();
  await bench.unmount(copy);

  await again.run(large + 40);
  await again.close();
  // only what the disk holds is left
  await bench.unmount(point);
  await bench.mount(system, file);
  const last = await SourceUnderTest.open(place, workload, 'acknowledged');
  t.true(last.report.cleanStop);
  await last.run(workload.steps.length);
  await last.close();
  t.deepEqual(readWitness(place.witness).violations, []);
}

for (const system of FILE_SYSTEMS) {
  test.serial(`a sync that fails on ${system}: no later answer, and a restart believes no cache`, async (t) => {
    const bench = benchFor(t, [system]);
    if (bench !== undefined) await failOneSync(t, bench, system);
  });
}

/** Fills a file system to its last block. */
function fillBlocks(point: string): () => void {
  const path = join(point, 'ballast');
  const fd = openSync(path, 'w');
  for (let bytes = MIB; bytes >= 1024; ) {
    try {
      if (writeSync(fd, Buffer.alloc(bytes, 1)) < bytes) bytes /= 2;
    } catch {
      bytes /= 2;
    }
  }
  closeSync(fd);
  return () => rmSync(path);
}

/** Makes files until there are no inodes left. */
function fillInodes(point: string): () => void {
  const directory = join(point, 'inodes');
  mkdirSync(directory);
  for (let made = 0; ; made++) {
    try {
      closeSync(openSync(join(directory, String(made)), 'w'));
    } catch {
      return () => rmSync(directory, { recursive: true });
    }
  }
}

const TROUBLES = [
  { name: 'no space', fill: fillBlocks, make: [] },
  { name: 'no inodes', fill: fillInodes, make: ['-N', '64'] },
] as const;

/** The file system is full when it starts, has room for a while, and is full again in the middle of the run. */
async function throughTrouble(
  t: ExecutionContext,
  subject: Subject,
  place: { point: string; witness: string },
  fill: (point: string) => () => void,
): Promise<void> {
  const directory = join(place.point, 'd');
  await subject.makeKilled(directory, place.witness);
  let free = fill(place.point);
  const child = new Child('program', process.execPath, subject.program(directory, place.witness));
  const pause = (): Promise<void> => new Promise((resolve) => void setTimeout(resolve, TROUBLE_MS));
  await pause();
  free();
  const { length } = readWitness(place.witness).errors;
  const progress = (): string => {
    const { issued, farLsn } = readWitness(place.witness);
    return `${issued} ${farLsn}`;
  };
  const before = progress();
  await until(() => progress() !== before || !child.running);
  free = fill(place.point);
  await pause();
  free();
  const code = await child.exited();
  const { finished, violations, errors } = readWitness(place.witness);
  t.log(
    `${length} errors at the start, ${errors.length - length} later${errors[0] === undefined ? '' : `: ${errors[0]}`}`,
  );
  t.deepEqual(violations, []);
  t.true(finished, `ended with ${code}: ${child.output}`);
  await subject.checkAfter(directory, place.witness, 'acknowledged');
  t.deepEqual(readWitness(place.witness).violations, []);
}

for (const { name, fill, make } of TROUBLES) {
  for (const role of ['source', 'replica'] as const) {
    test.serial(`a ${role} whose file system has ${name} goes on when there is again`, async (t) => {
      const bench = benchFor(t, ['ext4']);
      if (bench === undefined) return;
      const image = bench.image('small', SMALL_DISK_BYTES);
      await bench.make('ext4', image, '-m', '0', ...make);
      const point = await bench.mount('ext4', image);
      const subject = subjectOf(role, bench.directory, { source: 300, replica: 900 });
      await throughTrouble(t, subject, { point, witness: bench.path('witness') }, fill);
    });
  }
}

/** What each does by itself when it cannot write its own journal. */
const SHUTDOWNS = [
  { system: 'ext4', name: 'turns read-only', command: (point: string) => ['mount', '-o', 'remount,abort', point] },
  { system: 'xfs', name: 'shuts down', command: (point: string) => ['xfs_io', '-x', '-c', 'shutdown -f', point] },
] as const;

for (const { system, name, command } of SHUTDOWNS) {
  test.serial(
    `${system} ${name}: errors, no later answer, and after a remount what was flushed is there`,
    async (t) => {
      const bench = benchFor(t, [system]);
      if (bench === undefined) return;
      const image = bench.image('disk', DISK_BYTES[system]);
      await bench.make(system, image);
      const point = await bench.mount(system, image);
      mkdirSync(bench.path('disks'));
      const place = { directory: point, disks: bench.path('disks'), witness: bench.path('witness') };
      const workload = new Workload(6, 80);
      const source = await SourceUnderTest.open(place, workload, 'flushed');
      await source.run(30);
      const [program = '', ...args] = command(point);
      await run(program, args);
      t.true((await t.throwsAsync(source.run(80))) instanceof TidemarkError);
      t.true(await source.refusesAll());
      await closeFailed(source);
      const refusal = await t.throwsAsync(SourceUnderTest.open(place, workload, 'flushed'));
      t.true(refusal instanceof TidemarkError, String(refusal));
      await bench.unmount(point);
      await bench.mount(system, image);
      const again = await SourceUnderTest.open(place, workload, 'flushed');
      await again.run(80);
      await again.close();
      t.deepEqual(readWitness(place.witness).violations, []);
    },
  );
}

test.serial('a second source and a second replica on a directory are refused, and harm nothing', async (t) => {
  t.timeout(120_000);
  const bench = new FileSystemBench();
  t.teardown(() => bench.remove());
  for (const role of ['source', 'replica'] as const) {
    const directory = bench.path(role);
    mkdirSync(directory);
    const witness = bench.path(`${role}-witness`);
    const subject = subjectOf(role, bench.directory, { source: 300, replica: 900 });
    const child = new Child(role, process.execPath, subject.program(directory, witness));
    await until(
      () => !child.running || (existsSync(witness) && /acknowledged|far [1-9]/.test(readFileSync(witness, 'latin1'))),
    );
    const second =
      role === 'source'
        ? SourceUnderTest.open(
            { directory, disks: bench.directory, witness: bench.path('unused') },
            new Workload(1, 1),
            'flushed',
          )
        : ReplicaGroup.open(realHost(), replicaOptions(directory));
    const error = await t.throwsAsync(async () => void (await second));
    t.true(hasCode(error, 'journal-locked'), String(error));
    t.is(await child.exited(), 0, child.output);
    await subject.checkAfter(directory, witness, 'acknowledged');
    t.deepEqual(readWitness(witness).violations, []);
    t.true(readWitness(witness).finished);
  }
});
