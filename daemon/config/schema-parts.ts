import { isAbsolute, normalize } from 'node:path';
import { z } from 'zod';
import type {
  ClientTls,
  ControlConfig,
  KafkaConfig,
  KafkaSasl,
  MetricsConfig,
  NbdListen,
  ServerTls,
  TcpAddress,
} from './config-types.ts';
import { parseDuration, parseSize, type Quantity } from './units.ts';

/** The schema pieces both roles share. Every transform reports in words that follow `key: `. */

/** Fills in `null` for a key that is left out. */
export function orNull<T>(schema: z.ZodType<T>): z.ZodType<T | null> {
  return schema.optional().transform((value) => value ?? null);
}

function quantity(parse: (text: string) => Quantity): z.ZodType<number> {
  return z.union([z.string(), z.number()]).transform((value, context) => {
    const parsed = parse(String(value));
    if (parsed.ok) return parsed.value;
    context.issues.push({ code: 'custom', message: parsed.problem, input: value });
    return z.NEVER;
  });
}

/** Bytes from `10GiB`. */
const size: z.ZodType<number> = quantity(parseSize);

/** Milliseconds from `15s`. */
const duration: z.ZodType<number> = quantity(parseDuration);

/** Bytes, at least `minimum`, a multiple of `multiple`. */
export function sizeAtLeast(minimum: string, multiple: number): z.ZodType<number> {
  const parsed = parseSize(minimum);
  const minimumBytes = parsed.ok ? parsed.value : 0;
  return size
    .refine((bytes) => bytes >= minimumBytes, `must be at least ${minimum}`)
    .refine((bytes) => bytes % multiple === 0, `must be a multiple of ${multiple} bytes`);
}

/** Milliseconds between two bounds, given as an operator writes them. */
export function durationBetween(minimum: string, maximum: string): z.ZodType<number> {
  const low = parseDuration(minimum);
  const high = parseDuration(maximum);
  return duration.refine(
    (ms) => low.ok && high.ok && ms >= low.value && ms <= high.value,
    `must lie between ${minimum} and ${maximum}`,
  );
}

/** What stands in URIs, file names, topics and metric labels. */
export const name: z.ZodType<string> = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/,
    'must be 1 to 64 letters, digits, ".", "_" or "-", a letter or digit first',
  );

export const absolutePath: z.ZodType<string> = z
  .string()
  .refine((path) => isAbsolute(path) && !path.includes('\0'), 'must be an absolute path');

/** The kernel's limit of a unix socket's path is 108 bytes with the closing zero. */
const socketPath: z.ZodType<string> = absolutePath.refine(
  (path) => Buffer.byteLength(path) <= 107,
  'is longer than the 107 bytes a unix socket path may have',
);

/** `host:port`, `[v6]:port`. */
export const tcpAddress: z.ZodType<TcpAddress> = z.string().transform((text, context) => {
  const parsed = parseTcpAddress(text);
  if (parsed !== undefined) return parsed;
  context.issues.push({
    code: 'custom',
    message: `"${text}" is not host:port, like 10.0.0.5:10810 or [::1]:10810`,
    input: text,
  });
  return z.NEVER;
});

/** Undefined when the text is not `host:port`. */
function parseTcpAddress(text: string): TcpAddress | undefined {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/.exec(text);
  if (match === null) return undefined;
  const port = Number(match[3]);
  const host = match[1] ?? match[2] ?? '';
  return port > 65_535 ? undefined : { host, port };
}

export const serverTls: z.ZodType<ServerTls> = z
  .strictObject({
    certificate: absolutePath,
    key: absolutePath,
    authorities: orNull(absolutePath),
    requireClientCertificate: z.boolean().default(false),
  })
  .superRefine((value, context) => {
    if (value.requireClientCertificate && value.authorities === null) {
      context.addIssue({
        code: 'custom',
        path: ['requireClientCertificate'],
        message: 'needs authorities: the certificates of those who sign the clients',
      });
    }
  });

export const clientTls: z.ZodType<ClientTls> = z
  .strictObject({
    certificate: orNull(absolutePath),
    key: orNull(absolutePath),
    authorities: orNull(absolutePath),
    serverName: orNull(z.string().min(1)),
  })
  .superRefine((value, context) => {
    if ((value.certificate === null) !== (value.key === null)) {
      const missing = value.certificate === null ? 'certificate' : 'key';
      context.addIssue({ code: 'custom', message: `certificate and key go together: ${missing} is missing` });
    }
  });

