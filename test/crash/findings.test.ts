import test from 'ava';
import { Journal } from '../../journal/journal.ts';
import { appendWrites, journalOptions, temporaryDirectory, testHost } from '../journal/journal-fixture.ts';

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
