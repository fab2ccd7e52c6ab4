import { type ErrorCode, TidemarkError } from '../../journal/base/errors.ts';

/**
 * Calls between the control plane's thread and a group's data path, over a message port. Arguments and results are
 * plain values. An operating error crosses as its code, words and details; anything else that a handler throws is a bug
 * and ends the worker, which the other side sees as the worker's end.
 */

/** Methods of one protocol: what goes in and what comes out. */
export type Methods<T> = { [Name in keyof T]: { params: unknown; result: unknown } };

export interface Port {
  postMessage(message: unknown): void;
}

export interface RpcCall {
  readonly type: 'call';
  readonly id: number;
  readonly method: string;
  readonly params: unknown;
}

export type RpcAnswer =
  | { readonly type: 'answer'; readonly id: number; readonly ok: true; readonly result: unknown }
  | { readonly type: 'answer'; readonly id: number; readonly ok: false; readonly error: WireError };

export interface WireError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly details: Readonly<Record<string, string | number | boolean>>;
}

export function toWireError(error: TidemarkError): WireError {
  return { code: error.code, message: error.message, details: { ...error.details } };
}

export function fromWireError(error: WireError): TidemarkError {
  return new TidemarkError(error.code, error.message, { details: { ...error.details } });
}

interface Waiting {
  readonly settle: (answer: RpcAnswer) => void;
  readonly timer: NodeJS.Timeout;
}

/** Calls under way at once; a data path that does not answer must not collect promises without end. */
const CALLS_MAX = 1000;

/** The calling side. Every call ends: with the answer, by its time limit, or when the worker ends (`fail`). */
export class RpcClient<Protocol extends Methods<Protocol>> {
  readonly #port: Port;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #ended: TidemarkError | undefined;

  constructor(port: Port) {
    this.#port = port;
  }

  /** Rejects with timed-out, shutting-down (the worker has ended, or too many calls wait), or the handler's error. */
  call<Name extends keyof Protocol & string>(
    method: Name,
    params: Protocol[Name]['params'],
    timeoutMs: number,
  ): Promise<Protocol[Name]['result']> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    if (this.#waiting.size >= CALLS_MAX) {
      return Promise.reject(new TidemarkError('shutting-down', `${CALLS_MAX} calls wait for the data path already`));
    }
    const id = this.#nextId;
    this.#nextId += 1;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new TidemarkError('timed-out', `the data path gave no answer to "${method}" within ${timeoutMs} ms`));
      }, timeoutMs);
      const settle = (answer: RpcAnswer): void => {
        clearTimeout(timer);
        if (answer.ok) resolve(answer.result as Protocol[Name]['result']);
        else reject(fromWireError(answer.error));
      };
      this.#waiting.set(id, { settle, timer });
      this.#port.postMessage({ type: 'call', id, method, params } satisfies RpcCall);
    });
  }

  /** Takes an answer that came over the port; one to a call that has timed out is dropped. */
  answered(answer: RpcAnswer): void {
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    waiting?.settle(answer);
  }

  /** The worker is gone: every call ends, and every later one. */
  fail(error: TidemarkError): void {
    this.#ended = error;
    const all = [...this.#waiting.keys()];
    for (const id of all) this.answered({ type: 'answer', id, ok: false, error: toWireError(error) });
  }
}

export type Handlers<Protocol extends Methods<Protocol>> = {
  [Name in keyof Protocol]: (params: Protocol[Name]['params']) => Promise<Protocol[Name]['result']>;
};

/** The answering side: runs the handler and posts what came of it. */
export async function answerCall<Protocol extends Methods<Protocol>>(
  handlers: Handlers<Protocol>,
  call: RpcCall,
  port: Port,
): Promise<void> {
  const handler = handlers[call.method as keyof Protocol] as (params: unknown) => Promise<unknown>;
  try {
    const result = await handler(call.params);
    port.postMessage({ type: 'answer', id: call.id, ok: true, result } satisfies RpcAnswer);
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    port.postMessage({ type: 'answer', id: call.id, ok: false, error: toWireError(error) } satisfies RpcAnswer);
  }
}
