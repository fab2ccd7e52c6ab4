import { type ChildProcess, execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type Admin, Kafka, logLevel } from 'kafkajs';
import { atEnd } from './at-end.ts';
import { KafkaFaultProxy } from './kafka-fault-proxy.ts';
import { CLUSTER_ID, endOf, freePort, kafkaAnswers, kafkaCommand, startKafkaNode } from './kafka-java.ts';

const HEAP_MIB = 256;
/** Three brokers that start together on a busy machine take their time. */
const WAIT_MS = 240_000;
const FILLING_BYTES = 1024 * 1024;
/** Room on a broker's disk when it is one of its own. */
const DISK_BYTES: number = 64 * 1024 * 1024;

interface NodePorts {
  readonly client: number;
  readonly via: number;
  readonly controller: number;
}

export interface KafkaClusterOptions {
  /** 1 or 3, broker and controller each. */
  readonly nodes: number;
  /** Each broker's log lies on a small disk of its own (tmpfs, root only), so that it can be filled. */
  readonly ownDisks?: boolean;
}

/** A broker of a cluster: a real process, a fault proxy in front of it, a directory of its own. */
export class KafkaNode {
  readonly id: number;
  readonly proxy: KafkaFaultProxy;
  readonly ports: NodePorts;
  /** Where the broker's log lies. */
  readonly logDirectory: string;
  readonly #directory: string;
  #process: ChildProcess | undefined;

  constructor(id: number, proxy: KafkaFaultProxy, ports: NodePorts, directory: string) {
    this.id = id;
    this.proxy = proxy;
    this.ports = ports;
    this.#directory = directory;
    this.logDirectory = path.join(directory, 'log');
    proxy.forwardTo(ports.via);
  }

  get address(): string {
    return `127.0.0.1:${this.ports.client}`;
  }

  get running(): boolean {
    const child = this.#process;
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }

