import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { DeviceExtent } from '../../journal/block-device.ts';
import { SECTOR_BYTES } from '../../journal/position.ts';
import { NbdClient, type NbdClientTls } from '../nbd/client.ts';
import { formatNbdUri, type NbdAddress } from '../nbd/nbd-uri.ts';
import type { Backing, BackingIdentity } from './backing.ts';

export interface NbdBackingOptions {
  readonly tls?: NbdClientTls;
  readonly readOnly?: boolean;
  /** A request the server does not answer for so long ends the connection; 30 000. */
  readonly requestTimeoutMs?: number;
  /** How long a request waits for a lost connection to come back before it fails; 0: not at all; 30 000. */
  readonly waitMs?: number;
}

const REQUEST_TIMEOUT_MS = 30_000;
const WAIT_MS = 30_000;
const CONNECT_TIMEOUT_MS = 10_000;
const RETRY_FIRST_MS = 50;
const RETRY_MOST_MS = 5_000;
/** Zeroes asked for with one call: bounds what the client has in flight for a terabyte trim. */
const ZERO_SLICE_BYTES = 256 * 1024 * 1024;

interface Waiter {
  readonly resolve: (client: NbdClient) => void;
  readonly reject: (error: TidemarkError) => void;
}

/**
 * A disk behind another NBD server (qemu-nbd, qemu-storage-daemon, nbdkit). The connection comes back by itself, with
 * growing pauses; a request waits for it up to `waitMs`, then fails.
 *
 * Reads are asked again over a new connection. Writes are not: an upstream server that was killed may have lost what it
 * had answered and not yet flushed, so after a loss the next write or flush fails once with `device-gone` if anything
 * was written since the last good flush, and the owner writes all of that again (DESIGN rule 9).
 */
export class NbdBacking implements Backing {
  readonly size: number;
  readonly readOnly: boolean;
  readonly #address: NbdAddress;
  readonly #options: NbdBackingOptions;
  #client: NbdClient | undefined;
  /** Something was sent that no flush has covered. */
  #unflushed = false;
  /** What was not flushed may be lost, and nobody was told yet. */
  #loss: TidemarkError | undefined;
  /** The server that came back is another disk: nothing goes on. */
  #refusal: TidemarkError | undefined;
  #closed = false;
  #retryMs = RETRY_FIRST_MS;
  #retryTimer: NodeJS.Timeout | undefined;
  #waiters: Waiter[] = [];

  /** Rejects as `NbdClient.connect` does, and with `unsupported` when the server's blocks are larger than a sector. */
  static async open(address: NbdAddress, options: NbdBackingOptions = {}): Promise<NbdBacking> {
    const client = await connect(address, options);
    const uri = formatNbdUri(address);
    const refuse = async (message: string): Promise<never> => {
      await client.close();
      throw new TidemarkError('unsupported', `${uri}: ${message}`, { details: { uri } });
    };
    if (client.minimumBlockBytes > SECTOR_BYTES) await refuse('blocks of more than 512 bytes cannot be served');
    if (client.size % SECTOR_BYTES !== 0) await refuse('the size is not a multiple of 512 bytes');
    if (options.readOnly !== true) {
      if (client.flags.readOnly) await refuse('the server exports it read-only');
      if (!client.flags.flush) await refuse('the server does not flush');
    }
    return new NbdBacking(address, options, client);
  }

  private constructor(address: NbdAddress, options: NbdBackingOptions, client: NbdClient) {
    this.#address = address;
    this.#options = options;
    this.size = client.size;
    this.readOnly = options.readOnly === true;
    this.#use(client);
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#check(offset, into.length);
    await this.#again((client) => client.read(offset, into));
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    this.#check(offset, from.length);
    await this.#change((client) => client.write(offset, from));
  }

  async zero(offset: number, length: number, mayUnmap: boolean): Promise<void> {
    this.#check(offset, length);
    for (let at = 0; at < length; at += ZERO_SLICE_BYTES) {
      const slice = Math.min(ZERO_SLICE_BYTES, length - at);
      await this.#change((client) => client.zero(offset + at, slice, { mayUnmap }));
    }
  }

  async flush(): Promise<void> {
    if (this.readOnly) return;
    this.#tellLoss();
    const client = await this.#connected();
    this.#tellLoss();
    const wasUnflushed = this.#unflushed;
    this.#unflushed = false;
    try {
      await client.flush();
    } catch (error) {
      // A flush that failed proves nothing about what came before it, and must not be believed when repeated.
      this.#unflushed = false;
      this.#loss = undefined;
      throw wasUnflushed ? this.#gone('the flush failed', error) : error;
    }
  }

