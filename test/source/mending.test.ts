import test from 'ava';
import { mendingOf } from '../../daemon/source/mending.ts';
import type { TidemarkError } from '../../journal/base/errors.ts';
import { GroupBench, HandClient, MIB, pattern } from '../volume/support/group-bench.ts';

test('what is found damaged is not read out of the overlay; put back above the checkpoint, the group opens anew', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', MIB);
  // nothing is durable by itself, so nothing is written out
  const options = bench.options([{ name: 'a', backing: bench.backing('a.raw') }]);
  const group = await bench.open({ ...options, journal: { ...options.journal, syncIntervalMs: 60_000 } });
  const client = new HandClient(group.exports('local')[0]!);
  await client.write(0, pattern(4096, 1));
  const from = group.journal.endAddress;
  await client.write(8192, pattern(4096, 2));
  const to = group.journal.endAddress;
  await client.write(16_384, pattern(4096, 3));
  const ends: TidemarkError[] = [];
  const { anchors, onDamaged, onMended } = mendingOf(group, (error) => ends.push(error));
  t.deepEqual(
    anchors().map(({ address }) => address),
    [group.writtenOut.checkpoint.address, group.writtenOut.applied.address],
  );
  const lsn = group.journal.lastLsn - 1;
  const stretch = { ...STRETCH, fromLsn: lsn, toLsn: lsn, address: from, resumeAddress: to };
  onDamaged(stretch);
  await t.throwsAsync(client.read(8192, 4096), { code: 'journal-damaged' });
  t.true((await client.read(0, 4096)).equals(pattern(4096, 1)));
  t.true((await client.read(16_384, 4096)).equals(pattern(4096, 3)));
  // the records stand at other addresses in it now
  onMended(stretch);
  t.deepEqual(
    ends.map(({ code }) => code),
    ['journal-poisoned'],
  );
  await t.throwsAsync(client.read(8192, 4096), { code: 'journal-damaged' });
  onMended({ ...stretch, resumeAddress: group.writtenOut.checkpoint.address });
  t.is(ends.length, 1, 'what is written out already is read from the disk');
  client.client.detach();
  await group.close();
  bench.remove();
});

const STRETCH = { resumeChain: 0, reason: 'made up', chain: 0, incarnation: 1, time: 1, anchors: [] };
