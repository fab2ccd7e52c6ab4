import fs from 'node:fs';
import path from 'node:path';
import type {
  BookmarkReply,
  ReplicaGroupReply,
  ReplicaStatusReply,
  SourceGroupReply,
  SourceStatusReply,
  ViewReply,
} from '../../daemon/control/control-api.ts';
import { TidemarkProcess } from './tidemark-process.ts';

export interface SiteVolume {
  readonly name: string;
  readonly sizeBytes: number;
  /** Content that must be journalled first; a new, empty disk when absent. */
  readonly seed?: boolean;
  /** Where it lies when not in a raw file of the site's own: an NBD URI. */
  readonly backing?: string;
}

export interface SiteOptions {
  readonly volumes: readonly SiteVolume[];
  /** Frames go through this broker instead of the direct stream. */
  readonly kafka?: {
    readonly brokers: readonly string[];
    readonly topic: string;
    /** Copies of each record, and how many of them must be in sync; 1 and 1 when absent. */
    readonly copies?: { readonly replicationFactor: number; readonly minInsyncReplicas: number };
  };
  /** Over the direct stream: the address the source is given for the replica's. */
  readonly wayToReplica?: (listen: string) => Promise<string>;
  /** Bytes, with a unit. */
  readonly journalBudget?: string;
  readonly journalFileSize?: string;
  /** More lines of the group in source.yaml, or replica.yaml, indented by four. */
  readonly sourceExtra?: string;
  readonly replicaExtra?: string;
}

/** A mounted position: the exports of every volume. */
export interface Mounted {
  readonly name: string;
  readonly lsn: number;
  uri(volume: string): string;
}

/**
 * A source and a replica as a user runs them, each a process with a config file, in one directory: two daemons of one
 * group `shop` on this machine, over the direct stream or a Kafka broker.
 */
export class Site {
  readonly directory: string;
  readonly group = 'shop';
  readonly source: TidemarkProcess;
  readonly replica: TidemarkProcess;
  readonly #options: SiteOptions;

