import { randomBytes } from 'node:crypto';
import { cpSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Backing } from '../../../daemon/backing/backing.ts';
import { FileBacking } from '../../../daemon/backing/file-backing.ts';
import {
  CommandFlag,
  type ExportClient,
  type NbdExport,
  type ReplyPort,
  RequestWindow,
  WindowKind,
  WindowPart,
} from '../../../daemon/nbd/export.ts';
import type { GroupOptions } from '../../../daemon/volume/group-options.ts';
import { ProtectedGroup } from '../../../daemon/volume/protected-group.ts';
import type { StatePlace } from '../../../daemon/volume/state-file.ts';
import type { ErrorCode } from '../../../journal/base/errors.ts';
import type { Host } from '../../../journal/host/host.ts';
import { realHost } from '../../../journal/host/real-host.ts';
import { LocalMarks } from '../../../journal/local-marks.ts';
import type { Marks } from '../../../journal/marks.ts';

export const MIB: number = 1024 * 1024;

/** A temporary directory with raw disks and a journal, and a way to open a group over them. */
export class GroupBench {
  readonly directory: string = mkdtempSync(join(tmpdir(), 'volume-test-'));
  readonly groupId: string = randomBytes(16).toString('hex');
  marks: Marks = new LocalMarks();

  /** Of the state files. */
  get place(): StatePlace {
    return { directory: this.journalDirectory, groupId: this.groupId };
  }

  get journalDirectory(): string {
    return join(this.directory, 'journal');
  }

  /** An empty raw disk; its path. */
  disk(name: string, bytes: number): string {
    const path = join(this.directory, name);
    writeFileSync(path, '');
    truncateSync(path, bytes);
    return path;
  }

  options(volumes: GroupOptions['volumes'], change: Partial<GroupOptions> = {}): GroupOptions {
    return {
      journal: {
        directory: this.journalDirectory,
        groupId: this.groupId,
        groupName: 'bench',
        fileBytes: 2 * MIB,
        budgetBytes: 64 * MIB,
        syncIntervalMs: 5,
      },
      volumes,
      overlayBytesMax: 8 * MIB,
      outOfRoom: 'block',
      destageWindowBytes: MIB,
      flushBytes: MIB,
      flushAgeMs: 20,
      heartbeatMs: 60_000,
      ...change,
    };
  }

  /** With marks of its own, as a new process has. */
  async open(options: GroupOptions, host: Host = realHost()): Promise<ProtectedGroup> {
    this.marks = new LocalMarks();
    return ProtectedGroup.open(host, options, this.marks);
  }

