import { readFileSync } from 'node:fs';
import test from 'ava';
import { GroupBench, HandClient, MIB, pattern, type Request, until } from './support/group-bench.ts';

const SIZE = 4 * MIB;

test('what is overwritten in the durable part of the journal is not written out; the newest is', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }]));
  const client = new HandClient(group.exports('local')[0]!);
  const before = group.status().destagedBytes;
  const requests: Request[] = Array.from({ length: 100 }, (_, index) => ({
    do: 'write',
    offset: 8192 * (index % 4),
    bytes: pattern(8192, index),
  }));
  // a part of it and zeroes over another are not all of it
  requests.push({ do: 'write', offset: 0, bytes: pattern(512, 200) }, { do: 'trim', offset: 8192, length: 4096 });
  requests.push({ do: 'flush' });
  await client.all(requests);
  await group.drain();
  const disk = readFileSync(bench.path('a.raw'));
  t.true(disk.equals(await client.read(0, SIZE)));
  t.is(group.status().destagedBytes - before, 4 * 8192);
  t.true(disk.subarray(3 * 8192, 4 * 8192).equals(pattern(8192, 99)));
  await group.close();
  bench.remove();
});

test('what is not durable stands in for nothing: a power loss may take it away', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const options = bench.options([{ name: 'a', backing: bench.backing('a.raw') }]);
  const group = await bench.open({ ...options, journal: { ...options.journal, syncIntervalMs: 60_000 } });
  const client = new HandClient(group.exports('local')[0]!);
  const [one, other] = [pattern(4096, 1), pattern(4096, 2)];
  const flushed = client.submit([{ do: 'write', offset: 0, bytes: one }, { do: 'flush' }]);
  const { endAddress } = group.journal;
  // written while the sync is under way, which does not cover it; nobody asks for another
  const written = client.submit([{ do: 'write', offset: 0, bytes: other }]);
  await Promise.all([...flushed, ...written]);
  const end = performance.now() + 40_000;
  await until(() => bench.marks.address('checkpoint') >= endAddress || performance.now() > end);
  t.true(bench.marks.address('checkpoint') >= endAddress, 'it is written out and synced');
  t.true(bench.marks.address('durable') < group.journal.endAddress);
  t.true(readFileSync(bench.path('a.raw')).subarray(0, 4096).equals(one));
  t.true((await client.read(0, 4096)).equals(other));
  await group.drain();
  t.true(readFileSync(bench.path('a.raw')).subarray(0, 4096).equals(other));
  await group.close();
  bench.remove();
});