  prepare(properties: readonly string[]): void {
    fs.mkdirSync(this.logDirectory, { recursive: true });
    fs.writeFileSync(this.#propertiesFile, `${properties.join('\n')}\n`);
  }

  format(): void {
    const tool = ['kafka.tools.StorageTool', 'format', '-t', CLUSTER_ID, '-c', this.#propertiesFile];
    execFileSync('java', kafkaCommand(HEAP_MIB, ...tool), { stdio: 'pipe' });
  }

  /** Starts the process, without waiting for it. */
  launch(): void {
    if (!this.running) {
      this.#process = startKafkaNode(this.#directory, this.#propertiesFile, this.#logFile, HEAP_MIB);
    }
  }

  /** Resolves when it answers an administrator. */
  async ready(): Promise<void> {
    if (this.#process === undefined) throw new Error(`broker ${this.id} was not started`);
    const client = { brokers: [this.address], clientId: 'tidemark-test', connectTimeoutMs: 2_000 };
    await kafkaAnswers(this.#process, client, this.#logFile, WAIT_MS);
  }

  /** SIGTERM: it hands over what it leads. Killed when that takes more than 30 s. */
  async shutDown(): Promise<void> {
    const late = setTimeout(() => this.#process?.kill('SIGKILL'), 30_000);
    await endOf(this.#process, 'SIGTERM');
    clearTimeout(late);
  }

  async kill(): Promise<void> {
    await endOf(this.#process, 'SIGKILL');
  }

  /** The process stands still; its kernel goes on accepting connections. */
  freeze(): void {
    this.#process?.kill('SIGSTOP');
  }

  thaw(): void {
    this.#process?.kill('SIGCONT');
  }

  /** Takes the last byte of the broker's own disk. */
  fillDisk(): void {
    const descriptor = fs.openSync(this.#ballast, 'w');
    for (let bytes = FILLING_BYTES; bytes >= 1; ) {
      try {
        if (fs.writeSync(descriptor, Buffer.alloc(bytes, 1)) < bytes) bytes = Math.floor(bytes / 2);
      } catch {
        bytes = Math.floor(bytes / 2);
      }
    }
    fs.closeSync(descriptor);
  }

  freeDisk(): void {
    fs.rmSync(this.#ballast, { force: true });
  }

  get #ballast(): string {
    return path.join(path.dirname(this.logDirectory), 'log', 'ballast');
  }

  get #propertiesFile(): string {
    return path.join(this.#directory, 'server.properties');
  }

  get #logFile(): string {
    return path.join(this.#directory, 'broker.log');
  }
}

/**
 * Real Apache Kafka brokers (KRaft, each broker and controller) on loopback. Clients can come by each broker's fault
 * proxy, and go on that way; brokers talk to each other directly.
 */
export class KafkaCluster {
  readonly nodes: readonly KafkaNode[];
  readonly #directory: string;
  readonly #ownDisks: boolean;
  /** Takes back that it goes when the process ends. */
  readonly #stay: () => void;

  private constructor(directory: string, nodes: readonly KafkaNode[], ownDisks: boolean) {
    this.#directory = directory;
    this.nodes = nodes;
    this.#ownDisks = ownDisks;
    this.#stay = atEnd(() => {
      for (const node of nodes) void node.kill();
      this.#unmount();
      fs.rmSync(directory, { recursive: true, force: true });
    });
  }

  static async start(options: KafkaClusterOptions): Promise<KafkaCluster> {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-cluster-'));
    const nodes: KafkaNode[] = [];
    for (let id = 1; id <= options.nodes; id++) {
      const ports = { client: await freePort(), via: await freePort(), controller: await freePort() };
      const proxy = await KafkaFaultProxy.listen(Math.random);
      nodes.push(new KafkaNode(id, proxy, ports, path.join(directory, `broker-${id}`)));
    }
    const cluster = new KafkaCluster(directory, nodes, options.ownDisks === true);
    try {
      for (const node of nodes) {
        node.prepare(cluster.#properties(node));
        if (cluster.#ownDisks) mountDisk(node.logDirectory);
        node.format();
      }
      await cluster.heal();
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  /** `host:port` of every broker, by its fault proxy. */
  get proxiedAddresses(): string[] {
    return this.nodes.map(({ proxy }) => `127.0.0.1:${proxy.port}`);
  }

  /** Mends every proxy, thaws and starts every broker, and waits until all of them answer. */
  async heal(): Promise<void> {
    for (const node of this.nodes) {
      node.proxy.mend();
      node.thaw();
      if (this.#ownDisks) node.freeDisk();
      node.launch();
    }
    await Promise.all(this.nodes.map((node) => node.ready()));
  }

  async leaderOf(topic: string): Promise<KafkaNode> {
    const { leader } = await this.#partition(topic);
    const node = this.nodes.find(({ id }) => id === leader);
    if (node === undefined) throw new Error(`topic ${topic} has no leader`);
    return node;
  }

  /** Resolves when so many brokers are in sync with the topic's leader. */
  async inSync(topic: string, count: number): Promise<void> {
    const end = performance.now() + WAIT_MS;
    for (;;) {
      try {
        if ((await this.#partition(topic)).isr.length >= count) return;
      } catch {
        // an election is under way
      }
      if (performance.now() > end) throw new Error(`topic ${topic} has not ${count} brokers in sync`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }

  /** Everything up to the topic's end is removed. Resolves with that end. */
  async deleteRecords(topic: string): Promise<string> {
    return this.#admin(async (admin) => {
      const [partition] = await admin.fetchTopicOffsets(topic);
      const offset = partition?.high ?? '0';
      await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset }] });
      return offset;
    });
  }

  async deleteTopic(topic: string): Promise<void> {
    await this.#admin((admin) => admin.deleteTopics({ topics: [topic] }));
  }

  /** Sets one setting of a topic and leaves the others as they are. */
  async configure(topic: string, name: string, value: string): Promise<void> {
    await this.#admin(async (admin) => {
      const resource = { type: 2, name: topic };
      const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [resource] });
      const kept = (resources[0]?.configEntries ?? []).filter((entry) => !entry.isDefault && entry.configName !== name);
      const configEntries = [
        ...kept.map((entry) => ({ name: entry.configName, value: entry.configValue })),
        { name, value },
      ];
      await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries }] });
    });
  }

  /** Ends the brokers and removes everything they left. */
  async stop(): Promise<void> {
    for (const node of this.nodes) {
      node.proxy.close();
      await node.kill();
    }
    this.#stay();
    this.#unmount();
    fs.rmSync(this.#directory, { recursive: true, force: true });
  }

  #unmount(): void {
    if (!this.#ownDisks) return;
    for (const { logDirectory } of this.nodes) {
      try {
        execFileSync('umount', ['--lazy', logDirectory], { stdio: 'pipe' });
      } catch {
        // it was not mounted yet
      }
    }
  }

  async #partition(topic: string): Promise<{ leader: number; isr: number[] }> {
    const { topics } = await this.#admin((admin) => admin.fetchTopicMetadata({ topics: [topic] }));
    const partition = topics[0]?.partitions[0];
    if (partition === undefined) throw new Error(`there is no topic ${topic}`);
    return partition;
  }

  /** Asks the brokers that run, not by the proxies. */
  async #admin<T>(run: (admin: Admin) => Promise<T>): Promise<T> {
    const brokers = this.nodes.filter((node) => node.running).map(({ address }) => address);
    const kafka = new Kafka({ brokers, logLevel: logLevel.NOTHING, requestTimeout: 5_000, retry: { retries: 8 } });
    const admin = kafka.admin();
    try {
      await admin.connect();
      return await run(admin);
    } finally {
      await admin.disconnect();
    }
  }

