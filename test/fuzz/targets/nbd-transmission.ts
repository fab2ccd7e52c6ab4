import type { Writable } from 'node:stream';
import { type AwaitedReply, isFilled, ReplyParser } from '../../../daemon/nbd/client-replies.ts';
import { type ExportClient, type NbdExport, type RequestWindow, WindowPart } from '../../../daemon/nbd/export.ts';
import { NBD_LIMITS } from '../../../daemon/nbd/limits.ts';
import { Command } from '../../../daemon/nbd/protocol.ts';
import { ArenaPool, ReplyBuffer } from '../../../daemon/nbd/reply-buffer.ts';
import { Slab } from '../../../daemon/nbd/slab.ts';
import { Transmission } from '../../../daemon/nbd/transmission.ts';
import { ScriptedExport } from '../../doubles/scripted-export.ts';
import { request } from '../../nbd/support.ts';
import { type FuzzTarget, must, words } from '../target.ts';

const SIZE = 256 * 1024;
const LIMITS = { ...NBD_LIMITS, windowBytes: 16 * 1024 };

/** Passes everything on that lies within the export; anything else is a finding. */
class GuardedExport extends ScriptedExport {
  override attach(...args: Parameters<NbdExport['attach']>): ExportClient {
    const inner = super.attach(...args);
    const inside = (offset: number, length: number): void =>
      must(
        offset >= 0 && length > 0 && offset + length <= this.size,
        `[${offset}, +${length}) is outside of the export`,
      );
    return {
      ...inner,
      submit: (window) => {
        for (let i = 0; i < window.count; i++) this.#check(window, i, inside);
        inner.submit(window);
      },
      read: (offset, into) => {
        inside(offset, into.length);
        return inner.read(offset, into);
      },
      extents: (offset, length) => {
        inside(offset, length);
        return inner.extents(offset, length);
      },
      cache: (offset, length) => {
        inside(offset, length);
        return inner.cache(offset, length);
      },
    };
  }

  #check(window: RequestWindow, i: number, inside: (offset: number, length: number) => void): void {
    if (window.kind[i] === Command.flush) return;
    const [offset, length, headerAt] = [window.offset[i]!, window.length[i]!, window.headerAt[i]!];
    inside(offset, length);
    must(offset % 512 === 0 && (length % 512 === 0 || window.part[i] !== WindowPart.whole), 'whole sectors');
    must(headerAt >= 64 && headerAt >= window.start, 'there is room for a header');
    const end = headerAt + 28 + (window.kind[i] === Command.write ? length : 0);
    must(end <= window.end && window.end <= window.buffer.length, 'a payload lies within its window');
  }
}

/** Bits of the first byte: 1 structured replies, 2 base:allocation, 4 the bytes come in pieces. */
export const nbdTransmission: FuzzTarget = {
  name: 'nbd-transmission',
  testRuns: 8000,
  inputBytesMax: 48 * 1024,
  words: [...words('\x25\x60\x95\x13'), request(Command.write, 1, 512, 512), request(Command.read, 1, 0, 1024)],
  // A slab, a reply buffer, and a reply buffer's worth of answers for each request.
  allocatedBytesMax: 8 * 1024 * 1024,
  seeds: () =>
    [0, 1, 3, 7].map((mode) =>
      Buffer.concat([
        Buffer.from([mode]),
        request(Command.write, 1, 512, 1024, { payload: Buffer.alloc(1024, 1), flags: 1 }),
        request(Command.read, 2, 0, 4096, { flags: mode & 1 ? 4 : 0 }),
        request(Command.flush, 3, 0, 0),
        request(Command.trim, 4, 0, 65_536),
        request(Command.writeZeroes, 5, 4096, 8192, { flags: 2 }),
        request(Command.cache, 6, 0, 4096),
        request(Command.blockStatus, 7, 0, SIZE, { flags: 8 }),
        ...(mode === 0 ? [] : [request(Command.write, 8, 0, 20_480, { payload: Buffer.alloc(20_480, 2) })]),
        request(Command.write, 9, SIZE, 512, { payload: Buffer.alloc(512, 3) }),
        request(Command.disconnect, 10, 0, 0),
      ]),
    ),
  run: async (input) => {
    const mode = input[0] ?? 0;
    const bytes = input.subarray(1);
    const slab = new Slab(LIMITS.windowBytes);
    let replied = 0;
    const sink = {
      writableLength: 0,
      write: (part: Uint8Array, done: () => void) => {
        replied += part.length;
        done();
      },
      cork: () => {},
      uncork: () => {},
    };
    const output = new ReplyBuffer(sink as unknown as Writable, new ArenaPool(), LIMITS.outputBytesMax);
    const agreed = { structured: (mode & 1) === 1, allocation: (mode & 3) === 3 };
    let broken = false;
    const transmission: Transmission = new Transmission(new GuardedExport(SIZE), agreed, slab, output, LIMITS, {
      progress: () => {},
      broken: () => {
        broken = true;
      },
    });
    const piece = (mode & 4) === 0 ? bytes.length : 1 + (bytes.length % 700);
    for (let at = 0; at < bytes.length && !broken; ) {
      at += slab.append(bytes.subarray(at, Math.min(bytes.length, at + piece)));
      const before = slab.unparsedBytes;
      transmission.run();
      if (transmission.goodbye || transmission.violation !== undefined) break;
      for (let turn = 0; transmission.inFlight > 0 && turn < 50; turn++) await Promise.resolve();
      must(transmission.inFlight === 0, 'everything taken is answered');
      must(slab.unparsedBytes < before || slab.unparsedBytes < LIMITS.windowBytes + 28, 'a full slab is taken from');
    }
    must(
      replied <= bytes.length * 16 + (1 + bytes.length / 28) * (SIZE + 4096),
      'answers are no longer than what was asked',
    );
    transmission.detach();
  },
};

