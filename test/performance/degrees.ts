import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import { DelayProxy } from '../servers/delay-proxy.ts';
import { KafkaBroker } from '../servers/kafka-broker.ts';
import { Site, type SiteOptions } from '../servers/site.ts';

/**
 * `npm run bench:degrees -- [--seconds N] [--rtt 0,50] [--streams direct,kafka]`: what each degree of synchrony costs a
 * guest: the latency of a 4 KiB write with a flush behind it, one at a time, and 4 KiB random writes at a queue depth of
 * 32 with a flush every 256. The degree is changed while everything runs; the delay stands between the two sites.
 */
const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '4' },
    rtt: { type: 'string', default: '0,50' },
    streams: { type: 'string', default: 'direct,kafka' },
  },
});
const seconds = Number(values.seconds);

const DISK_BYTES = 256 * 1024 * 1024;
const BLOCK = Buffer.alloc(4096, 0x5a);
const DEPTH = 32;
const FLUSH_EVERY = 256;
const DEGREES = [['local'], ['stream', 'flush'], ['replica', 'flush'], ['replica', 'write']] as const;

interface Delay {
  set(roundTripMs: number): void;
  close(): Promise<void> | void;
}

/** Milliseconds of each write with a flush behind it. */
async function flushes(disk: NbdClient): Promise<number[]> {
  const took: number[] = [];
  for (const end = performance.now() + seconds * 1000; performance.now() < end; ) {
    const began = performance.now();
    await disk.write(place(), BLOCK);
    await disk.flush();
    took.push(performance.now() - began);
  }
  return took.toSorted((a, b) => a - b);
}

/** Writes answered in a second. */
async function rate(disk: NbdClient): Promise<number> {
  let written = 0;
  const began = performance.now();
  const end = began + seconds * 1000;
  const guest = async (): Promise<void> => {
    while (performance.now() < end) {
      await disk.write(place(), BLOCK);
      written += 1;
      if (written % FLUSH_EVERY === 0) await disk.flush();
    }
  };
  await Promise.all(Array.from({ length: DEPTH }, guest));
  return (written * 1000) / (performance.now() - began);
}

function place(): number {
  return BLOCK.length * Math.floor(Math.random() * (DISK_BYTES / BLOCK.length));
}

async function setDegree(site: Site, degree: readonly string[]): Promise<void> {
  const [ack = 'local', at = 'flush'] = degree;
  await site.source.command('degree', site.group, '--ack', ack, '--at', at);
  for (const end = performance.now() + 120_000; ; ) {
    const now = (await site.sourceGroup()).degree;
    const isThere = now?.policy.ack === ack && now.policy.ackAt === at && now.next === null;
    if (isThere && now.holds !== false) return;
    if (performance.now() > end) throw new Error(`${degree.join('@')}: ${JSON.stringify(now)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function measure(stream: string, extra: Partial<SiteOptions>, delay: Delay): Promise<void> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-degrees-'));
  const site = new Site(directory, { volumes: [{ name: 'root', sizeBytes: DISK_BYTES }], ...extra });
  try {
    await site.start();
    const disk = await NbdClient.connect(parseNbdUri(site.exportUri('root')));
    for (const roundTripMs of values.rtt.split(',').map(Number)) {
      for (const degree of DEGREES) {
        delay.set(roundTripMs);
        await setDegree(site, degree);
        const took = await flushes(disk);
        const writes = await rate(disk);
        const at = (part: number): string => (took[Math.floor(part * (took.length - 1))] ?? 0).toFixed(2);
        const cells = [stream, `${roundTripMs} ms`, degree.join(' at '), at(0.5), at(0.99), Math.round(writes)];
        console.log(`| ${cells.join(' | ')} |`);
      }
    }
    await disk.close();
  } finally {
    await site.stop();
    await delay.close();
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

console.log(
  '| stream | round trip | degree | write + flush, median ms | p99 ms | writes/s at depth 32, a flush every 256 |',
);
console.log('|---|---|---|---|---|---|');
for (const stream of values.streams.split(',')) {
  if (stream === 'direct') {
    let proxy: DelayProxy | undefined;
    const wayToReplica = async (listen: string): Promise<string> => {
      proxy = await DelayProxy.listen(listen);
      return proxy.address;
    };
    const set = (roundTripMs: number): void => {
      if (proxy !== undefined) proxy.delayMs = roundTripMs / 2;
    };
    await measure('direct', { wayToReplica }, { set, close: () => proxy?.close() });
  } else {
    const broker = await KafkaBroker.start();
    const set = (roundTripMs: number): void => {
      // both sides reach the broker through it
      broker.proxy.delayMs = roundTripMs / 2;
    };
    const kafka = { brokers: [broker.proxiedAddress], topic: 'degrees' };
    await measure('kafka', { kafka }, { set, close: () => broker.stop() });
  }
}
