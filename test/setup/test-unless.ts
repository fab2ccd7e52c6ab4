import test, { type Implementation } from 'ava';

export type Declare = (title: string, body: Implementation<[]>) => void;

/** What becomes of a test: where something is missing it is skipped, but continuous integration has to run it. */
export function fateOf(missing: string | undefined, ci: string | undefined): 'run' | 'skip' | 'fail' {
  if (missing === undefined) return 'run';
  return ci === 'true' ? 'fail' : 'skip';
}

/** Declares a test that needs what a machine may lack; `missing` says what that is, undefined: nothing. */
export function testUnless(missing: string | undefined, declare: typeof test | typeof test.serial = test): Declare {
  switch (fateOf(missing, process.env['CI'])) {
    case 'run':
      return (title, body) => {
        declare(title, body);
      };
    case 'skip':
      return (title, body) => {
        declare.skip(`${title} (${missing})`, body);
      };
    case 'fail':
      return (title) => {
        declare(title, (t) => {
          t.fail(`CI must run this: ${missing}`);
        });
      };
  }
}
