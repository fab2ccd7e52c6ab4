import test from 'ava';
import { TestSummary } from './test-summary.ts';

function line(printed: string, succeeded: boolean): string {
  const summary = new TestSummary();
  for (const character of printed) summary.add(character);
  return summary.line(succeeded);
}

test('a run in which everything passed', (t) => {
  t.is(line('  ✔ one\n  ✔ two\n  ─\n\n  2 tests passed\n  1 test skipped\n', true), '2 passed, 0 failed, 1 skipped');
});

test('a run with failures, where ava does not print how many passed', (t) => {
  const printed = '  ✔ one (12ms)\n    ℹ a log\n  ✘ [fail]: two\n  ─\n\n  1 test failed\n  1 uncaught exception\n';
  t.is(line(printed, false), '1 passed, 2 failed, 0 skipped');
});

test('colours do not hide the numbers', (t) => {
  t.is(
    line('  \u001b[32m✔\u001b[39m a\n\n  \u001b[32m1 test passed\u001b[39m\n', true),
    '1 passed, 0 failed, 0 skipped',
  );
});

test('a run that broke off is never a run without failures', (t) => {
  t.is(line('  ✘ Internal error\n', false), '0 passed, 1 failed, 0 skipped');
});
