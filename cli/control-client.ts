import { existsSync } from 'node:fs';
import http from 'node:http';
import { fromApiError } from '../daemon/control/api-errors.ts';
import type { ApiError } from '../daemon/control/control-api.ts';
import { type ErrorCode, TidemarkError } from '../journal/base/errors.ts';

/** The daemon gives no answer at the socket: exit code 5. */
export class DaemonUnreachableError extends Error {
  constructor(socket: string, reason: string) {
    super(`no daemon answers at ${socket}: ${reason}`);
    this.name = 'DaemonUnreachableError';
  }
}

/** Where the packaged units put the sockets. */
const DEFAULT_SOCKETS = {
  source: '/run/tidemark/source/control/control.sock',
  replica: '/run/tidemark/replica/control/control.sock',
} as const;

export type Role = keyof typeof DEFAULT_SOCKETS;

/** The socket to talk to when none is named: the role's own, or the one that exists. */
export function defaultSocket(role: Role | 'any'): string {
  if (role !== 'any') return DEFAULT_SOCKETS[role];
  return existsSync(DEFAULT_SOCKETS.source) ? DEFAULT_SOCKETS.source : DEFAULT_SOCKETS.replica;
}

/** HTTP over the control socket. Errors of the daemon arrive as the TidemarkError they were there. */
export class ControlClient {
  readonly socket: string;
  readonly #timeoutMs: number;

  constructor(socket: string, timeoutMs: number) {
    this.socket = socket;
    this.#timeoutMs = timeoutMs;
  }

  get<Reply>(path: string): Promise<Reply> {
    return this.#request('GET', path, undefined);
  }

  post<Reply>(path: string, body: object): Promise<Reply> {
    return this.#request('POST', path, body);
  }

  delete<Reply>(path: string): Promise<Reply> {
    return this.#request('DELETE', path, undefined);
  }

  #request<Reply>(method: string, path: string, body: object | undefined): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const payload = body === undefined ? undefined : JSON.stringify(body);
      const headers =
        payload === undefined
          ? {}
          : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) };
      const request = http.request({ socketPath: this.socket, path, method, headers, agent: false });
      const timer = setTimeout(() => {
        reject(new TidemarkError('timed-out', `the daemon gave no answer within ${this.#timeoutMs} ms`));
        request.destroy();
      }, this.#timeoutMs);
      request.on('error', (error: NodeJS.ErrnoException) => {
        clearTimeout(timer);
        reject(new DaemonUnreachableError(this.socket, reasonOf(error)));
      });
      request.on('response', (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', (error) => reject(new DaemonUnreachableError(this.socket, error.message)));
        response.on('end', () => {
          clearTimeout(timer);
          settle(response.statusCode ?? 500, Buffer.concat(chunks).toString(), resolve, reject);
        });
      });
      request.end(payload);
    });
  }
}

function settle<Reply>(
  status: number,
  text: string,
  resolve: (reply: Reply) => void,
  reject: (error: Error) => void,
): void {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    reject(new TidemarkError('unsupported', `what answers there is no tidemark: ${text.slice(0, 80)}`));
    return;
  }
  if (status < 400) resolve(parsed as Reply);
  else reject(fromApiError(parsed as ApiError & { code: ErrorCode }));
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no socket (is it running? --socket or TIDEMARK_SOCKET names another one)',
  ECONNREFUSED: 'the socket is there, but nobody listens (the daemon was killed, or is starting)',
  EACCES: 'permission denied (be root, or in the group of the daemon)',
};

function reasonOf(error: NodeJS.ErrnoException): string {
  return REASONS[error.code ?? ''] ?? error.message;
}
