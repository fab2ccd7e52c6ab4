import type { VolumeTrafficReply } from '../control/control-api.ts';
import { type ExportClient, type NbdExport, type ReplyPort, type RequestWindow, WindowKind } from '../nbd/export.ts';

/**
 * An export that counts what passes through it: plain numbers, one pass over a window's arrays, read by `status` and the
 * metrics. Nothing is measured per write that costs more than an addition.
 */
export class CountedExport implements NbdExport {
  readonly #inner: NbdExport;
  readonly traffic: { -readonly [Key in keyof VolumeTrafficReply]: number } = {
    reads: 0,
    readBytes: 0,
    writes: 0,
    writeBytes: 0,
    flushes: 0,
  };

  constructor(inner: NbdExport) {
    this.#inner = inner;
  }

  get name(): string {
    return this.#inner.name;
  }

  get description(): string {
    return this.#inner.description;
  }

  get size(): number {
    return this.#inner.size;
  }

  get readOnly(): boolean {
    return this.#inner.readOnly;
  }

  get fastZero(): boolean {
    return this.#inner.fastZero;
  }

  get multiConn(): boolean {
    return this.#inner.multiConn;
  }

  get minimumBlockBytes(): number {
    return this.#inner.minimumBlockBytes;
  }

  get preferredBlockBytes(): number {
    return this.#inner.preferredBlockBytes;
  }

  attach(replies: ReplyPort): ExportClient {
    const { traffic } = this;
    const client = this.#inner.attach(replies);
    return {
      submit: (window) => {
        count(window, traffic);
        client.submit(window);
      },
      read: (offset, into) => {
        traffic.reads += 1;
        traffic.readBytes += into.length;
        return client.read(offset, into);
      },
      extents: (offset, length) => client.extents(offset, length),
      cache: (offset, length) => client.cache(offset, length),
      detach: () => client.detach(),
    };
  }
}

function count(window: RequestWindow, traffic: CountedExport['traffic']): void {
  for (let index = 0; index < window.count; index += 1) {
    if (window.kind[index] === WindowKind.flush) {
      traffic.flushes += 1;
    } else {
      traffic.writes += 1;
      traffic.writeBytes += window.length[index] ?? 0;
    }
  }
}
