/** How to reach a Kafka cluster. */
export interface KafkaClientOptions {
  /** `host:port`, at least one; which is asked first changes with every reconnect. */
  readonly brokers: readonly string[];
  /** Shown in the brokers' logs and quotas. */
  readonly clientId: string;
  readonly tls?: KafkaTls;
  readonly sasl?: KafkaSasl;
  /**
   * Bound on everything from the TCP handshake to the topic's leader: a frozen broker still accepts connections, and
   * the next one of the list is tried when this is over. Default 5000.
   */
  readonly connectTimeoutMs?: number;
  /** Bound on one metadata, offset or administration request. Default 10000. */
  readonly requestTimeoutMs?: number;
}

/** PEM texts, not paths. An empty object means TLS with the system's certificate authorities. */
export interface KafkaTls {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  /** The name in the brokers' certificates, when it is not the host of their address. */
  readonly servername?: string;
}

export interface KafkaSasl {
  readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512';
  readonly username: string;
  readonly password: string;
}
