import test from 'ava';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';
import { RealDisk } from '../../journal/host/real-disk.ts';
import { Journal } from '../../journal/journal.ts';
import {
  appendWrites,
  journalFiles,
  journalOptions,
  temporaryDirectory,
  testHost,
} from '../journal/journal-fixture.ts';
import { GroupBench, HandClient, MIB, pattern, type Request } from '../volume/support/group-bench.ts';

/* What runs with injected faults have found, each as the shortest way there. */

test('a watermark that falls due while the stop is written down does not make it an unclean one', async (t) => {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const journal = await Journal.open(host, journalOptions(directory));
  await journal.begin();
  appendWrites(journal, 2);
  await journal.sync();
  host.disk.fault = (_operation, path) => {
    if (path.includes('journal.stop')) host.clock.advance(100);
    return undefined;
  };
  await journal.close();
  const again = await Journal.open(testHost(), journalOptions(directory));
  t.true(again.report.cleanStop);
  await again.close();
});

class UnlinkFailsDisk extends RealDisk {
  fails = false;

  override unlink(path: string): void {
    if (this.fails && path.endsWith('.tmj')) throw new TidemarkError('device-failed', `${path}: injected EIO`);
    super.unlink(path);
  }
}

test('a journal file that cannot be removed is removed later; nobody is ended by it', async (t) => {
  const directory = temporaryDirectory(t);
  const disk = new UnlinkFailsDisk();
  const host: Host = { ...testHost(), disk };
  // of what is let go half the budget is kept for later
  const options = journalOptions(directory, { budgetBytes: 6 * 64 * 1024 });
  const journal = await Journal.open(host, options);
  await journal.begin();
  const fill = async (): Promise<void> => {
    for (let batch = 0; batch < 24; batch++) appendWrites(journal, 20);
    await journal.sync();
  };
  await fill();
  disk.fails = true;
  t.notThrows(() => journal.recycleBelow(journal.endAddress));
  const kept = journalFiles(directory).length;
  disk.fails = false;
  await fill();
  journal.recycleBelow(journal.endAddress);
  t.true(journalFiles(directory).length < kept);
  await journal.close();
  const again = await Journal.open(testHost(), options);
  t.deepEqual(again.report.damage, []);
  t.true(again.report.cleanStop);
  await again.close();
});

test('a file that cannot be removed says why, and a missing one is no error', (t) => {
  const disk = new RealDisk();
  t.notThrows(() => disk.unlink(`${temporaryDirectory(t)}/none`));
  const error = t.throws(() => disk.unlink('/proc/version'));
  t.true(error instanceof TidemarkError && /E[A-Z]+$/.test(error.message), String(error));
});

test('a drain ends when its last batch did not fit the window', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', MIB);
  const volumes = [{ name: 'a', backing: bench.backing('a.raw') }];
  const group = await bench.open(bench.options(volumes, { destageWindowBytes: 64 * 1024 }));
  const client = new HandClient(group.exports('local')[0]!);
  const write = (part: number): Request => ({
    do: 'write',
    offset: part * 40 * 1024,
    bytes: pattern(40 * 1024, part + 1),
  });
  for (const answer of await client.all([write(0), write(1), { do: 'flush' }])) t.is(answer, 'ok');
  const late = new Promise<string>((resolve) => void setTimeout(() => resolve('late'), 40_000));
  t.is(await Promise.race([group.drain().then(() => 'drained'), late]), 'drained');
  await group.close();
  bench.remove();
});