  #properties(node: KafkaNode): string[] {
    const { client, via, controller } = node.ports;
    const copies = Math.min(3, this.nodes.length);
    return [
      'process.roles=broker,controller',
      `node.id=${node.id}`,
      `controller.quorum.voters=${this.nodes.map(({ id, ports }) => `${id}@127.0.0.1:${ports.controller}`).join(',')}`,
      `listeners=CLIENT://127.0.0.1:${client},VIA://127.0.0.1:${via},CONTROLLER://127.0.0.1:${controller}`,
      `advertised.listeners=CLIENT://127.0.0.1:${client},VIA://127.0.0.1:${node.proxy.port}`,
      'controller.listener.names=CONTROLLER',
      'inter.broker.listener.name=CLIENT',
      'listener.security.protocol.map=CLIENT:PLAINTEXT,VIA:PLAINTEXT,CONTROLLER:PLAINTEXT',
      `log.dirs=${node.logDirectory}`,
      `metadata.log.dir=${path.join(path.dirname(node.logDirectory), 'metadata')}`,
      `offsets.topic.replication.factor=${copies}`,
      'offsets.topic.num.partitions=1',
      'auto.create.topics.enable=false',
      'socket.send.buffer.bytes=-1',
      'socket.receive.buffer.bytes=-1',
      'replica.fetch.max.bytes=8388608',
      'log.retention.check.interval.ms=1000',
      'log.initial.task.delay.ms=500',
      'file.delete.delay.ms=1000',
      'log.cleaner.dedupe.buffer.size=8388608',
      'broker.session.timeout.ms=3000',
      'broker.heartbeat.interval.ms=500',
      'controller.quorum.fetch.timeout.ms=1000',
      'controller.quorum.election.timeout.ms=500',
      'controller.quorum.election.backoff.max.ms=500',
      'replica.lag.time.max.ms=3000',
    ];
  }
}

function mountDisk(directory: string): void {
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES}`, 'tmpfs', directory], { stdio: 'pipe' });
}