  constructor(directory: string, options: SiteOptions) {
    this.directory = directory;
    this.#options = options;
    this.source = new TidemarkProcess('source', this.#at('source.yaml'), this.#at('source/control/control.sock'));
    this.replica = new TidemarkProcess('replica', this.#at('replica.yaml'), this.#at('replica/control/control.sock'));
  }

  /** Where the backing of a volume lies. */
  backing(volume: string): string {
    return this.#at(`${volume}.raw`);
  }

  exportUri(volume: string): string {
    return `nbd+unix:///${volume}?socket=${this.#at('source/nbd/nbd.sock')}`;
  }

  async start(): Promise<void> {
    fs.writeFileSync(this.replica.configFile, this.#replicaConfig('127.0.0.1:0'));
    await this.replica.start();
    const listen = (await this.replicaGroup()).listen;
    // The port the kernel gave is kept for restarts: the source goes on knowing it.
    if (listen !== null) fs.writeFileSync(this.replica.configFile, this.#replicaConfig(listen));
    const way = this.#options.wayToReplica;
    const address = listen === null || way === undefined ? (listen ?? '') : await way(listen);
    fs.writeFileSync(this.source.configFile, this.#sourceConfig(address));
    await this.source.start();
    await this.#until('the exports open', async () => (await this.sourceStatus()).daemon.ready, 120_000);
  }

  async stop(): Promise<void> {
    await this.source.stopIfRunning();
    await this.replica.stopIfRunning();
  }

  async sourceStatus(): Promise<SourceStatusReply> {
    return JSON.parse(await this.source.command('status', '-o', 'json')) as SourceStatusReply;
  }

  async sourceGroup(): Promise<SourceGroupReply> {
    return (await this.sourceStatus()).groups[0] as SourceGroupReply;
  }

  async replicaGroup(): Promise<ReplicaGroupReply> {
    const status = JSON.parse(await this.replica.command('status', '-o', 'json')) as ReplicaStatusReply;
    return status.groups[0] as ReplicaGroupReply;
  }

  /** The newest record there was when it was asked for, once it is durable and may be told. */
  async headLsn(): Promise<number> {
    const asked = (await this.sourceGroup()).head;
    const lsn = asked === null ? 0 : asked.durableLsn + asked.unsyncedRecords;
    await this.#until(
      `record ${lsn} is durable at the source`,
      async () => ((await this.sourceGroup()).head?.durableLsn ?? 0) >= lsn,
      30_000,
    );
    return lsn;
  }

  async bookmark(name: string): Promise<BookmarkReply> {
    return JSON.parse(await this.source.command('bookmark', this.group, name, '-o', 'json')) as BookmarkReply;
  }

  /** Waits until the replica holds this record durably. */
  async waitForReplica(lsn: number, timeoutMs = 30_000): Promise<void> {
    await this.#until(
      `the replica has ${lsn}`,
      async () => ((await this.replicaGroup()).head?.lsn ?? 0) >= lsn,
      timeoutMs,
    );
  }

  /** Mounts every volume at a position. */
  async mount(at: string, ...more: readonly string[]): Promise<Mounted> {
    const view = JSON.parse(
      await this.replica.command('mount', this.group, '--at', at, '-o', 'json', ...more),
    ) as ViewReply;
    return {
      name: view.name,
      lsn: view.at.lsn,
      uri: (volume) => {
        const found = view.exports.find((entry) => entry.volume === volume);
        if (found === undefined) throw new Error(`view ${view.name} has no volume ${volume}`);
        return found.uri;
      },
    };
  }

  async unmount(view: Mounted): Promise<void> {
    await this.replica.command('unmount', this.group, view.name);
  }

  async #until(what: string, holds: () => Promise<boolean>, timeoutMs: number): Promise<void> {
    const end = performance.now() + timeoutMs;
    while (!(await holds())) {
      if (performance.now() > end) throw new Error(`${what}: not within ${timeoutMs} ms`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  #at(name: string): string {
    return path.join(this.directory, name);
  }

  #replicaConfig(listen: string): string {
    return `stateDir: ${this.#at('replica')}
name: site-b
control:
  socket: ${this.replica.socket}
groups:
  - name: ${this.group}
    directory: ${this.#at('replica/shop')}
    reserve: 256MiB
    history:
      window: 7d
    stream:
${this.#kafkaConfig() ?? `      direct:\n        listen: ${listen}`}
    views:
      unix: ${this.#at('replica/views/views.sock')}
${this.#options.replicaExtra ?? ''}`;
  }

  #sourceConfig(replica: string): string {
    const volumes = this.#options.volumes.map(
      (volume) => `      - name: ${volume.name}
        backing: ${volume.backing ?? this.backing(volume.name)}
        size: ${volume.sizeBytes}B
        start: ${volume.seed === true ? 'seed' : 'empty'}`,
    );
    return `stateDir: ${this.#at('source')}
control:
  socket: ${this.source.socket}
groups:
  - name: ${this.group}
    journal:
      directory: ${this.#at('source/shop')}
      budget: ${this.#options.journalBudget ?? '2GiB'}
      fileSize: ${this.#options.journalFileSize ?? '16MiB'}
    volumes:
${volumes.join('\n')}
    listen:
      unix: ${this.#at('source/nbd/nbd.sock')}
    stream:
${this.#kafkaConfig() ?? `      direct:\n        replicas:\n          - name: site-b\n            connect: ${replica}`}
    replicas:
      - name: site-b
    outOfRoom: block
${this.#options.sourceExtra ?? ''}`;
  }

  #kafkaConfig(): string | undefined {
    const kafka = this.#options.kafka;
    if (kafka === undefined) return undefined;
    return `      kafka:
        brokers: [${kafka.brokers.join(', ')}]
        topic: ${kafka.topic}
        replicationFactor: ${kafka.copies?.replicationFactor ?? 1}
        minInsyncReplicas: ${kafka.copies?.minInsyncReplicas ?? 1}`;
  }
}
