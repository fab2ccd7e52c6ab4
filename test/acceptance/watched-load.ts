import { ControlClient } from '../../cli/control-client.ts';
import type {
  BookmarkReply,
  ReplicaStatusReply,
  SourceStatusReply,
  ViewReply,
} from '../../daemon/control/control-api.ts';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import type { Site } from '../servers/site.ts';
import { type Image, LoadModel, type LoadOperation, SECTOR, VOLUME_BYTES, VOLUMES } from './load-model.ts';

const PAUSE_MS = 8;
const SAMPLE_PAUSE_MS = 400;
const OPERATIONS_PER_BOOKMARK = 10;
const SECTORS_MAX = 16;
const ZERO_SHARE = 0.1;
const FUA_SHARE = 0.05;
/** Of a watcher who finds nothing any more. */
const VIOLATIONS_MAX = 10;
/** Of what a daemon printed before it ended. */
const OUTPUT_CHARACTERS = 3000;
const ANSWER_MS = 60_000;

interface Sample {
  readonly lsn: number;
  readonly image: Image;
  readonly what: string;
}

/** What a run of the load found. */
export interface LoadReport {
  /** LSNs the load has passed. */
  readonly records: number;
  readonly writes: number;
  /** Views whose every sector was compared with the model. */
  readonly views: number;
  /** Of them at a position of which the model knows the exact number of operations. */
  readonly exactViews: number;
  /** Of replica and source status. */
  readonly statusChecks: number;
  readonly worstWriteMs: number;
  readonly statesSeen: readonly string[];
  readonly violations: readonly string[];
}

/**
 * A writer and a watcher of one site. The writer changes two volumes in one order, an operation at a time, and bookmarks
 * every tenth. The watcher mounts the replica's newest durable position, and now and then an older one, reads both
 * volumes whole and keeps them; what it saw is judged when the bookmarks around it are known.
 */
export class WatchedLoad {
  readonly model: LoadModel = new LoadModel();
  readonly violations: string[] = [];
  readonly #site: Site;
  readonly #source: ControlClient;
  readonly #replica: ControlClient;
  readonly #disks = new Map<string, NbdClient>();
  readonly #samples: Sample[] = [];
  readonly #states = new Set<string>();
  #statusChecks = 0;
  #worstWriteMs = 0;
  #highestHead = 0;
  #writing = true;
  #watching = true;
  #away = false;
  #running: readonly Promise<void>[] = [];

  constructor(site: Site) {
    this.#site = site;
    this.#source = new ControlClient(site.source.socket, ANSWER_MS);
    this.#replica = new ControlClient(site.replica.socket, ANSWER_MS);
  }

