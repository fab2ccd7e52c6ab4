import { AssertionError } from 'node:assert';
import { isDeepStrictEqual } from 'node:util';

/**
 * Stands in for ava while mutants are judged: the same test files, but one test after the other in the process that asks,
 * so that it can stop at the first that fails. Only what our tests use of ava is here; every test must pass with it
 * before any mutant is judged, which is what shows that the two agree.
 */
interface SerialTest {
  readonly title: string;
  readonly body: TestBody;
}

type TestBody = (t: Assertions) => unknown;

const declared: SerialTest[] = [];

/** The tests that were declared since the last call, in order. */
export function takeDeclared(): SerialTest[] {
  return declared.splice(0);
}

const declare = (title: string, body: TestBody): void => {
  declared.push({ title, body });
};
const test: typeof declare & { readonly serial: typeof declare; readonly skip: typeof declare } = Object.assign(
  declare,
  {
    serial: declare,
    skip: () => undefined,
  },
);
export default test;

/** Runs one test to its end, with its teardowns; throws what ava would have called a failure. */
export async function runTest({ title, body }: SerialTest): Promise<void> {
  const t = new Assertions(title);
  try {
    await body(t);
  } finally {
    for (const step of t.teardowns.reverse()) await step();
  }
  if (t.made === 0) throw new Error('the test made no assertion');
}

interface Expectation {
  readonly instanceOf?: abstract new (...args: never[]) => Error;
  readonly is?: unknown;
  readonly code?: unknown;
  readonly name?: string;
  readonly message?: string | RegExp | ((message: string) => boolean);
}

class Assertions {
  readonly title: string;
  readonly teardowns: (() => unknown)[] = [];
  readonly context: Record<string, unknown> = {};
  made = 0;

  constructor(title: string) {
    this.title = title;
  }

  // the time limit is the parent's: it also ends a process that never comes back to the event loop
  timeout(): void {}

  log(): void {}

  plan(): void {}

  teardown(step: () => unknown): void {
    this.teardowns.push(step);
  }

  pass = (): true => this.#holds(true, 'pass');

  fail = (message = 'failed'): true => this.#holds(false, message);

  is = (actual: unknown, expected: unknown, message?: string): true =>
    this.#holds(Object.is(actual, expected), message ?? 'is', actual, expected);

  not = (actual: unknown, expected: unknown, message?: string): true =>
    this.#holds(!Object.is(actual, expected), message ?? 'not', actual, expected);

  deepEqual = (actual: unknown, expected: unknown, message?: string): true =>
    this.#holds(sameValue(actual, expected), message ?? 'deepEqual', actual, expected);

  notDeepEqual = (actual: unknown, expected: unknown, message?: string): true =>
    this.#holds(!sameValue(actual, expected), message ?? 'notDeepEqual', actual, expected);

  like = (actual: unknown, expected: unknown, message?: string): true =>
    this.#holds(isLike(actual, expected), message ?? 'like', actual, expected);

  true = (actual: unknown, message?: string): true => this.#holds(actual === true, message ?? 'true', actual, true);

  false = (actual: unknown, message?: string): true => this.#holds(actual === false, message ?? 'false', actual, false);

  truthy = (actual: unknown, message?: string): true => this.#holds(Boolean(actual), message ?? 'truthy', actual);

  falsy = (actual: unknown, message?: string): true => this.#holds(!actual, message ?? 'falsy', actual);

  regex = (text: string, pattern: RegExp, message?: string): true =>
    this.#holds(text.search(pattern) !== -1, message ?? 'regex', text, pattern);

  notRegex = (text: string, pattern: RegExp, message?: string): true =>
    this.#holds(text.search(pattern) === -1, message ?? 'notRegex', text, pattern);

  throws = (run: () => unknown, expected: Expectation = {}, message?: string): unknown => {
    try {
      run();
    } catch (error) {
      return this.#isExpected(error, expected, message);
    }
    return this.#holds(false, message ?? 'throws: nothing was thrown');
  };

  throwsAsync = async (
    run: Promise<unknown> | (() => Promise<unknown>),
    expected: Expectation = {},
    message?: string,
  ): Promise<unknown> => {
    try {
      await (typeof run === 'function' ? run() : run);
    } catch (error) {
      return this.#isExpected(error, expected, message);
    }
    return this.#holds(false, message ?? 'throwsAsync: nothing was thrown');
  };

  notThrows = (run: () => unknown, _message?: string): true => {
    run();
    return this.#holds(true, 'notThrows');
  };

  notThrowsAsync = async (run: Promise<unknown> | (() => Promise<unknown>), _message?: string): Promise<true> => {
    await (typeof run === 'function' ? run() : run);
    return this.#holds(true, 'notThrowsAsync');
  };

  #isExpected(error: unknown, expected: Expectation, message?: string): unknown {
    const { instanceOf, is, code, name, message: text } = expected;
    const says = message ?? 'throws';
    this.#holds(error instanceof Error, `${says}: no Error was thrown`, error);
    const found = error as Error & { code?: unknown };
    if (instanceOf !== undefined)
      this.#holds(found instanceof instanceOf, says, found.constructor.name, instanceOf.name);
    if ('is' in expected) this.#holds(found === is, says, found, is);
    if (code !== undefined) this.#holds(found.code === code, says, found.code, code);
    if (name !== undefined) this.#holds(found.name === name, says, found.name, name);
    if (typeof text === 'string') this.#holds(found.message === text, says, found.message, text);
    else if (typeof text === 'function') this.#holds(text(found.message), says, found.message);
    else if (text !== undefined) this.#holds(found.message.search(text) !== -1, says, found.message, text);
    return error;
  }

  #holds(condition: boolean, message: string, actual?: unknown, expected?: unknown): true {
    this.made++;
    if (!condition)
      throw new AssertionError({ message: `${this.title}: ${message}`, actual, expected, diff: 'simple' });
    return true;
  }
}

/** Without the prototypes, as ava compares them: an object of a decoder may have none. */
function sameValue(actual: unknown, expected: unknown): boolean {
  return isDeepStrictEqual(actual, expected, { skipPrototype: true });
}

/** Every property of `expected`, however deep, is in `actual`. */
function isLike(actual: unknown, expected: unknown): boolean {
  if (typeof expected !== 'object' || expected === null) return sameValue(actual, expected);
  if (typeof actual !== 'object' || actual === null) return false;
  if (Array.isArray(expected) && expected.length !== (actual as unknown[]).length) return false;
  return Object.entries(expected).every(([key, value]) => isLike((actual as Record<string, unknown>)[key], value));
}
