import type { ExportClient, NbdExport, ReplyPort, RequestWindow } from '../../daemon/nbd/export.ts';
import { WindowPart } from '../../daemon/nbd/export.ts';
import type { DeviceExtent } from '../../journal/block-device.ts';

/** An export whose every answer a test decides; by default modifications succeed and reads give zeroes at once. */
export class ScriptedExport implements NbdExport {
  readonly name = 'scripted';
  readonly description = '';
  readonly size: number;
  readonly readOnly = false;
  readonly fastZero = false;
  readonly multiConn = true;
  readonly minimumBlockBytes = 512;
  readonly preferredBlockBytes = 4096;
  /** Requests answered by `submit` itself, in order, as "kind offset length". */
  readonly submitted: string[] = [];
  detached = 0;
  replies: ReplyPort | undefined;
  onAttach: () => void = () => {};
  /** Replaces the default answer of `ok` at once. */
  onRequest: ((replies: ReplyPort, high: number, low: number) => void) | undefined;
  onRead: (offset: number, into: Uint8Array) => undefined | Promise<void> = (_offset, into) => {
    into.fill(0);
    return undefined;
  };

  constructor(size: number = 64 * 1024 * 1024) {
    this.size = size;
  }

  attach(replies: ReplyPort): ExportClient {
    this.onAttach();
    this.replies = replies;
    return {
      submit: (window) => this.#submit(replies, window),
      read: (offset, into) => this.onRead(offset, into),
      extents: async (_offset, length): Promise<DeviceExtent[]> => [{ length, kind: 'data' }],
      cache: async () => {},
      detach: () => {
        this.detached += 1;
      },
    };
  }

  #submit(replies: ReplyPort, window: RequestWindow): void {
    for (let i = 0; i < window.count; i++) {
      this.submitted.push(`${window.kind[i]} ${window.offset[i]} ${window.length[i]}`);
      if (window.part[i] === WindowPart.more) continue;
      const [high, low] = [window.cookieHigh[i] ?? 0, window.cookieLow[i] ?? 0];
      if (this.onRequest === undefined) replies.ok(high, low);
      else this.onRequest(replies, high, low);
    }
  }
}
