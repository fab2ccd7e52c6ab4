import { type ChildProcess, execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type KafkaClientOptions, type KafkaSasl } from '../../daemon/stream/kafka/client-options.ts';
import { atEnd } from './at-end.ts';
import { KafkaFaultProxy } from './kafka-fault-proxy.ts';
import { CLUSTER_ID, endOf, freePort, kafkaAnswers, kafkaCommand, startKafkaNode } from './kafka-java.ts';

const STORE_PASSWORD = 'changeit';
const START_ATTEMPTS = 5;
const HEAP_MIB = 384;
const ADMIN: KafkaSasl = { mechanism: 'scram-sha-512', username: 'admin', password: 'admin-secret' };

export interface KafkaBrokerOptions {
  /** `sasl-ssl`: TLS, and SCRAM-SHA-256, SCRAM-SHA-512 and PLAIN for the users admin and shipper; ACLs are on. */
  readonly security?: 'plaintext' | 'sasl-ssl';
  /** Source of the proxy's chances, in [0, 1). */
  readonly random?: () => number;
}

/** One real Apache Kafka broker (KRaft, combined mode) on ports of its own, with a fault proxy beside it. */
export class KafkaBroker {
  readonly proxy: KafkaFaultProxy;
  readonly #directory: string;
  readonly #secure: boolean;
  #ports: { client: number; via: number; controller: number } = { client: 0, via: 0, controller: 0 };
  #process: ChildProcess | undefined;
  /** Takes back that it goes when the process ends. */
  readonly #stay: () => void;

