import test from 'ava';
import { PageCache } from '../../replica/index/page-cache.ts';
import { SeededRandom } from './support/memory-host.ts';

test('pages are kept within the bytes, the one used longest ago goes; two who want one share a read', async (t) => {
  t.throws(() => new PageCache(8 * 4096 - 1, 4096), { name: 'AssertionError' });
  const cache = new PageCache(9 * 4096 - 1, 4096);
  const run = cache.newRun();
  const other = cache.newRun();
  t.not(run, other);
  const view = (byte: number): Buffer => Buffer.alloc(4096, byte);
  for (let page = 0; page < 8; page++) await cache.load(run, page, () => Promise.resolve(view(page)));
  t.is(cache.now(run, 0)?.getUint8(0), 0, 'used again');
  t.is(cache.now(other, 0), undefined);
  await cache.load(other, 2 ** 32 - 1, () => Promise.resolve(view(99)));
  t.is(cache.now(run, 1), undefined, 'used longest ago');
  t.deepEqual(
    [0, 2, 7].map((page) => cache.now(run, page)?.getUint8(0)),
    [0, 2, 7],
  );
  t.is(cache.now(other, 2 ** 32 - 1)?.getUint8(0), 99);
  let reads = 0;
  const slow = async (): Promise<Buffer> => {
    reads++;
    await new Promise(setImmediate);
    return view(5);
  };
  const [one, two] = await Promise.all([cache.load(run, 50, slow), cache.load(run, 50, slow)]);
  t.is(reads, 1);
  t.is(one, two);
  const failure = new Error('no');
  await t.throwsAsync(
    cache.load(run, 60, () => Promise.reject(failure)),
    { is: failure },
  );
  t.is((await cache.load(run, 60, slow)).getUint8(0), 5);
});

test('a page in the cache is the one that was put there, whatever gave way before, and as many are kept as fit', (t) => {
  const random = new SeededRandom(7);
  const cache = new PageCache(200 * 64, 64);
  const runs = [cache.newRun(), cache.newRun(), cache.newRun()];
  const fill = (run: number, page: number): void => {
    const view = cache.fill(run, page, (into) => {
      into.writeUInt32LE(run, 0);
      into.writeUInt32LE(page, 4);
      return true;
    });
    t.is(view?.getUint32(4, true), page);
  };
  let hits = 0;
  for (let step = 0; step < 20_000; step++) {
    const run = runs[random.below(3)] ?? 0;
    const page = random.below(4) === 0 ? random.below(2 ** 31) * 2 : random.below(60);
    const view = cache.now(run, page);
    if (view === undefined) {
      if (random.below(5) === 0)
        t.is(
          cache.fill(run, page, () => false),
          undefined,
        );
      else fill(run, page);
      continue;
    }
    hits++;
    if (view.getUint32(0, true) !== run || view.getUint32(4, true) !== page) t.fail(`page ${page} of run ${run}`);
  }
  t.true(hits > 10_000, `${hits} of 20,000`);
  const fresh = new PageCache(200 * 64, 64);
  for (let page = 0; page < 200; page++) fresh.fill(1, page, (into) => into.writeUInt32LE(page, 0) > 0);
  for (let page = 0; page < 200; page++) t.is(fresh.now(1, page)?.getUint32(0, true), page);
});

test('a page that could not be read, or is damaged, is not in the cache afterwards', async (t) => {
  const cache = new PageCache(8 * 64, 64);
  const run = cache.newRun();
  t.is(
    cache.fill(run, 1, () => false),
    undefined,
  );
  t.is(cache.now(run, 1), undefined);
  t.throws(
    () =>
      cache.fill(run, 2, () => {
        throw new Error('damaged');
      }),
    { message: 'damaged' },
  );
  t.is(cache.now(run, 2), undefined);
  const kept = await cache.load(run, 3, () => Promise.resolve(Buffer.alloc(64, 3)));
  for (let page = 10; page < 18; page++) cache.fill(run, page, (into) => into.fill(9).length > 0);
  t.is(cache.now(run, 3), undefined);
  t.is(kept.getUint8(0), 3, 'what was waited for stays with who waited');
});
