import type { Server, Socket } from 'node:net';
import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { NbdExport } from './export.ts';
import { NBD_LIMITS, type NbdLimits } from './limits.ts';
import { listen, listeningAt, type NbdListenAddress } from './listener.ts';
import type { ExportCatalogue } from './negotiation.ts';
import { STRING_BYTES_MAX } from './protocol.ts';
import { ArenaPool } from './reply-buffer.ts';
import { NbdSession } from './session.ts';
import { type NbdServerTls, TlsUpgrader } from './tls.ts';

export type { NbdListenAddress } from './listener.ts';
export type { NbdServerTls } from './tls.ts';

export interface NbdListenerOptions {
  readonly address: NbdListenAddress;
  /** Without it STARTTLS is refused. */
  readonly tls?: NbdServerTls;
  /** Throws a `TidemarkError` while this listener must not open this export (DESIGN rule 12: TCP after a power loss). */
  readonly admit?: (exportName: string) => void;
}

export interface NbdServerOptions {
  readonly listeners: readonly NbdListenerOptions[];
  readonly exports?: readonly NbdExport[];
  /** Where they differ from `NBD_LIMITS`. */
  readonly limits?: Partial<NbdLimits>;
  /** A connection has ended; `reason` is empty after a goodbye. */
  readonly onDisconnect?: (client: NbdConnectedClient, reason: string) => void;
}

/** One connection, for `status`. */
export interface NbdConnectedClient {
  /** Undefined while haggling. */
  readonly exportName: string | undefined;
  /** `host:port` of the client, or the path of the unix socket it came by. */
  readonly peer: string;
  /** Undefined: in the clear. */
  readonly tls: { readonly protocol: string; readonly clientName: string | undefined } | undefined;
  readonly connectedMs: number;
}

interface Connection {
  readonly session: NbdSession;
  readonly peer: string;
  readonly since: number;
}

interface Listener {
  readonly server: Server;
  readonly address: NbdListenAddress;
  readonly tls: TlsUpgrader | undefined;
}

/** NBD servers on any number of sockets, for any number of exports that come and go. */
export class NbdServer {
  readonly #limits: NbdLimits;
  readonly #onDisconnect: (client: NbdConnectedClient, reason: string) => void;
  readonly #exports: Map<string, NbdExport> = new Map();
  readonly #connections: Map<NbdSession, Connection> = new Map();
  readonly #arenas: ArenaPool = new ArenaPool();
  readonly #progressTimer: NodeJS.Timeout;
  #listeners: Listener[] = [];
  #idleWaiters: (() => void)[] = [];
  #closing = false;

  /** Throws what `listen` and `TlsUpgrader` throw; nothing listens then. */
  static async start(options: NbdServerOptions): Promise<NbdServer> {
    const server = new NbdServer(options);
    try {
      for (const item of options.exports ?? []) server.addExport(item);
      for (const listener of options.listeners) await server.#listen(listener);
    } catch (error) {
      await server.close();
      throw error;
    }
    return server;
  }

  private constructor(options: NbdServerOptions) {
    this.#limits = { ...NBD_LIMITS, ...options.limits };
    this.#onDisconnect = options.onDisconnect ?? ((): void => {});
    this.#progressTimer = setInterval(() => {
      const now = performance.now();
      for (const session of this.#connections.keys()) session.checkProgress(now);
    }, this.#limits.requestProgressMs / 4);
    this.#progressTimer.unref();
  }

  /** Where it listens, in the order of the options; ports as given by the kernel. */
  get addresses(): NbdListenAddress[] {
    return this.#listeners.map((listener) => listener.address);
  }

