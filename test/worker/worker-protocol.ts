import type { ErrorCode } from '../../journal/base/errors.ts';

export interface TestMethods {
  add: { params: { by: number }; result: { count: number } };
  refuse: { params: { code: ErrorCode }; result: null };
  silence: { params: null; result: null };
  assert: { params: null; result: null };
  end: { params: { code: ErrorCode }; result: null };
  stop: { params: null; result: null };
}
