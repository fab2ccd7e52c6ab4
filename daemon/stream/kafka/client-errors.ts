import { TidemarkError } from '../../../journal/base/errors.ts';

/** What is read of a client library's error; nothing else of it is known here. */
interface ClientError {
  readonly name?: string;
  readonly message?: string;
  /** Kafka's name of a protocol error. */
  readonly type?: string;
  readonly cause?: unknown;
  /** Of an aggregate of one error per topic. */
  readonly errors?: readonly unknown[];
  /** Of DeleteRecords. */
  readonly partitions?: readonly { readonly error?: unknown }[];
}

/** Errors that only a person ends: rights and passwords. */
const REFUSED = new Set([
  'TOPIC_AUTHORIZATION_FAILED',
  'CLUSTER_AUTHORIZATION_FAILED',
  'GROUP_AUTHORIZATION_FAILED',
  'SASL_AUTHENTICATION_FAILED',
  'UNSUPPORTED_SASL_MECHANISM',
  'SECURITY_DISABLED',
  'POLICY_VIOLATION',
]);

/** Errors that say that the topic or the request is not what it has to be. */
const MISCONFIGURED = new Set([
  'MESSAGE_TOO_LARGE',
  'RECORD_LIST_TOO_LARGE',
  'INVALID_TOPIC_EXCEPTION',
  'INVALID_CONFIG',
  'INVALID_REPLICATION_FACTOR',
  'INVALID_PARTITIONS',
  'UNSUPPORTED_VERSION',
  'UNSUPPORTED_FOR_MESSAGE_FORMAT',
  'INVALID_TIMESTAMP',
]);

/** OpenSSL's and Node's words for a certificate that will not become right by trying again. */
const CERTIFICATE = /certificate|CERT_|altnames|unable to verify|self-signed|ssl3_|SSL routines|EPROTO/i;

/** Turns anything a client threw into a `TidemarkError`; `doing` completes the sentence "Kafka failed ...". */
export function streamError(thrown: unknown, doing: string): TidemarkError {
  if (thrown instanceof TidemarkError) return thrown;
  const error = innermost(thrown);
  const type = error.type ?? '';
  const message = `Kafka, ${doing}: ${error.message ?? String(thrown)}`;
  const options = { cause: thrown, details: { kafka: type === '' ? (error.name ?? '') : type } };
  if (REFUSED.has(type) || error.name === 'KafkaJSSASLAuthenticationError' || CERTIFICATE.test(message)) {
    return new TidemarkError('stream-refused', message, options);
  }
  if (MISCONFIGURED.has(type)) return new TidemarkError('stream-misconfigured', message, options);
  return new TidemarkError('stream-unavailable', message, options);
}

/** Kafka's name of the protocol error inside, or ''. */
export function protocolErrorType(thrown: unknown): string {
  return innermost(thrown).type ?? '';
}

function innermost(thrown: unknown): ClientError {
  let error = thrown as ClientError;
  for (let depth = 0; depth < 8; depth++) {
    const next = error.errors?.[0] ?? error.partitions?.find((partition) => partition.error !== undefined)?.error;
    const inner = (error.type === undefined ? (next ?? error.cause) : undefined) as ClientError | undefined;
    if (typeof inner !== 'object' || inner === null) break;
    error = inner;
  }
  return error;
}