/** The client's side: replies of a server to three requests in flight. */
export const nbdReplies: FuzzTarget = {
  name: 'nbd-replies',
  testRuns: 30_000,
  allocatedBytesMax: 9 * 1024 * 1024,
  words: words('\x67\x44\x66\x98', '\x66\x8e\x33\xef'),
  seeds: () => {
    const chunk = (type: number, done: number, cookie: number, body: Uint8Array): Buffer => {
      const header = Buffer.alloc(20);
      header.writeUInt32BE(0x668e_33ef, 0);
      header.writeUInt16BE(done, 4);
      header.writeUInt16BE(type, 6);
      header.writeUInt32BE(cookie, 12);
      header.writeUInt32BE(body.length, 16);
      return Buffer.concat([header, body]);
    };
    const simple = (errno: number, cookie: number): Buffer => {
      const header = Buffer.alloc(16);
      header.writeUInt32BE(0x6744_6698, 0);
      header.writeUInt32BE(errno, 4);
      header.writeUInt32BE(cookie, 12);
      return header;
    };
    const data = Buffer.alloc(8 + 512);
    const hole = Buffer.from([0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0]);
    const status = Buffer.from([0, 0, 0, 1, 0, 0, 4, 0, 0, 0, 0, 3]);
    const failure = Buffer.from([0, 0, 0, 5, 0, 2, 0x6e, 0x6f]);
    return [
      Buffer.concat([simple(0, 1), Buffer.alloc(1024), simple(0, 2), simple(5, 3)]),
      Buffer.concat([chunk(1, 0, 1, data), chunk(2, 1, 1, hole), chunk(5, 1, 3, status), simple(0, 2)]),
      Buffer.concat([chunk(0x8001, 0, 1, failure), chunk(0, 1, 1, Buffer.alloc(0))]),
    ];
  },
  run: (input) => {
    const awaited = new Map<number, AwaitedReply>();
    const request = (cookie: number, into: Uint8Array | undefined): void => {
      awaited.set(cookie, { offset: 0, length: 1024, into, filled: [], errno: 0, status: undefined });
    };
    request(1, new Uint8Array(1024));
    request(2, undefined);
    request(3, undefined);
    const parser = new ReplyParser(
      {
        awaited: (high, low) => (high === 0 ? awaited.get(low) : undefined),
        done: (_high, low) => {
          const reply = awaited.get(low);
          must(reply !== undefined, 'only what is awaited is done');
          if (reply !== undefined) isFilled(reply);
          awaited.delete(low);
        },
      },
      1,
    );
    const piece = 1 + (input.length % 97);
    for (let at = 0; at < input.length; at += piece) parser.feed(Buffer.from(input.subarray(at, at + piece)));
  },
};
