import type { DegreePolicy } from '../synchrony/degree-policy.ts';

/**
 * What a configuration says once it has been read: sizes in bytes, durations in milliseconds, every default filled in,
 * `null` where the operator left an optional thing out. docker/examples/ holds a commented file for each role.
 */

/** Paths of PEM files. */
export interface TlsFiles {
  readonly certificate: string | null;
  readonly key: string | null;
  /** Who may be at the other end; without it the system's authorities are trusted (a client) or nobody is asked (a server). */
  readonly authorities: string | null;
}

export interface ServerTls extends TlsFiles {
  readonly certificate: string;
  readonly key: string;
  readonly requireClientCertificate: boolean;
}

export interface ClientTls extends TlsFiles {
  /** The name the server's certificate must carry; null: the host that is connected to. */
  readonly serverName: string | null;
}

export interface TcpAddress {
  readonly host: string;
  /** 0: the kernel chooses; shown in status. */
  readonly port: number;
}

/** Where an NBD server listens: exactly one of `unix` and `tcp` is set. */
export interface NbdListen {
  readonly unix: string | null;
  readonly tcp: TcpAddress | null;
  readonly tls: ServerTls | null;
}

export interface KafkaConfig {
  readonly brokers: readonly string[];
  readonly topic: string;
  /** null: `<topic>.feedback`. */
  readonly feedbackTopic: string | null;
  readonly tls: ClientTls | null;
  readonly sasl: KafkaSasl | null;
  readonly createTopic: boolean;
  readonly replicationFactor: number;
  readonly minInsyncReplicas: number;
  /** A cap on what the topic keeps; null: nothing expires. What a cap drops is sent again from the journal (rule 21). */
  readonly retentionBytes: number | null;
  /** Start although the topic's settings weaken a promise; shown in status. */
  readonly acceptWeakTopic: boolean;
}

export interface KafkaSasl {
  readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512';
  readonly username: string;
  /** A file with the password, so that it stands in no configuration. */
  readonly passwordFile: string;
}

export interface MetricsConfig {
  readonly listen: TcpAddress | null;
  /** OTLP over HTTP, e.g. http://127.0.0.1:4318; null: no traces leave the process. */
  readonly tracesEndpoint: string | null;
}

export interface ControlConfig {
  readonly socket: string;
}

export type OutOfRoom = 'block' | 'stop-protecting';
export type AfterPowerLoss = 'hold' | 'serve';

export interface VolumeConfig {
  readonly name: string;
  /** An absolute path (raw file or block device) or an nbd URI. */
  readonly backing: string;
  /** Bytes; null: the backing's own. A raw file that does not exist is made with it. */
  readonly size: number | null;
  readonly start: 'empty' | 'seed';
}

export interface DirectReplicaConfig {
  readonly name: string;
  readonly connect: TcpAddress;
  readonly tls: ClientTls | null;
}

/** Exactly one is set. */
export interface SourceStreamConfig {
  readonly direct: { readonly replicas: readonly DirectReplicaConfig[] } | null;
  readonly kafka: KafkaConfig | null;
}

export interface RegisteredReplica {
  readonly name: string;
  /** The journal keeps what this replica does not hold yet. */
  readonly required: boolean;
}

export interface SourceGroupConfig {
  readonly name: string;
  readonly journal: JournalConfig;
  readonly volumes: readonly VolumeConfig[];
  readonly listen: NbdListen;
  readonly afterPowerLoss: AfterPowerLoss;
  readonly stream: SourceStreamConfig;
  readonly replicas: readonly RegisteredReplica[];
  readonly outOfRoom: OutOfRoom;
  readonly overlayMemoryBytes: number;
  /** How long a start waits for the far side to say what it holds before a cut is accepted alone (rule 4). */
  readonly settleTimeoutMs: number;
  readonly heartbeatMs: number;
  /** Shipping may be put off so long while guests write fast; 0: it never is. */
  readonly shipDelayMs: number;
  /** What a guest's answers wait for. */
  readonly degree: DegreePolicy;
}

export interface JournalConfig {
  readonly directory: string;
  readonly budgetBytes: number;
  readonly fileBytes: number;
  readonly syncIntervalMs: number;
}

export interface SourceConfig {
  readonly stateDir: string;
  readonly control: ControlConfig;
  readonly metrics: MetricsConfig;
  /** Program and arguments; gets the alarm as JSON on its standard input. */
  readonly alarmCommand: readonly string[] | null;
  readonly groups: readonly SourceGroupConfig[];
}

export interface ReplicaStreamConfig {
  readonly direct: { readonly listen: TcpAddress; readonly tls: ServerTls | null } | null;
  readonly kafka: KafkaConfig | null;
}

export interface ReplicaGroupConfig {
  readonly name: string;
  /** 32 hex digits; null: pinned at the first contact. */
  readonly groupId: string | null;
  readonly directory: string;
  /** Bytes this group may take; null: as much as the file system gives down to the reserve. */
  readonly budgetBytes: number | null;
  /** Bytes left free on the file system; below it the replica stops acknowledging (rule 24). */
  readonly reserveBytes: number;
  readonly history: { readonly windowMs: number; readonly bytesMax: number | null };
  readonly stream: ReplicaStreamConfig;
  /** Plain raw files at the head, in `standby` under the directory. */
  readonly apply: 'off' | 'async' | 'sync';
  readonly views: NbdListen;
}

export interface ReplicaConfig {
  readonly stateDir: string;
  /** As the source registers it. */
  readonly name: string;
  readonly control: ControlConfig;
  readonly metrics: MetricsConfig;
  readonly alarmCommand: readonly string[] | null;
  readonly groups: readonly ReplicaGroupConfig[];
}
