import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import { crc32c } from '@node-rs/crc32';
import type * as KafkaJs from 'kafkajs';

/**
 * Loads kafkajs 2.2.4 with three corrections, each checked against the code it replaces. The library is dormant, so they
 * stay right until somebody changes the version; then they are left out, and the process says so.
 *
 * - Its CRC32C is a table walk in JavaScript, a third of the producer's time: the native one takes its place.
 * - Its request queue re-arms a 1 ms timer for ever (tulios/kafkajs#1751): 4 % of a core per idle connection, and a
 *   TimeoutNegativeWarning. With nothing queued and no throttling there is nothing to wait for.
 * - Its connections keep half an answer of a connection that was cut, and read the next one's bytes behind it; what
 *   cannot be read is thrown in the socket's event, where nobody catches it: a cut at the wrong byte ended the process.
 *   Each socket begins with nothing, and an answer that makes no sense, or is larger than any we ask for, ends it.
 */
const PATCHED_VERSION = '2.2.4';

/** Above what a broker gives for one fetch (55 MiB) or takes as one request (100 MiB). */
const ANSWER_BYTES_MAX = 128 * 1024 * 1024;
/** Length of an answer, int32. */
const LENGTH_BYTES = 4;

interface Connection {
  readonly socket: Socket | undefined;
  chunks: Buffer[];
  bytesBuffered: number;
  /** Length field and answer, once the length is known. */
  bytesNeeded: number;
  processData: (this: Connection, bytes: Buffer) => void;
}

interface RequestQueue {
  readonly pending: readonly unknown[];
  readonly throttledUntil: number;
  scheduleCheckPendingRequests: (this: RequestQueue) => void;
}

export function loadKafkaJs(): typeof KafkaJs {
  const require = createRequire(import.meta.url);
  const { version } = require('kafkajs/package.json') as { version: string };
  if (version === PATCHED_VERSION) {
    replaceChecksum(require);
    quietRequestQueue(require);
    guardConnections(require);
  } else {
    warn(`version ${version} is installed, the corrections are for ${PATCHED_VERSION}`);
  }
  return require('kafkajs') as typeof KafkaJs;
}

function replaceChecksum(require: NodeJS.Require): void {
  const path = require.resolve('kafkajs/src/protocol/recordBatch/crc32C/index.js');
  const original = require(path) as (bytes: Buffer) => number;
  const probe = Buffer.from('123456789');
  const cached = require.cache[path];
  if (cached === undefined || original(probe) !== crc32c(probe)) {
    warn('its CRC32C is not where it was');
    return;
  }
  cached.exports = (bytes: Buffer): number => crc32c(bytes);
}

function quietRequestQueue(require: NodeJS.Require): void {
  const { prototype } = require('kafkajs/src/network/requestQueue') as { prototype: RequestQueue };
  const original = prototype.scheduleCheckPendingRequests;
  if (typeof original !== 'function') {
    warn('its request queue is not what it was');
    return;
  }
  prototype.scheduleCheckPendingRequests = function guarded(this: RequestQueue): void {
    if (this.pending.length === 0 && this.throttledUntil <= Date.now()) return;
    original.call(this);
  };
}

function guardConnections(require: NodeJS.Require): void {
  const { prototype } = require('kafkajs/src/network/connection') as { prototype: Connection };
  const original = prototype.processData;
  if (typeof original !== 'function') {
    warn('its connection is not what it was');
    return;
  }
  const begun = new WeakMap<Connection, Socket>();
  prototype.processData = function guarded(this: Connection, bytes: Buffer): void {
    const { socket } = this;
    if (socket === undefined || socket.destroyed) return;
    if (begun.get(this) !== socket) {
      begun.set(this, socket);
      this.chunks = [];
      this.bytesBuffered = 0;
      this.bytesNeeded = LENGTH_BYTES;
    }
    try {
      original.call(this, bytes);
    } catch (error) {
      socket.destroy(new Error(`an answer cannot be read: ${error instanceof Error ? error.message : 'unknown'}`));
      return;
    }
    if (this.bytesNeeded > ANSWER_BYTES_MAX) socket.destroy(new Error(`an answer of ${this.bytesNeeded} bytes`));
  };
}

function warn(detail: string): void {
  process.emitWarning(`kafkajs runs uncorrected: ${detail}`, { code: 'TIDEMARK_KAFKAJS' });
}
