import { z } from 'zod';
import type { ReplicaConfig, ReplicaGroupConfig, ReplicaStreamConfig } from './config-types.ts';
import {
  absolutePath,
  alarmCommand,
  Claims,
  control,
  durationBetween,
  exactlyOne,
  kafka,
  metrics,
  name,
  nbdListen,
  orNull,
  serverTls,
  sizeAtLeast,
  tcpAddress,
  uniqueNames,
} from './schema-parts.ts';

/** The configuration of `tidemark replica`. */

const stream: z.ZodType<ReplicaStreamConfig> = z
  .strictObject({
    direct: orNull(z.strictObject({ listen: tcpAddress, tls: orNull(serverTls) })),
    kafka: orNull(kafka),
  })
  .superRefine((value, context) => exactlyOne(value, ['direct', 'kafka'], context));

const group: z.ZodType<ReplicaGroupConfig> = z
  .strictObject({
    name,
    groupId: orNull(z.string().regex(/^[0-9a-f]{32}$/, 'must be 32 hex digits, as the source shows it in status')),
    directory: absolutePath,
    budget: orNull(sizeAtLeast('64MiB', 1)),
    reserve: sizeAtLeast('1MiB', 1).default(1024 ** 3),
    history: z.strictObject({
      window: durationBetween('1m', '36500d'),
      bytes: orNull(sizeAtLeast('64MiB', 1)),
    }),
    stream,
    apply: z.enum(['off', 'async', 'sync']).default('off'),
    views: nbdListen,
  })
  .transform(({ budget, reserve, history, ...rest }) => ({
    ...rest,
    budgetBytes: budget,
    reserveBytes: reserve,
    history: { windowMs: history.window, bytesMax: history.bytes },
  }));

export const replicaSchema: z.ZodType<ReplicaConfig> = z
  .strictObject({
    stateDir: absolutePath,
    name,
    control,
    metrics,
    alarmCommand,
    groups: z.array(group).min(1, 'needs at least one group'),
  })
  .superRefine((value, context) => {
    uniqueNames(value.groups, ['groups'], context);
    const claims = new Claims(value, context);
    for (const [index, entry] of value.groups.entries()) {
      const claim = (named: string, path: PropertyKey[]): void => claims.claim(named, index, path);
      claim(entry.directory, ['directory']);
      if (entry.views.unix !== null) claim(entry.views.unix, ['views', 'unix']);
      if (entry.stream.kafka !== null) claim(`topic ${entry.stream.kafka.topic}`, ['stream', 'kafka', 'topic']);
      const listen = entry.stream.direct?.listen;
      if (listen !== undefined && listen.port !== 0)
        claim(`${listen.host}:${listen.port}`, ['stream', 'direct', 'listen']);
    }
  });
