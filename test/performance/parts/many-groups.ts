import fs from 'node:fs';
import path from 'node:path';
import type { ReplicaStatusReply, SourceStatusReply } from '../../../daemon/control/control-api.ts';
import { TidemarkProcess } from '../../servers/tidemark-process.ts';

const READY_MS = 300_000;
const VOLUME_BYTES = 64 * 1024 ** 2;

/** One source and one replica with so many groups, each of one small volume and its own connection. */
export class ManyGroups {
  readonly source: TidemarkProcess;
  readonly replica: TidemarkProcess;
  readonly #directory: string;
  readonly #names: readonly string[];

  constructor(directory: string, count: number) {
    fs.mkdirSync(directory, { recursive: true });
    this.#directory = directory;
    this.#names = Array.from({ length: count }, (_, index) => `group${index}`);
    const socket = (role: string): string => path.join(directory, role, 'control.sock');
    this.source = new TidemarkProcess('source', path.join(directory, 'source.yaml'), socket('source'));
    this.replica = new TidemarkProcess('replica', path.join(directory, 'replica.yaml'), socket('replica'));
  }

  /** Resolves when every export is served. */
  async start(): Promise<void> {
    fs.writeFileSync(this.replica.configFile, this.#replicaConfig());
    await this.replica.start(READY_MS);
    const reply = JSON.parse(await this.replica.command('status', '-o', 'json')) as ReplicaStatusReply;
    const listen = new Map(reply.groups.map((group) => [group.name, group.listen ?? '']));
    fs.writeFileSync(this.source.configFile, this.#sourceConfig(listen));
    await this.source.start(READY_MS);
    const end = performance.now() + READY_MS;
    for (;;) {
      const status = JSON.parse(await this.source.command('status', '-o', 'json')) as SourceStatusReply;
      if (status.daemon.ready) return;
      if (performance.now() > end)
        throw new Error(`${this.#names.length} groups are not ready: ${this.source.child.output}`);
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }

  async stop(): Promise<void> {
    await this.source.stopIfRunning();
    await this.replica.stopIfRunning();
  }

  #at(name: string): string {
    return path.join(this.#directory, name);
  }

  #replicaConfig(): string {
    const groups = this.#names.map(
      (name) => `  - name: ${name}
    directory: ${this.#at(`replica/${name}`)}
    reserve: 64MiB
    history:
      window: 7d
    stream:
      direct:
        listen: 127.0.0.1:0
    views:
      unix: ${this.#at(`replica/${name}.sock`)}
`,
    );
    return `stateDir: ${this.#at('replica')}
name: site-b
control:
  socket: ${this.replica.socket}
groups:
${groups.join('')}`;
  }

  #sourceConfig(listen: ReadonlyMap<string, string>): string {
    const groups = this.#names.map(
      (name) => `  - name: ${name}
    journal:
      directory: ${this.#at(`source/${name}`)}
      budget: 64MiB
      fileSize: 4MiB
    volumes:
      - name: disk0
        backing: ${this.#at(`${name}.raw`)}
        size: ${VOLUME_BYTES}B
        start: empty
    listen:
      unix: ${this.#at(`source/${name}.sock`)}
    stream:
      direct:
        replicas:
          - name: site-b
            connect: ${listen.get(name)}
    replicas:
      - name: site-b
    outOfRoom: block
`,
    );
    return `stateDir: ${this.#at('source')}
control:
  socket: ${this.source.socket}
groups:
${groups.join('')}`;
  }
}
