import type { RpcAnswer, RpcCall, WireError } from './rpc.ts';

/** What crosses the port of a group's worker, beside calls and answers. */

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'fatal';

export interface LogMessage {
  readonly type: 'log';
  readonly level: LogLevel;
  /** A short name that documents and alerts refer to. */
  readonly code: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** The data path's view of itself; replaces the one before. */
export interface StatusMessage<Status> {
  readonly type: 'status';
  readonly status: Status;
}

/** The data path has ended by itself, in order, because of this. */
export interface EndedMessage {
  readonly type: 'ended';
  readonly error: WireError;
}

export type FromWorker<Status> = RpcAnswer | LogMessage | StatusMessage<Status> | EndedMessage;
export type ToWorker = RpcCall;
