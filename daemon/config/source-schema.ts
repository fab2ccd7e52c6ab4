import { z } from 'zod';
import { policyFaults } from '../synchrony/policy-faults.ts';
import type {
  DirectReplicaConfig,
  JournalConfig,
  RegisteredReplica,
  SourceConfig,
  SourceGroupConfig,
  SourceStreamConfig,
  VolumeConfig,
} from './config-types.ts';
import { degreeKeys } from './degree-keys.ts';
import {
  absolutePath,
  alarmCommand,
  Claims,
  clientTls,
  control,
  durationBetween,
  exactlyOne,
  kafka,
  metrics,
  name,
  nbdListen,
  orNull,
  sizeAtLeast,
  tcpAddress,
  uniqueNames,
} from './schema-parts.ts';

/** The configuration of `tidemark source`. */

const NBD_URI = /^nbds?(\+unix)?:\/\//;

const backing = z
  .string()
  .refine(
    (text) => text.startsWith('/') || NBD_URI.test(text),
    'must be an absolute path, or an nbd URI like nbd+unix:///disk?socket=/run/qsd/nbd.sock',
  );

const volume: z.ZodType<VolumeConfig> = z.strictObject({
  name,
  backing,
  size: orNull(sizeAtLeast('512B', 512)),
  start: z.enum(['empty', 'seed']),
});

const journal: z.ZodType<JournalConfig> = z
  .strictObject({
    directory: absolutePath,
    budget: sizeAtLeast('16MiB', 4096),
    fileSize: sizeAtLeast('1MiB', 4096).default(64 * 1024 ** 2),
    syncInterval: durationBetween('1ms', '10s').default(25),
  })
  .superRefine((value, context) => {
    if (value.budget < 4 * value.fileSize) {
      context.addIssue({
        code: 'custom',
        path: ['budget'],
        message:
          'must hold at least 4 files of fileSize: one is written, one is drained, one is made ready, one is spare',
      });
    }
  })
  .transform((value) => ({
    directory: value.directory,
    budgetBytes: value.budget,
    fileBytes: value.fileSize,
    syncIntervalMs: value.syncInterval,
  }));

const directReplica: z.ZodType<DirectReplicaConfig> = z.strictObject({
  name,
  connect: tcpAddress,
  tls: orNull(clientTls),
});

const stream: z.ZodType<SourceStreamConfig> = z
  .strictObject({
    direct: orNull(z.strictObject({ replicas: z.array(directReplica).min(1, 'needs at least one replica') })),
    kafka: orNull(kafka),
  })
  .superRefine((value, context) => exactlyOne(value, ['direct', 'kafka'], context));

const replica: z.ZodType<RegisteredReplica> = z.strictObject({ name, required: z.boolean().default(true) });

const group: z.ZodType<SourceGroupConfig> = z
  .strictObject({
    name,
    journal,
    volumes: z.array(volume).min(1, 'needs at least one volume').max(1000, 'has more than 1000 volumes'),
    listen: nbdListen,
    afterPowerLoss: z.enum(['hold', 'serve']).default('hold'),
    stream,
    replicas: z.array(replica).min(1, 'needs at least one replica: without one nothing is protected'),
    outOfRoom: z.enum(['block', 'stop-protecting']),
    overlayMemory: sizeAtLeast('1MiB', 1).default(64 * 1024 ** 2),
    settleTimeout: durationBetween('0s', '10m').default(10_000),
    heartbeat: durationBetween('50ms', '60s').default(1000),
    shipDelay: durationBetween('0s', '60s').default(2000),
    ...degreeKeys,
  })
  .superRefine((value, context) => {
    uniqueNames(value.volumes, ['volumes'], context);
    uniqueNames(value.replicas, ['replicas'], context);
    if (value.replicas.length > 0 && !value.replicas.some((entry) => entry.required)) {
      const message = 'none is required: at least one must be, or the journal would keep nothing for anybody';
      context.addIssue({ code: 'custom', path: ['replicas'], message });
    }
    checkDirectReplicas(value.stream, value.replicas, context);
    checkDegree(value, context);
  })
  .transform(
    ({
      overlayMemory,
      settleTimeout,
      heartbeat,
      shipDelay,
      ack,
      ackAt,
      onStall,
      stallAfter,
      unshippedMax,
      ...rest
    }) => ({
      ...rest,
      degree: { ack, ackAt, onStall, stallAfterMs: stallAfter, unshippedBytesMax: unshippedMax },
      overlayMemoryBytes: overlayMemory,
      settleTimeoutMs: settleTimeout,
      heartbeatMs: heartbeat,
      shipDelayMs: shipDelay,
    }),
  );

function checkDegree(
  {
    ack,
    ackAt,
    onStall,
    stallAfter,
    unshippedMax,
    heartbeat,
  }: z.infer<z.ZodObject<typeof degreeKeys>> & { heartbeat: number },
  context: z.RefinementCtx,
): void {
  const policy = { ack, ackAt, onStall, stallAfterMs: stallAfter, unshippedBytesMax: unshippedMax };
  for (const { key, message } of policyFaults(policy, heartbeat)) {
    context.addIssue({ code: 'custom', path: [key], message });
  }
}

/** Over direct both lists name the same replicas: one says how to reach them, the other whom the journal waits for. */
function checkDirectReplicas(
  configured: SourceStreamConfig,
  registered: readonly RegisteredReplica[],
  context: z.RefinementCtx,
): void {
  if (configured.direct === null) return;
  const reachable = new Set(configured.direct.replicas.map((entry) => entry.name));
  const known = new Set(registered.map((entry) => entry.name));
  uniqueNames(configured.direct.replicas, ['stream', 'direct', 'replicas'], context);
  for (const [index, entry] of registered.entries()) {
    if (reachable.has(entry.name)) continue;
    const message = `"${entry.name}" has no address: add it to stream.direct.replicas`;
    context.addIssue({ code: 'custom', path: ['replicas', index, 'name'], message });
  }
  for (const [index, entry] of configured.direct.replicas.entries()) {
    if (known.has(entry.name)) continue;
    const message = `"${entry.name}" is not registered: add it to the group's replicas`;
    context.addIssue({ code: 'custom', path: ['stream', 'direct', 'replicas', index, 'name'], message });
  }
}

export const sourceSchema: z.ZodType<SourceConfig> = z
  .strictObject({
    stateDir: absolutePath,
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
      claim(entry.journal.directory, ['journal', 'directory']);
      if (entry.listen.unix !== null) claim(entry.listen.unix, ['listen', 'unix']);
      for (const [at, item] of entry.volumes.entries()) claim(item.backing, ['volumes', at, 'backing']);
      if (entry.stream.kafka !== null) claim(`topic ${entry.stream.kafka.topic}`, ['stream', 'kafka', 'topic']);
    }
  });
