import fs from 'node:fs';
import path from 'node:path';
import { KafkaBroker } from '../../servers/kafka-broker.ts';
import { Site, type SiteOptions } from '../../servers/site.ts';
import { fio } from '../fio.ts';
import { cpuSeconds } from '../process-usage.ts';
import type { Row } from '../rows.ts';
import { type PartContext, type PartRun, Values } from './part.ts';
import { RateProxy } from './rate-proxy.ts';

const MIB = 1024 ** 2;
const AREA_BYTES = 512 * MIB;
const SHIPPED_PER_SECOND = 32 * MIB;
const REPLICA_MS = 300_000;
const SUSTAINED: Row = {
  name: 'kafka',
  unit: 'MiB/s',
  load: ['--rw=randwrite', '--bs=64k', '--norandommap', '--randrepeat=0', '--iodepth=16'],
  goals: {},
};
const GUEST: Row = {
  name: 'kafka',
  unit: 'IOPS',
  load: ['--rw=randwrite', '--bs=4k', '--norandommap', '--randrepeat=0', '--iodepth=32'],
  goals: {},
};

interface Sites {
  readonly direct: Site;
  readonly kafka: Site;
}

/** A site over each stream, and a real broker that runs beside both; `capped`: what is shipped passes a slow line. */
async function withSites(
  directory: string,
  capped: boolean,
  measure: (sites: Sites, broker: KafkaBroker) => Promise<void>,
): Promise<void> {
  const broker = await KafkaBroker.start();
  let proxy: RateProxy | undefined;
  const site = (name: string, options: Partial<SiteOptions>): Site => {
    fs.mkdirSync(path.join(directory, name));
    const sizes = { journalBudget: '4GiB', journalFileSize: '64MiB' };
    const volumes = [{ name: 'disk0', sizeBytes: AREA_BYTES }];
    return new Site(path.join(directory, name), { volumes, ...sizes, ...options });
  };
  const way = async (listen: string): Promise<string> => {
    proxy = await RateProxy.listen(Number(listen.split(':').at(-1)), SHIPPED_PER_SECOND);
    return `127.0.0.1:${proxy.port}`;
  };
  if (capped) broker.proxy.producedBytesPerSecond = SHIPPED_PER_SECOND;
  const brokers = [capped ? broker.proxiedAddress : broker.address];
  const sites = {
    direct: site('direct', capped ? { wayToReplica: way } : {}),
    kafka: site('kafka', { kafka: { brokers, topic: 'tidemark-bench' } }),
  };
  try {
    await sites.direct.start();
    await sites.kafka.start();
    await measure(sites, broker);
  } finally {
    await sites.direct.stop();
    await sites.kafka.stop();
    proxy?.close();
    await broker.stop();
  }
}

/** Writes as fast as the source takes them, until the replica holds them durably. */
async function sustained(site: Site, seconds: number): Promise<{ mibPerSecond: number; cpuMs: number }> {
  const cpu = (): number => cpuSeconds(site.source.pid) + cpuSeconds(site.replica.pid);
  const [before, began] = [cpu(), performance.now()];
  const { operations } = await fio(site.exportUri('disk0'), SUSTAINED, seconds, AREA_BYTES);
  await site.waitForReplica(await site.headLsn(), REPLICA_MS);
  const mib = operations / 16;
  return { mibPerSecond: mib / ((performance.now() - began) / 1000), cpuMs: ((cpu() - before) * 1000) / mib };
}

export const kafkaSustained: PartRun = async ({ directory, quick, repetitions }: PartContext) => {
  const values = new Values();
  await withSites(directory, false, async (sites) => {
    for (let repetition = 0; repetition < repetitions; repetition++) {
      const rates: number[] = [];
      for (const [name, site] of Object.entries(sites)) {
        const { mibPerSecond, cpuMs } = await sustained(site, quick ? 5 : 30);
        values.add(`through ${name}, until the replica holds it`, mibPerSecond);
        values.add(`CPU of source and replica, ${name}`, cpuMs);
        rates.push(mibPerSecond);
      }
      values.add('Kafka / direct', (rates[1] ?? 0) / (rates[0] ?? 0));
    }
  });
  return values.all;
};

/** What a guest sees of its stream when that is slower than the guest: nothing, whatever the stream is. */
export const kafkaGuest: PartRun = async ({ directory, quick, repetitions }: PartContext) => {
  const values = new Values();
  await withSites(directory, true, async (sites) => {
    for (let repetition = 0; repetition < Math.max(repetitions, quick ? 1 : 5); repetition++) {
      const rates: number[] = [];
      for (const [name, site] of Object.entries(sites)) {
        const { rate } = await fio(site.exportUri('disk0'), GUEST, quick ? 3 : 5, AREA_BYTES);
        values.add(`w4k-q32 through ${name}, shipping held to 32 MiB/s`, rate);
        rates.push(rate);
        // nothing is left over for the next
        await site.waitForReplica(await site.headLsn(), REPLICA_MS);
      }
      values.add('w4k-q32, Kafka / direct', (rates[1] ?? 0) / (rates[0] ?? 0));
    }
  });
  return values.all;
};