  /** Group and files as a kill at this instant would leave them, in a bench of its own; disks by their names. */
  copy(): GroupBench {
    const copy = new GroupBench();
    rmSync(copy.directory, { recursive: true });
    cpSync(this.directory, copy.directory, { recursive: true });
    Object.assign(copy, { groupId: this.groupId });
    return copy;
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  /** A disk that is taken for the same wherever a copy of it lies. */
  backing(name: string): Backing {
    const backing = this.exactBacking(name);
    const identity = async () => ({ ...(await FileBacking.prototype.identity.call(backing)), node: '' });
    return Object.assign(backing, { identity });
  }

  exactBacking(name: string): FileBacking {
    return FileBacking.open(this.path(name));
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export type Request =
  | {
      readonly do: 'write';
      readonly offset: number;
      readonly bytes: Buffer;
      readonly fua?: boolean;
      readonly part?: number;
    }
  | { readonly do: 'zero' | 'trim'; readonly offset: number; readonly length: number; readonly noHole?: boolean }
  | { readonly do: 'flush' };

export type Answer = 'ok' | ErrorCode;

/** One connection, by hand: puts requests into windows as a session does, and remembers the answers. */
export class HandClient implements ReplyPort {
  readonly client: ExportClient;
  readonly #slab = Buffer.alloc(2 * MIB);
  readonly #waiting: Map<number, (answer: Answer) => void> = new Map();
  #cookie = 0;
  paused = 0;
  pauses = 0;
  /** Why the export closed the connection. */
  closedBy: string | undefined;

  constructor(target: NbdExport) {
    this.client = target.attach(this);
  }

  ok(_high: number, low: number): void {
    this.#answer(low, 'ok');
  }

  fail(_high: number, low: number, code: ErrorCode): void {
    this.#answer(low, code);
  }

  send(): void {}

  pause(): void {
    this.paused++;
    this.pauses++;
  }

  resume(): void {
    this.paused--;
  }

  close(reason: string): void {
    this.closedBy = reason;
    this.client.detach();
  }

  /** Resolves when the client may send again. It looks by itself: the product's timers keep no process alive. */
  ready(): Promise<void> {
    return until(() => this.paused === 0);
  }

  /** One window. `gap`: bytes of something else before each request, as a read among writes leaves. */
  submit(requests: readonly Request[], gap = 0): Promise<Answer>[] {
    const view = new DataView(this.#slab.buffer, this.#slab.byteOffset, this.#slab.byteLength);
    const window = new RequestWindow(this.#slab);
    window.reset(this.#slab, view);
    this.#slab.fill(0xee);
    let at = 128;
    window.start = at;
    const answers: Promise<Answer>[] = [];
    for (const [index, request] of requests.entries()) {
      if (index > 0) at += gap;
      const cookie = ++this.#cookie;
      window.headerAt[index] = at;
      window.cookieLow[index] = cookie;
      window.flags[index] = 0;
      window.part[index] = WindowPart.whole;
      at += 28;
      if (request.do === 'write') {
        window.kind[index] = WindowKind.write;
        window.offset[index] = request.offset;
        window.length[index] = request.bytes.length;
        window.part[index] = request.part ?? WindowPart.whole;
        if (request.fua === true) window.flags[index] = CommandFlag.fua;
        request.bytes.copy(this.#slab, at);
        at += request.bytes.length;
      } else if (request.do === 'flush') {
        window.kind[index] = WindowKind.flush;
        window.length[index] = 0;
      } else {
        window.kind[index] = request.do === 'zero' ? WindowKind.writeZeroes : WindowKind.trim;
        window.offset[index] = request.offset;
        window.length[index] = request.length;
        if (request.noHole === true) window.flags[index] = CommandFlag.noHole;
      }
      if (window.part[index] === WindowPart.more) continue;
      answers.push(
        new Promise((resolve) => {
          this.#waiting.set(cookie, resolve);
        }),
      );
    }
    window.end = at;
    window.count = requests.length;
    this.client.submit(window);
    return answers;
  }

  async all(requests: readonly Request[], gap = 0): Promise<Answer[]> {
    return Promise.all(this.submit(requests, gap));
  }

  async write(offset: number, bytes: Buffer): Promise<Answer> {
    const [answer] = await this.all([{ do: 'write', offset, bytes }]);
    return answer ?? 'ok';
  }

  async flush(): Promise<Answer> {
    const [answer] = await this.all([{ do: 'flush' }]);
    return answer ?? 'ok';
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const into = Buffer.alloc(length, 0xdd);
    await this.client.read(offset, into);
    return into;
  }

  #answer(cookie: number, answer: Answer): void {
    const waiting = this.#waiting.get(cookie);
    if (waiting === undefined) throw new Error(`request ${cookie} was answered twice, or is a piece`);
    this.#waiting.delete(cookie);
    waiting(answer);
  }
}

/** Resolves when `condition` holds; looks again after every turn of the loop's timers. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) {
    await new Promise((resolve) => {
      setTimeout(resolve, 2);
    });
  }
}

/** Bytes that tell where and when they were written. */
export function pattern(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 4) bytes.writeUInt32LE((Math.imul(seed, 2654435761) + at) >>> 0, at);
  return bytes;
}

/** A volume as plain bytes: what every disk must agree with. */
export class ModelDisk {
  readonly bytes: Buffer;

  constructor(size: number) {
    this.bytes = Buffer.alloc(size);
  }

  apply(request: Request): void {
    if (request.do === 'write') request.bytes.copy(this.bytes, request.offset);
    else if (request.do !== 'flush') this.bytes.fill(0, request.offset, request.offset + request.length);
  }
}

/** A repeatable stream of numbers. */
export function randomSource(seed: number): (bound: number) => number {
  let state = seed >>> 0;
  return (bound) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
}

/** A modification of 512-byte alignment somewhere on a disk of `size` bytes. */
export function randomRequest(random: (bound: number) => number, size: number): Request {
  const sectors = size / 512;
  const start = random(sectors);
  const length = Math.min(sectors - start, 1 + random(random(4) === 0 ? 200 : 12)) * 512;
  switch (random(8)) {
    case 0:
      return { do: 'zero', offset: start * 512, length, noHole: random(2) === 0 };
    case 1:
      return { do: 'trim', offset: start * 512, length };
    case 2:
      return { do: 'flush' };
    default:
      return { do: 'write', offset: start * 512, bytes: pattern(length, random(2 ** 31)), fua: random(20) === 0 };
  }
}
