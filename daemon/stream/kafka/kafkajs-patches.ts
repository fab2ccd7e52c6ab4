import { createRequire } from 'node:module';
import { crc32c } from '@node-rs/crc32';
import type * as KafkaJs from 'kafkajs';

/**
 * Loads kafkajs 2.2.4 with two corrections, each checked against the code it replaces. The library is dormant, so both
 * stay right until somebody changes the version; then they are left out, and the process says so.
 *
 * - Its CRC32C is a table walk in JavaScript, a third of the producer's time: the native one takes its place.
 * - Its request queue re-arms a 1 ms timer for ever (tulios/kafkajs#1751): 4 % of a core per idle connection, and a
 *   TimeoutNegativeWarning. With nothing queued and no throttling there is nothing to wait for.
 */
const PATCHED_VERSION = '2.2.4';

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

function warn(detail: string): void {
  process.emitWarning(`kafkajs runs uncorrected (slower, busier when idle): ${detail}`, { code: 'TIDEMARK_KAFKAJS' });
}
