import {
  CommandFlag,
  type ExportClient,
  type NbdExport,
  type ReplyPort,
  type RequestWindow,
  WindowKind,
  WindowPart,
} from '../../daemon/nbd/export.ts';
import type { DeviceExtent } from '../../journal/block-device.ts';

interface Piece {
  readonly offset: number;
  readonly payload: Buffer;
}

/**
 * Behaves towards a session as a protected volume does, on plain memory: takes what it needs during `submit` and then
 * overwrites everything it is allowed to, answers writes at once and flushes a turn later, gives reads without a promise,
 * and lets a request in parts take effect with its last part.
 */
export class InPlaceExport implements NbdExport {
  readonly name = 'in-place';
  readonly description = '';
  readonly size: number;
  readonly readOnly = false;
  readonly fastZero = true;
  readonly multiConn = true;
  readonly minimumBlockBytes = 512;
  readonly preferredBlockBytes = 4096;
  readonly bytes: Buffer;

  constructor(size: number) {
    this.size = size;
    this.bytes = Buffer.alloc(size);
  }

  attach(replies: ReplyPort): ExportClient {
    let open: Piece[] = [];
    return {
      submit: (window) => {
        for (let i = 0; i < window.count; i++) open = this.#take(replies, window, i, open);
        window.buffer.fill(0xe5, window.start - 64, window.end);
      },
      read: (offset, into) => {
        into.set(this.bytes.subarray(offset, offset + into.length));
        return undefined;
      },
      extents: async (_offset, length): Promise<DeviceExtent[]> => [{ length, kind: 'data' }],
      cache: async () => {},
      detach: () => {
        open = [];
      },
    };
  }

  #take(replies: ReplyPort, window: RequestWindow, i: number, open: Piece[]): Piece[] {
    const offset = window.offset[i] ?? 0;
    const length = window.length[i] ?? 0;
    const kind = window.kind[i];
    if (kind === WindowKind.write) {
      const at = (window.headerAt[i] ?? 0) + 28;
      open.push({ offset, payload: Buffer.from(window.buffer.subarray(at, at + length)) });
      if (window.part[i] === WindowPart.more) return open;
      for (const piece of open) piece.payload.copy(this.bytes, piece.offset);
    } else if (kind !== WindowKind.flush) this.bytes.fill(0, offset, offset + length);
    const [high, low] = [window.cookieHigh[i] ?? 0, window.cookieLow[i] ?? 0];
    if (kind === WindowKind.flush || ((window.flags[i] ?? 0) & CommandFlag.fua) !== 0) {
      setImmediate(() => {
        replies.ok(high, low);
        replies.send();
      });
    } else replies.ok(high, low);
    return [];
  }
}