  async start(): Promise<void> {
    for (const volume of VOLUMES) {
      const disk = await NbdClient.connect(parseNbdUri(this.#site.exportUri(volume)), { requestTimeoutMs: ANSWER_MS });
      this.#disks.set(volume, disk);
    }
    await this.#bookmark();
    this.#running = [this.#write(), this.#watch()];
  }

  /** While the replica is away the watcher does not ask it; `restored`: its history may be shorter afterwards. */
  replicaAway(away: boolean, restored = false): void {
    this.#away = away;
    if (restored) this.#highestHead = 0;
  }

  /** Every state of the source's group, its stream and the replica that was seen so far. */
  get statesSeen(): readonly string[] {
    return [...this.#states].sort();
  }

  /** Stops writing, waits until the replica has everything, and compares all of it. */
  async finish(catchUpMs: number): Promise<LoadReport> {
    this.#writing = false;
    await this.#running[0];
    try {
      await this.#everythingArrives(catchUpMs);
    } catch (error) {
      this.violations.push(`at the end: ${String(error)}`);
    }
    return this.end();
  }

  /** Stops where things stand; what was seen is judged. */
  async end(): Promise<LoadReport> {
    this.#writing = false;
    this.#watching = false;
    await Promise.all(this.#running);
    for (const disk of this.#disks.values()) await disk.close();
    for (const { role, child } of [this.#site.source, this.#site.replica]) {
      if (!child.running)
        this.violations.push(`the ${role} ended by itself: ${child.output.slice(-OUTPUT_CHARACTERS)}`);
    }
    let exactViews = 0;
    for (const { lsn, image, what } of this.#samples) {
      const verdict = this.model.judge(lsn, image);
      if (verdict.exact) exactViews++;
      if (verdict.fault !== undefined) this.violations.push(`${what}: ${verdict.fault}`);
    }
    const { firstLsn, lastLsn } = this.model;
    return {
      records: lastLsn - firstLsn,
      writes: this.model.operations,
      views: this.#samples.length,
      exactViews,
      statusChecks: this.#statusChecks,
      worstWriteMs: Math.round(this.#worstWriteMs),
      statesSeen: this.statesSeen,
      violations: this.violations,
    };
  }

  async #everythingArrives(catchUpMs: number): Promise<void> {
    const lsn = await this.#bookmark();
    const end = performance.now() + catchUpMs;
    for (;;) {
      const head = (await this.#status()).head;
      if (head >= lsn) break;
      if (performance.now() > end) {
        throw new Error(`the replica stands at ${head} of ${lsn}; seen: ${this.statesSeen.join(', ')}`);
      }
      await pause(200);
    }
    await this.#look(lsn, 'at the end');
  }

  async #write(): Promise<void> {
    try {
      while (this.#writing) {
        for (let count = 0; count < OPERATIONS_PER_BOOKMARK && this.#writing; count++) {
          const operation = this.#draw();
          const began = performance.now();
          await this.#perform(operation);
          this.#worstWriteMs = Math.max(this.#worstWriteMs, performance.now() - began);
          await pause(PAUSE_MS);
        }
        await this.#bookmark();
      }
    } catch (error) {
      this.violations.push(`a write of the guest failed: ${String(error)}`);
    }
  }

  #draw(): LoadOperation {
    const volume = Math.floor(Math.random() * VOLUMES.length);
    const sectors = 1 + Math.floor(Math.random() * SECTORS_MAX);
    const sector = Math.floor(Math.random() * (VOLUME_BYTES / SECTOR - sectors));
    return this.model.issue({ volume, sector, sectors, zero: Math.random() < ZERO_SHARE });
  }

  async #perform(operation: LoadOperation): Promise<void> {
    const disk = this.#disks.get(VOLUMES[operation.volume] ?? '');
    if (disk === undefined) throw new Error('not started');
    const offset = operation.sector * SECTOR;
    if (operation.zero) await disk.zero(offset, operation.sectors * SECTOR);
    else await disk.write(offset, this.model.bytesOf(operation), { fua: Math.random() < FUA_SHARE });
  }

  async #bookmark(): Promise<number> {
    const name = `after-${this.model.operations}-${this.model.bookmarks}`;
    const { lsn } = await this.#source.post<BookmarkReply>(`/v1/groups/${this.#site.group}/bookmarks`, { name });
    this.model.bookmarked(lsn);
    return lsn;
  }

  async #watch(): Promise<void> {
    while (this.#watching) {
      if (!this.#away) {
        try {
          const { head } = await this.#status();
          const old = this.model.firstLsn + Math.floor(Math.random() * (head - this.model.firstLsn));
          if (head >= this.model.firstLsn) await this.#look(head, 'the newest position');
          if (head > this.model.firstLsn && this.#samples.length % 3 === 0) await this.#look(old, 'an older position');
        } catch (error) {
          if (!this.#away && this.violations.length < VIOLATIONS_MAX)
            this.violations.push(`looking at the replica: ${String(error)}`);
        }
      }
      await pause(SAMPLE_PAUSE_MS);
    }
  }

  /** What the source says was acknowledged is asked first: the replica must hold at least that. */
  async #status(): Promise<{ head: number }> {
    const source = (await this.#source.get<SourceStatusReply>('/v1/status')).groups[0];
    const replica = (await this.#replica.get<ReplicaStatusReply>('/v1/status')).groups[0];
    const head = replica?.head?.lsn ?? 0;
    const acknowledged = source?.replicas[0]?.durableLsn ?? 0;
    this.#statusChecks++;
    if (source !== undefined) {
      this.#states.add(`source ${source.state}${source.code === null ? '' : ` (${source.code})`}`);
    }
    if (replica !== undefined) {
      this.#states.add(`replica ${replica.state}${replica.code === null ? '' : ` (${replica.code})`}`);
    }
    if (head < this.#highestHead && replica?.head !== null) {
      this.violations.push(`the replica went back from ${this.#highestHead} to ${head}`);
    }
    if (acknowledged > head && this.#highestHead > 0) {
      this.violations.push(`the source was told of ${acknowledged}, the replica holds ${head}`);
    }
    this.#highestHead = Math.max(this.#highestHead, head);
    return { head };
  }

  async #look(lsn: number, what: string): Promise<void> {
    const views = `/v1/groups/${this.#site.group}/views`;
    const view = await this.#replica.post<ViewReply>(views, { at: String(lsn) });
    try {
      const image: number[] = [];
      for (const volume of VOLUMES) {
        const uri = view.exports.find((entry) => entry.volume === volume)?.uri ?? '';
        const disk = await NbdClient.connect(parseNbdUri(uri), { requestTimeoutMs: ANSWER_MS });
        const bytes = Buffer.alloc(VOLUME_BYTES);
        await disk.read(0, bytes);
        await disk.close();
        image.push(...this.model.decode(bytes));
      }
      this.#samples.push({ lsn: view.at.lsn, image: Int32Array.from(image), what: `${what}, LSN ${view.at.lsn}` });
      if (view.at.lsn !== lsn) this.violations.push(`asked for ${lsn}, shown ${view.at.lsn}`);
    } finally {
      await this.#replica.delete(`${views}/${view.name}`);
    }
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