  /** Throws `already-exists`, or `invalid-argument` for a name no client could ask for. */
  addExport(item: NbdExport): void {
    const bytes = Buffer.byteLength(item.name);
    if (bytes > STRING_BYTES_MAX || item.name.includes('\0')) {
      throw new TidemarkError('invalid-argument', 'an export name is at most 4096 bytes without NUL');
    }
    if (this.#exports.has(item.name)) throw new TidemarkError('already-exists', `export "${item.name}" exists`);
    assert(item.size >= 0 && item.size % 512 === 0, 'the size of an export is a multiple of 512');
    this.#exports.set(item.name, item);
  }

  /** New clients no longer find it; those it has get the answers they wait for and are disconnected. `not-found`. */
  async removeExport(name: string): Promise<void> {
    const item = this.#exports.get(name);
    if (item === undefined) throw new TidemarkError('not-found', `no export "${name}"`);
    this.#exports.delete(name);
    const uses = (session: NbdSession): boolean => session.export === item;
    for (const session of this.#connections.keys()) if (uses(session)) session.shutdown();
    await this.#until(() => ![...this.#connections.keys()].some(uses));
  }

  /** Who is connected, to one export or in all. */
  clients(exportName?: string): NbdConnectedClient[] {
    const all = [...this.#connections.values()].map((connection) => this.#describe(connection));
    return exportName === undefined ? all : all.filter((client) => client.exportName === exportName);
  }

  /** New certificates, for connections from now on. `listener`: index into the options' listeners. `config-invalid`. */
  reloadTls(listener: number, tls: NbdServerTls): void {
    const upgrader = this.#listeners[listener]?.tls;
    if (upgrader === undefined) throw new TidemarkError('not-found', `NBD listener ${listener} has no TLS`);
    upgrader.reload(tls);
  }

  /** Stops listening; every client gets the answers it waits for, within the limit, and is disconnected. Idempotent. */
  async close(): Promise<void> {
    this.#closing = true;
    const stopped = this.#listeners.map(
      async (listener) => new Promise<void>((done) => listener.server.close(() => done())),
    );
    for (const session of this.#connections.keys()) session.shutdown();
    await this.#until(() => this.#connections.size === 0);
    await Promise.all(stopped);
    clearInterval(this.#progressTimer);
  }

  async #listen(options: NbdListenerOptions): Promise<void> {
    const tls = options.tls === undefined ? undefined : new TlsUpgrader(options.tls);
    const catalogue: ExportCatalogue = {
      list: () => [...this.#exports.values()],
      find: (name) => {
        const [first] = this.#exports.values();
        return this.#exports.get(name) ?? (name === '' && this.#exports.size === 1 ? first : undefined);
      },
    };
    const admit = options.admit ?? ((): void => {});
    const server = await listen(options.address, (socket) =>
      this.#accept(socket, options.address, tls, catalogue, admit),
    );
    this.#listeners.push({ server, address: listeningAt(server, options.address), tls });
  }

  #accept(
    socket: Socket,
    address: NbdListenAddress,
    tls: TlsUpgrader | undefined,
    catalogue: ExportCatalogue,
    admit: (exportName: string) => void,
  ): void {
    if (this.#closing || this.#connections.size >= this.#limits.connectionsMax) {
      socket.destroy();
      return;
    }
    const peer = address.kind === 'unix' ? address.path : `${socket.remoteAddress ?? '?'}:${socket.remotePort ?? 0}`;
    const session = new NbdSession(socket, {
      catalogue,
      limits: this.#limits,
      arenas: this.#arenas,
      tls,
      admit,
      closed: (ended, reason) => this.#ended(ended, reason),
    });
    this.#connections.set(session, { session, peer, since: performance.now() });
  }

  #ended(session: NbdSession, reason: string): void {
    const connection = this.#connections.get(session);
    if (connection === undefined) return;
    this.#connections.delete(session);
    this.#onDisconnect(this.#describe(connection), reason);
    for (const wake of this.#idleWaiters.splice(0)) wake();
  }

  #describe(connection: Connection): NbdConnectedClient {
    const { session, peer, since } = connection;
    const secured = session.tls;
    const subject = secured?.getPeerCertificate()?.subject?.CN;
    const clientName = Array.isArray(subject) ? subject[0] : subject;
    const protocol = secured?.getProtocol() ?? undefined;
    return {
      exportName: session.export?.name,
      peer,
      tls: protocol === undefined ? undefined : { protocol, clientName },
      connectedMs: Math.round(performance.now() - since),
    };
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((wake) => this.#idleWaiters.push(wake));
  }
}