  private constructor(directory: string, secure: boolean, proxy: KafkaFaultProxy) {
    this.#directory = directory;
    this.#secure = secure;
    this.proxy = proxy;
    this.#stay = atEnd(() => {
      this.#process?.kill('SIGKILL');
      fs.rmSync(directory, { recursive: true, force: true });
    });
  }

  static async start(options: KafkaBrokerOptions = {}): Promise<KafkaBroker> {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-kafka-'));
    const proxy = await KafkaFaultProxy.listen(options.random ?? Math.random);
    const broker = new KafkaBroker(directory, options.security === 'sasl-ssl', proxy);
    if (broker.#secure) broker.#makeCertificate();
    for (let attempt = 1; ; attempt++) {
      const [client, via, controller] = [await freePort(), await freePort(), await freePort()];
      broker.#ports = { client, via, controller };
      proxy.forwardTo(via);
      broker.#configure();
      if (attempt === 1) broker.#format();
      try {
        await broker.restart();
        return broker;
      } catch (error) {
        if (attempt === START_ATTEMPTS || !broker.#log().includes('Address already in use')) {
          await broker.stop();
          throw error;
        }
      }
    }
  }

  /** `host:port` of the broker itself. */
  get address(): string {
    return `127.0.0.1:${this.#ports.client}`;
  }

  /** `host:port` of the fault proxy; the broker tells clients that come this way to go on this way. */
  get proxiedAddress(): string {
    return `127.0.0.1:${this.proxy.port}`;
  }

  /** The certificate to trust, PEM. */
  get certificate(): string {
    return fs.readFileSync(path.join(this.#directory, 'ca.pem'), 'utf8');
  }

  /** How to reach the broker as its administrator. */
  client(overrides: Partial<KafkaClientOptions> = {}): KafkaClientOptions {
    const secure = this.#secure ? { tls: { ca: this.certificate }, sasl: ADMIN } : {};
    return { brokers: [this.address], clientId: 'tidemark-test', ...secure, ...overrides };
  }

  /** Starts the broker on its directory and ports, and waits until it answers an administrator. */
  async restart(): Promise<void> {
    const log = this.#path('broker.log');
    this.#process = startKafkaNode(this.#directory, this.#path('server.properties'), log, HEAP_MIB);
    await kafkaAnswers(this.#process, this.client({ connectTimeoutMs: 2_000 }), log);
  }

  /** As a power cut of the process: no shutdown, page cache kept. */
  async kill(): Promise<void> {
    await endOf(this.#process, 'SIGKILL');
  }

  /** The broker stands still; its kernel goes on accepting connections. */
  freeze(): void {
    this.#process?.kill('SIGSTOP');
  }

  thaw(): void {
    this.#process?.kill('SIGCONT');
  }

  /** Ends the broker and removes everything it left. */
  async stop(): Promise<void> {
    this.proxy.close();
    await endOf(this.#process, 'SIGKILL');
    this.#stay();
    fs.rmSync(this.#directory, { recursive: true, force: true });
  }

  #path(name: string): string {
    return path.join(this.#directory, name);
  }

  #log(): string {
    return fs.existsSync(this.#path('broker.log')) ? fs.readFileSync(this.#path('broker.log'), 'utf8') : '';
  }

  #configure(): void {
    const { client, via, controller } = this.#ports;
    const protocol = this.#secure ? 'SASL_SSL' : 'PLAINTEXT';
    const lines = [
      'process.roles=broker,controller',
      'node.id=1',
      `controller.quorum.voters=1@127.0.0.1:${controller}`,
      `listeners=CLIENT://127.0.0.1:${client},VIA://127.0.0.1:${via},CONTROLLER://127.0.0.1:${controller}`,
      `advertised.listeners=CLIENT://127.0.0.1:${client},VIA://127.0.0.1:${this.proxy.port}`,
      'controller.listener.names=CONTROLLER',
      'inter.broker.listener.name=CLIENT',
      `listener.security.protocol.map=CLIENT:${protocol},VIA:${protocol},CONTROLLER:PLAINTEXT`,
      `log.dirs=${this.#path('data')}`,
      'offsets.topic.replication.factor=1',
      'offsets.topic.num.partitions=1',
      'auto.create.topics.enable=false',
      'socket.send.buffer.bytes=-1',
      'socket.receive.buffer.bytes=-1',
      'log.retention.check.interval.ms=1000',
      'broker.session.timeout.ms=3000',
      'broker.heartbeat.interval.ms=500',
      'log.cleaner.backoff.ms=200',
      'log.cleaner.dedupe.buffer.size=8388608',
      'log.initial.task.delay.ms=500',
      ...(this.#secure ? this.#security() : []),
    ];
    fs.writeFileSync(this.#path('server.properties'), `${lines.join('\n')}\n`);
  }

  #security(): string[] {
    const scram = 'org.apache.kafka.common.security.scram.ScramLoginModule';
    const plain = 'org.apache.kafka.common.security.plain.PlainLoginModule';
    const admin = `required username="${ADMIN.username}" password="${ADMIN.password}"`;
    return [
      'sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN',
      'sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512',
      ...['client', 'via'].flatMap((listener) => [
        `listener.name.${listener}.scram-sha-512.sasl.jaas.config=${scram} ${admin};`,
        `listener.name.${listener}.scram-sha-256.sasl.jaas.config=${scram} ${admin};`,
        `listener.name.${listener}.plain.sasl.jaas.config=${plain} ${admin} user_admin="admin-secret" user_shipper="ship-secret";`,
      ]),
      'ssl.keystore.type=PKCS12',
      `ssl.keystore.location=${this.#path('ks.p12')}`,
      `ssl.keystore.password=${STORE_PASSWORD}`,
      'ssl.truststore.type=PEM',
      `ssl.truststore.location=${this.#path('ca.pem')}`,
      'ssl.enabled.protocols=TLSv1.3',
      'authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer',
      'allow.everyone.if.no.acl.found=false',
      'super.users=User:admin;User:ANONYMOUS',
    ];
  }

  #makeCertificate(): void {
    const store = [
      '-alias',
      'k',
      '-storetype',
      'PKCS12',
      '-keystore',
      this.#path('ks.p12'),
      '-storepass',
      STORE_PASSWORD,
    ];
    const names = ['-dname', 'CN=localhost', '-ext', 'SAN=dns:localhost,ip:127.0.0.1'];
    const kind = ['-keyalg', 'EC', '-groupname', 'secp256r1', '-validity', '30'];
    execFileSync('keytool', ['-genkeypair', ...store, ...kind, ...names], { stdio: 'pipe' });
    const certificate = execFileSync('keytool', ['-exportcert', '-rfc', ...store], { stdio: 'pipe' });
    fs.writeFileSync(this.#path('ca.pem'), certificate);
  }

  #format(): void {
    const users = this.#secure ? [ADMIN, { username: 'shipper', password: 'ship-secret' }] : [];
    const scram = users.flatMap(({ username, password }) =>
      ['SCRAM-SHA-512', 'SCRAM-SHA-256'].flatMap((kind) => [
        '--add-scram',
        `${kind}=[name=${username},password=${password}]`,
      ]),
    );
    const tool = [
      'kafka.tools.StorageTool',
      'format',
      '-t',
      CLUSTER_ID,
      '-c',
      this.#path('server.properties'),
      ...scram,
    ];
    execFileSync('java', kafkaCommand(HEAP_MIB, ...tool), { stdio: 'pipe' });
  }
}