export const nbdListen: z.ZodType<NbdListen> = z
  .strictObject({ unix: orNull(socketPath), tcp: orNull(tcpAddress), tls: orNull(serverTls) })
  .superRefine((value, context) => {
    exactlyOne(value, ['unix', 'tcp'], context);
    if (value.tls !== null && value.unix !== null) {
      context.addIssue({
        code: 'custom',
        path: ['tls'],
        message: 'belongs to tcp; a unix socket is guarded by its directory',
      });
    }
  });

/** "Exactly one of": names what is missing or what is too much. */
export function exactlyOne<T extends object>(value: T, keys: (keyof T & string)[], context: z.RefinementCtx): void {
  const given = keys.filter((key) => value[key] !== null);
  if (given.length === 1) return;
  const problem = given.length === 0 ? 'none is given' : `${given.join(' and ')} are given`;
  context.addIssue({ code: 'custom', message: `give exactly one of ${keys.join(', ')}: ${problem}` });
}

const kafkaSasl: z.ZodType<KafkaSasl> = z.strictObject({
  mechanism: z.enum(['plain', 'scram-sha-256', 'scram-sha-512']),
  username: z.string().min(1),
  passwordFile: absolutePath,
});

const topicName = z.string().regex(/^[A-Za-z0-9._-]{1,240}$/, 'must be 1 to 240 letters, digits, ".", "_" or "-"');

export const kafka: z.ZodType<KafkaConfig> = z
  .strictObject({
    brokers: z
      .array(z.string().refine((text) => parseTcpAddress(text) !== undefined, 'must be host:port'))
      .min(1, 'needs at least one host:port'),
    topic: topicName,
    feedbackTopic: orNull(topicName),
    tls: orNull(clientTls),
    sasl: orNull(kafkaSasl),
    createTopic: z.boolean().default(true),
    replicationFactor: z.int().min(1).max(15).default(3),
    minInsyncReplicas: z.int().min(1).max(15).default(2),
    retentionBytes: orNull(sizeAtLeast('64MiB', 1)),
    acceptWeakTopic: z.boolean().default(false),
  })
  .superRefine((value, context) => {
    if (value.minInsyncReplicas > value.replicationFactor) {
      context.addIssue({
        code: 'custom',
        path: ['minInsyncReplicas'],
        message: `is larger than replicationFactor (${value.replicationFactor}): nothing could ever be written`,
      });
    }
    if (value.feedbackTopic === value.topic) {
      context.addIssue({ code: 'custom', path: ['feedbackTopic'], message: 'must differ from topic' });
    }
  });

export const control: z.ZodType<ControlConfig> = z.strictObject({ socket: socketPath });

export const metrics: z.ZodType<MetricsConfig> = z
  .strictObject({
    listen: orNull(tcpAddress),
    tracesEndpoint: orNull(z.url({ protocol: /^https?$/, error: 'must be an http or https URL' })),
  })
  .default({ listen: null, tracesEndpoint: null });

export const alarmCommand: z.ZodType<readonly string[] | null> = orNull(
  z
    .array(z.string().min(1))
    .min(1)
    .refine((words) => isAbsolute(words[0] ?? ''), 'the program must be an absolute path'),
);

/** One issue per place, address or topic that two parts of one daemon would use: `claim` them one after the other. */
export class Claims {
  readonly #users: Map<string, string>;
  readonly #context: z.RefinementCtx;

  constructor(daemon: { readonly stateDir: string; readonly control: ControlConfig }, context: z.RefinementCtx) {
    this.#context = context;
    this.#users = new Map([
      [normalize(daemon.stateDir), 'stateDir'],
      [normalize(daemon.control.socket), 'control.socket'],
    ]);
  }

  claim(named: string, group: number, path: readonly PropertyKey[]): void {
    const what = named.startsWith('/') ? normalize(named) : named;
    const user = this.#users.get(what);
    if (user !== undefined) {
      const message = `${what} is already used by ${user}`;
      this.#context.addIssue({ code: 'custom', path: ['groups', group, ...path], message });
    }
    this.#users.set(what, `groups.${group}.${path.join('.')}`);
  }
}

/** One issue per name that stands twice. */
export function uniqueNames(
  items: readonly { readonly name: string }[],
  path: PropertyKey[],
  context: z.RefinementCtx,
): void {
  const seen = new Set<string>();
  for (const [index, item] of items.entries()) {
    if (seen.has(item.name)) {
      context.addIssue({ code: 'custom', path: [...path, index, 'name'], message: `"${item.name}" is used twice` });
    }
    seen.add(item.name);
  }
}
