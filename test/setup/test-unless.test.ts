import test from 'ava';
import { fateOf } from './test-unless.ts';

test('what is missing skips a test, and fails it where CI=true', (t) => {
  t.is(fateOf(undefined, undefined), 'run');
  t.is(fateOf(undefined, 'true'), 'run');
  t.is(fateOf('no Java', undefined), 'skip');
  t.is(fateOf('no Java', 'false'), 'skip');
  t.is(fateOf('no Java', 'true'), 'fail');
});