  async extents(offset: number, length: number): Promise<DeviceExtent[]> {
    this.#check(offset, length);
    return this.#again((client) => client.extents(offset, length));
  }

  identity(): Promise<BackingIdentity> {
    const location = formatNbdUri(this.#address);
    return Promise.resolve({ kind: 'nbd', location, node: '', size: this.size, modifiedNanos: '' });
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#retryTimer);
    this.#rejectWaiters(new TidemarkError('shutting-down', `${formatNbdUri(this.#address)} is being closed`));
    await this.#client?.close();
  }

  /** Runs a request that changes nothing, over a new connection when the one it ran on is lost. */
  async #again<T>(request: (client: NbdClient) => Promise<T>): Promise<T> {
    for (;;) {
      const client = await this.#connected();
      try {
        return await request(client);
      } catch (error) {
        if (client === this.#client || !(error instanceof TidemarkError) || this.#waitMs === 0) throw error;
      }
    }
  }

  async #change(request: (client: NbdClient) => Promise<void>): Promise<void> {
    if (this.readOnly)
      throw new TidemarkError('read-only', `${formatNbdUri(this.#address)} was opened for reading only`);
    this.#tellLoss();
    const client = await this.#connected();
    this.#tellLoss();
    this.#unflushed = true;
    try {
      await request(client);
    } catch (error) {
      if (client === this.#client) throw error;
      this.#loss = undefined;
      throw this.#gone('the connection was lost while writing', error);
    }
  }

  #tellLoss(): void {
    const loss = this.#loss;
    this.#loss = undefined;
    if (loss !== undefined) throw loss;
  }

  get #waitMs(): number {
    return this.#options.waitMs ?? WAIT_MS;
  }

  /** The connection, waited for up to `waitMs`. */
  #connected(): Promise<NbdClient> {
    if (this.#refusal !== undefined) return Promise.reject(this.#refusal);
    if (this.#closed) return Promise.reject(new TidemarkError('shutting-down', 'the backing is closed'));
    if (this.#client !== undefined) return Promise.resolve(this.#client);
    if (this.#waitMs === 0) return Promise.reject(this.#gone('not connected'));
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        resolve: (client) => {
          clearTimeout(deadline);
          resolve(client);
        },
        reject: (error) => {
          clearTimeout(deadline);
          reject(error);
        },
      };
      const deadline = setTimeout(() => {
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
        reject(this.#gone(`not connected for ${this.#waitMs} ms`));
      }, this.#waitMs);
      this.#waiters.push(waiter);
    });
  }

  #use(client: NbdClient): void {
    this.#client = client;
    this.#retryMs = RETRY_FIRST_MS;
    client.onClosed((reason) => {
      if (this.#client !== client) return;
      this.#client = undefined;
      if (this.#closed) return;
      if (this.#unflushed)
        this.#loss = this.#gone('the connection was lost before what was written was flushed', reason);
      this.#unflushed = false;
      this.#retry();
    });
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.resolve(client);
  }

  #retry(): void {
    this.#retryTimer = setTimeout(() => {
      connect(this.#address, this.#options).then(
        (client) => this.#reconnected(client),
        (error: unknown) => {
          if (!(error instanceof TidemarkError)) throw error;
          if (!this.#closed) this.#retry();
        },
      );
    }, this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MOST_MS);
  }

  #reconnected(client: NbdClient): void {
    if (!this.#closed && client.size === this.size) {
      this.#use(client);
      return;
    }
    void client.close();
    if (this.#closed) return;
    this.#refusal = new TidemarkError(
      'backing-changed',
      `${formatNbdUri(this.#address)} came back with ${client.size} bytes instead of ${this.size}`,
    );
    this.#rejectWaiters(this.#refusal);
  }

  #rejectWaiters(error: TidemarkError): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.reject(error);
  }

  #check(offset: number, length: number): void {
    assert(
      offset >= 0 && length >= 0 && offset + length <= this.size,
      `[${offset}, +${length}) is outside the backing`,
    );
    assert(offset % SECTOR_BYTES === 0 && length % SECTOR_BYTES === 0, 'backings are used in sectors');
  }

  #gone(why: string, cause?: unknown): TidemarkError {
    const uri = formatNbdUri(this.#address);
    return new TidemarkError('device-gone', `${uri}: ${why}`, { cause, details: { uri } });
  }
}

async function connect(address: NbdAddress, options: NbdBackingOptions): Promise<NbdClient> {
  return NbdClient.connect(address, {
    connectTimeoutMs: CONNECT_TIMEOUT_MS,
    requestTimeoutMs: options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS,
    ...(options.tls === undefined ? {} : { tls: options.tls }),
  });
}
