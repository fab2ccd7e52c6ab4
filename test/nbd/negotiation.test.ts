import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { ClientNegotiation, type NegotiatedExport } from '../../daemon/nbd/client-negotiation.ts';
import { ReplyParser } from '../../daemon/nbd/client-replies.ts';
import { DeviceExport } from '../../daemon/nbd/device-export.ts';
import { codeOfErrno, errnoOf } from '../../daemon/nbd/errno.ts';
import { NBD_LIMITS } from '../../daemon/nbd/limits.ts';
import { formatNbdUri, type NbdAddress, parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import {
  type ExportCatalogue,
  Negotiation,
  type NegotiationEvent,
  type TlsMode,
  transmissionFlags,
} from '../../daemon/nbd/negotiation.ts';
import { Option, OptionReply } from '../../daemon/nbd/protocol.ts';
import { RequestParser } from '../../daemon/nbd/request-parser.ts';
import { Slab } from '../../daemon/nbd/slab.ts';
import { ERROR_CODES, type ErrorCode, TidemarkError } from '../../journal/base/errors.ts';
import { MemoryDevice } from '../doubles/memory-device.ts';
import { counted, option, request, u32 } from './support.ts';

const DISK = new DeviceExport(new MemoryDevice(1 << 20), { name: 'disk', description: 'a disk', fastZero: true });
const OTHER = new DeviceExport(new MemoryDevice(1 << 20, { readOnly: true }), { name: 'other' });

function catalogue(...items: DeviceExport[]): ExportCatalogue {
  return {
    list: () => items,
    find: (name) =>
      items.find((item) => item.name === name) ?? (name === '' && items.length === 1 ? items[0] : undefined),
  };
}

const CLIENT_FLAGS = Buffer.from([0, 0, 0, 3]);
const EMPTY = Buffer.alloc(0);

function go(name: string, infos: number[] = [], code: number = Option.go): Buffer {
  const list = Buffer.alloc(2 + 2 * infos.length);
  list.writeUInt16BE(infos.length);
  infos.forEach((info, i) => list.writeUInt16BE(info, 2 + 2 * i));
  return option(code, Buffer.concat([counted(name), list]));
}

function meta(code: number, name: string, queries: string[]): Buffer {
  return option(code, Buffer.concat([counted(name), u32(queries.length), ...queries.map(counted)]));
}

interface Outcome {
  /** "option:reply type in hex:data in hex" */
  replies: string[];
  /** Bytes sent that are no option reply. */
  raw: Buffer;
  event: NegotiationEvent | undefined;
  rest: number;
}

/** Shows `bytes` to a negotiation, `step` at a time, until an event. GO is accepted. */
function haggle(negotiation: Negotiation, bytes: Uint8Array, stepBytes: number = bytes.length): Outcome {
  let seen = 0;
  let from = 0;
  let event: NegotiationEvent | undefined;
  const sent: Uint8Array[] = [];
  while (event === undefined) {
    const step = negotiation.step(bytes.subarray(from, seen));
    from += step.consumed;
    sent.push(...step.send);
    event = step.event;
    if (event?.kind === 'enter') sent.push(...event.accept);
    if (event !== undefined || step.consumed > 0) continue;
    if (seen === bytes.length) break;
    seen = Math.min(bytes.length, seen + stepBytes);
  }
  const all = Buffer.concat(sent);
  const replies: string[] = [];
  let at = 0;
  while (all.length - at >= 20 && all.readUInt32BE(at) === 0x0003_e889) {
    const length = all.readUInt32BE(at + 16);
    const data = all.toString('hex', at + 20, at + 20 + length);
    replies.push(`${all.readUInt32BE(at + 8)}:${all.readUInt32BE(at + 12).toString(16)}:${data}`);
    at += 20 + length;
  }
  return { replies, raw: all.subarray(at), event, rest: bytes.length - from };
}

function fresh(tls: TlsMode = 'off', ...items: DeviceExport[]): Negotiation {
  return new Negotiation(catalogue(...(items.length > 0 ? items : [DISK, OTHER])), tls, NBD_LIMITS);
}

/** Types of the replies to `bytes` after the client flags. */
function types(negotiation: Negotiation, ...options: Buffer[]): string[] {
  return haggle(negotiation, Buffer.concat([CLIENT_FLAGS, ...options])).replies.map(
    (reply) => reply.split(':')[1] ?? '',
  );
}

const TYPICAL = Buffer.concat([
  CLIENT_FLAGS,
  option(Option.structuredReply, EMPTY),
  meta(Option.setMetaContext, 'disk', ['base:allocation', 'qemu:dirty-bitmap:x']),
  option(Option.list, EMPTY),
  option(99, Buffer.from('what is this')),
  go('disk', [3, 1, 77], Option.info),
  go('disk', [3, 1, 77]),
]);

test('QEMU-like haggling ends in the transmission phase, whole or byte by byte', (t) => {
  const whole = haggle(fresh(), TYPICAL);
  t.is(whole.event?.kind, 'enter');
  if (whole.event?.kind !== 'enter') return;
  t.is(whole.event.export, DISK);
  t.true(whole.event.structured);
  t.true(whole.event.allocation);
  t.is(whole.rest, 0);
  t.deepEqual(
    whole.replies.map((reply) => reply.split(':').slice(0, 2).join(':')),
    ['8:1', '10:4', '10:1', '3:2', '3:2', '3:1', '99:80000001', '6:3', '6:3', '6:3', '6:1', '7:3', '7:3', '7:3', '7:1'],
  );
  const info = whole.replies.filter((reply) => reply.startsWith('6:')).map((reply) => reply.slice(1));
  const taken = whole.replies.filter((reply) => reply.startsWith('7:')).map((reply) => reply.slice(1));
  t.deepEqual(info, taken, 'INFO and GO say the same');
  const bytewise = haggle(fresh(), TYPICAL, 1);
  t.deepEqual(bytewise.replies, whole.replies);
  t.is(bytewise.event?.kind, 'enter');
});

test('EXPORT_NAME is answered with size, flags and 124 zeroes unless NO_ZEROES', (t) => {
  const plain = haggle(
    fresh(),
    Buffer.concat([Buffer.from([0, 0, 0, 1]), option(Option.exportName, Buffer.from('disk'))]),
  );
  t.is(plain.raw.length, 134);
  t.is(plain.raw.readBigUInt64BE(0), 1n << 20n);
  t.true(plain.raw.subarray(10).equals(Buffer.alloc(124)));
  const short = haggle(fresh(), Buffer.concat([CLIENT_FLAGS, option(Option.exportName, Buffer.from('disk'))]));
  t.is(short.raw.length, 10);
  t.is(short.raw.readUInt16BE(8), transmissionFlags(DISK, false));
  const unknown = haggle(fresh(), Buffer.concat([CLIENT_FLAGS, option(Option.exportName, Buffer.from('nobody'))]));
  t.is(unknown.event?.kind, 'close');
  t.is(unknown.raw.length, 0);
});

test('flags are honest: read-only offers no modification, DF only with structured replies', (t) => {
  t.is(transmissionFlags(OTHER, false), 1 | 2 | 4 | 8 | 256 | 1024);
  t.is(transmissionFlags(DISK, true), 1 | 4 | 8 | 32 | 64 | 128 | 256 | 1024 | 2048);
});

test('client flags that were not offered end the connection', (t) => {
  for (const flags of [4, 7, 0x8000_0003, 2, 0]) t.is(haggle(fresh(), u32(flags)).event?.kind, 'close', `${flags}`);
});

test('malformed options are refused and the stream stays in step', (t) => {
  const after = go('disk');
  const cases: [string, Buffer, string][] = [
    ['LIST with data', option(Option.list, Buffer.from('x')), '80000003'],
    ['STRUCTURED_REPLY with data', option(Option.structuredReply, Buffer.from('x')), '80000003'],
    ['GO without a name', option(Option.go, EMPTY), '80000003'],
    ['GO with a name beyond the option', option(Option.go, Buffer.concat([u32(1000), Buffer.from('ab')])), '80000003'],
    [
      'GO with a length that wraps',
      option(Option.go, Buffer.concat([u32(0xffff_ffff), Buffer.from('ab')])),
      '80000003',
    ],
    ['GO with more infos than said', option(Option.go, Buffer.concat([counted('disk'), Buffer.alloc(4)])), '80000003'],
    ['GO with a NUL', go('di\0sk'), '80000003'],
    [
      'GO with broken UTF-8',
      option(Option.go, Buffer.concat([u32(2), Buffer.from([0xc3, 0x28]), Buffer.alloc(2)])),
      '80000003',
    ],
    ['GO with a long name', go('x'.repeat(4097)), '80000003'],
    ['GO of nobody', go('nobody'), '80000006'],
    ['SET_META without structured replies', meta(Option.setMetaContext, 'disk', ['base:allocation']), '80000003'],
    ['STARTTLS without TLS', option(Option.startTls, EMPTY), '80000002'],
    ['EXTENDED_HEADERS', option(Option.extendedHeaders, EMPTY), '80000001'],
    ['an option longer than is looked at', option(Option.list, Buffer.alloc(20_000)), '80000009'],
  ];
  for (const [what, bytes, expected] of cases) {
    for (const stepBytes of [bytes.length + 100, 1]) {
      const outcome = haggle(fresh(), Buffer.concat([CLIENT_FLAGS, bytes, after]), stepBytes);
      t.is(outcome.replies[0]?.split(':')[1], expected, what);
      t.is(outcome.event?.kind, 'enter', `${what}: goes on`);
    }
  }
});

test('meta contexts: replaced even by a failure, bound to the name, wildcards only in LIST', (t) => {
  const structured = option(Option.structuredReply, EMPTY);
  const base = ['base:allocation'];
  const allocation = (...options: Buffer[]): boolean | undefined => {
    const outcome = haggle(fresh(), Buffer.concat([CLIENT_FLAGS, structured, ...options]));
    return outcome.event?.kind === 'enter' ? outcome.event.allocation : undefined;
  };
  const set = Option.setMetaContext;
  t.true(allocation(meta(set, 'disk', base), go('disk')));
  t.false(allocation(meta(set, 'disk', base), go('other')));
  t.false(allocation(meta(set, 'disk', base), meta(set, 'disk', []), go('disk')));
  t.false(allocation(meta(set, 'disk', base), meta(set, 'nobody', base), go('disk')));
  t.false(allocation(meta(set, 'disk', base), option(set, Buffer.from('xx')), go('disk')));
  t.false(allocation(meta(set, 'disk', ['base:', 'qemu:x', 'base:allocatio']), go('disk')));
  const list = (queries: string[]): string[] =>
    types(fresh(), structured, meta(Option.listMetaContext, 'disk', queries));
  t.deepEqual(list([]), ['1', '4', '1']);
  t.deepEqual(list(['base:']), ['1', '4', '1']);
  t.deepEqual(list(['x:', 'y:z']), ['1', '1']);
  const lying = option(set, Buffer.concat([counted('disk'), u32(0xffff_ffff), counted('base:allocation')]));
  t.deepEqual(types(fresh(), structured, lying), ['1', '80000003']);
});

test('the empty name is the only export, and nobody when there are several', (t) => {
  t.is(haggle(fresh('off', DISK), Buffer.concat([CLIENT_FLAGS, go('')])).event?.kind, 'enter');
  t.deepEqual(types(fresh(), go('')), ['80000006']);
});

test('ABORT is acknowledged, with or without data', (t) => {
  for (const data of [EMPTY, Buffer.from('bye')]) {
    const outcome = haggle(fresh(), Buffer.concat([CLIENT_FLAGS, option(Option.abort, data)]));
    t.deepEqual(outcome.replies, ['2:1:']);
    t.is(outcome.event?.kind === 'close' && outcome.event.abort, true);
  }
});

test('FORCEDTLS answers nothing but STARTTLS and ABORT', (t) => {
  const options = [Option.list, Option.info, Option.go, Option.structuredReply, Option.setMetaContext, 77];
  for (const code of options) t.deepEqual(types(fresh('required'), option(code, EMPTY)), ['80000005'], `${code}`);
  t.is(
    haggle(fresh('required'), Buffer.concat([CLIENT_FLAGS, option(Option.exportName, Buffer.from('disk'))])).event
      ?.kind,
    'close',
  );
  t.deepEqual(types(fresh('required'), option(Option.abort, EMPTY)), ['1']);
});

test('STARTTLS forgets what was negotiated before it and may not be repeated', (t) => {
  const negotiation = fresh('offered');
  const before = haggle(
    negotiation,
    Buffer.concat([
      CLIENT_FLAGS,
      option(Option.structuredReply, EMPTY),
      meta(Option.setMetaContext, 'disk', ['base:allocation']),
      option(Option.startTls, EMPTY),
      go('disk'),
    ]),
  );
  t.is(before.event?.kind, 'start-tls');
  t.is(before.rest, go('disk').length, 'what stands behind STARTTLS is not taken');
  negotiation.secured();
  t.true(haggle(negotiation, option(Option.startTls, EMPTY)).replies[0]?.startsWith('5:80000003'));
  const after = haggle(negotiation, go('disk'));
  t.is(after.event?.kind === 'enter' && (after.event.structured || after.event.allocation), false);
});

test('a refused GO goes on haggling; a refused EXPORT_NAME cannot', (t) => {
  const outcome = haggle(fresh(), Buffer.concat([CLIENT_FLAGS, go('disk')]));
  if (outcome.event?.kind !== 'enter') return t.fail();
  const refusal = Buffer.from(outcome.event.refuse(OptionReply.errShutdown, 'stopping') ?? EMPTY);
  t.is(refusal.readUInt32BE(12), OptionReply.errShutdown);
  t.is(refusal.toString('utf8', 20), 'stopping');
  const old = haggle(fresh(), Buffer.concat([CLIENT_FLAGS, option(Option.exportName, Buffer.from('disk'))]));
  t.is(old.event?.kind === 'enter' ? old.event.refuse(OptionReply.errShutdown, '') : EMPTY, undefined);
});

test('options and the bytes of all replies are bounded', (t) => {
  const many = Buffer.concat([CLIENT_FLAGS, ...Array.from({ length: 300 }, () => option(77, EMPTY))]);
  const outcome = haggle(fresh(), many);
  t.is(outcome.event?.kind, 'close');
  t.true(outcome.replies.length <= NBD_LIMITS.optionsMax);
  const wide = Array.from(
    { length: 100 },
    (_, i) =>
      new DeviceExport(new MemoryDevice(512), { name: `${i}${'n'.repeat(3000)}`, description: 'd'.repeat(900) }),
  );
  const lists = Buffer.concat([CLIENT_FLAGS, ...Array.from({ length: 200 }, () => option(Option.list, EMPTY))]);
  const sent = haggle(fresh('off', ...wide), lists);
  t.is(sent.event?.kind, 'close');
  t.true(sent.replies.join('').length / 2 < NBD_LIMITS.handshakeReplyBytesMax + 500_000);
});

test('random bytes never crash a negotiation and it never waits for more than its bound', (t) => {
  const piece = fc.oneof(
    { weight: 3, arbitrary: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)) },
    {
      weight: 5,
      arbitrary: fc
        .tuple(fc.integer({ min: 0, max: 12 }), fc.uint8Array({ maxLength: 60 }))
        .map(([code, data]) => option(code, data)),
    },
    { weight: 3, arbitrary: fc.constantFrom(TYPICAL.subarray(4), go('disk'), meta(10, 'disk', ['base:'])) },
    {
      weight: 1,
      arbitrary: fc.nat(0xffff_ffff).map((length) => Buffer.concat([Buffer.from('IHAVEOPT'), u32(7), u32(length)])),
    },
  );
  const mode = fc.constantFrom<TlsMode>('off', 'offered', 'required');
  fc.assert(
    fc.property(mode, fc.array(piece, { maxLength: 20 }), fc.integer({ min: 1, max: 64 }), (tls, pieces, stepBytes) => {
      const outcome = haggle(fresh(tls), Buffer.concat([CLIENT_FLAGS, ...pieces]), stepBytes);
      return outcome.event !== undefined || outcome.rest <= 16 + NBD_LIMITS.optionBytesMax;
    }),
    { numRuns: 500 },
  );
  t.pass();
});

test('client and server negotiate with each other, byte by byte, with and without TLS', (t) => {
  for (const tls of [false, true]) {
    const server = fresh(tls ? 'required' : 'off');
    const client = new ClientNegotiation('disk', tls);
    let agreed: NegotiatedExport | undefined;
    let entered: NegotiationEvent | undefined;
    let toClient = Buffer.from(server.greeting());
    let toServer = EMPTY;
    for (let turn = 0; turn < 5000 && agreed === undefined; turn++) {
      for (let seen = 1; seen <= toClient.length; seen++) {
        const step = client.step(toClient.subarray(0, seen));
        if (step.consumed === 0) continue;
        toClient = toClient.subarray(step.consumed);
        seen = 0;
        toServer = Buffer.concat([toServer, ...step.send]);
        if (step.event?.kind === 'ready') agreed = step.event.export;
        if (step.event?.kind === 'start-tls') toServer = Buffer.from(client.secured());
      }
      const step = server.step(toServer);
      toServer = toServer.subarray(step.consumed);
      toClient = Buffer.concat([toClient, ...step.send]);
      if (step.event?.kind === 'start-tls') server.secured();
      if (step.event?.kind === 'enter') {
        entered = step.event;
        toClient = Buffer.concat([toClient, ...step.event.accept]);
      }
    }
    t.is(entered?.kind, 'enter');
    t.like(agreed, { size: 1 << 20, structured: true, allocationContext: 1, minimumBlockBytes: 512 });
  }
});

test('random bytes from a server end the client with an operating error, never a crash', (t) => {
  const good = Buffer.concat([new Negotiation(catalogue(DISK), 'off', NBD_LIMITS).greeting()]);
  fc.assert(
    fc.property(fc.boolean(), fc.uint8Array({ maxLength: 300 }), (greeted, bytes) => {
      const client = new ClientNegotiation('disk', false);
      let rest = greeted ? Buffer.concat([good, bytes]) : Buffer.from(bytes);
      try {
        for (;;) {
          const step = client.step(rest);
          if (step.consumed === 0) return true;
          rest = rest.subarray(step.consumed);
        }
      } catch (error) {
        return error instanceof TidemarkError;
      }
    }),
  );
  const awaited = { offset: 0, length: 512, into: Buffer.alloc(512), filled: [], errno: 0, status: undefined };
  fc.assert(
    fc.property(fc.array(fc.constantFrom(0x67, 0x44, 0x66, 0x98, 0x8e, 0x33, 0xef, 0, 0, 1, 5, 9)), (bytes) => {
      const parser = new ReplyParser({ awaited: () => awaited, done: () => {} }, 1);
      try {
        for (const byte of [0x66, 0x8e, 0x33, 0xef, ...bytes]) parser.feed(Buffer.from([byte]));
        return true;
      } catch (error) {
        return error instanceof TidemarkError;
      }
    }),
  );
  t.pass();
});

interface Parsed {
  kind: string;
  flags: number;
  offset: number;
  length: number;
  cookie: number;
  payload?: string;
}

/** Feeds `bytes` in pieces to a parser as a session does, and puts parts together again. */
function parseAll(t: ExecutionContext, bytes: Buffer, stepBytes: number, windowBytes = 65_536): Parsed[] {
  const slab = new Slab(windowBytes);
  const rules = { size: 1 << 20, minimumBlockBytes: 512, readOnly: false, fastZero: true };
  const parser = new RequestParser({ ...rules, structured: true, allocation: true, windowBytes }, slab);
  const found: Parsed[] = [];
  let open: Parsed | undefined;
  for (let at = 0; at < bytes.length; ) {
    const room = slab.room();
    const taken = Math.min(stepBytes, room.length, bytes.length - at);
    bytes.copy(room, 0, at, at + taken);
    slab.filled(taken, room);
    at += taken;
    while (parser.parse(slab)) {
      const { window, others } = parser;
      if (window.count > 0) t.true(window.start >= 64 && window.end <= slab.writeAt);
      for (let i = 0; i < window.count; i++) {
        const headerAt = window.headerAt[i] ?? 0;
        const length = window.length[i] ?? 0;
        const write = window.kind[i] === 1;
        const payload = write ? slab.buffer.toString('latin1', headerAt + 28, headerAt + 28 + length) : '';
        if (open === undefined) {
          open = {
            kind: `modify ${window.kind[i]}`,
            flags: window.flags[i] ?? 0,
            offset: window.offset[i] ?? 0,
            length: 0,
            cookie: window.cookieLow[i] ?? 0,
            payload: '',
          };
        }
        t.is(window.offset[i], open.offset + open.length);
        if (window.part[i] === 1) t.is(length % 512, 0);
        open.length += length;
        open.payload += payload;
        if (window.part[i] === 1) continue;
        found.push(open);
        open = undefined;
      }
      for (let i = 0; i < others.count; i++) {
        const errno = others.errno[i] ?? 0;
        const kind = errno === 0 ? `other ${others.command[i]}` : `refuse ${others.command[i]} ${errno}`;
        found.push({
          kind,
          flags: others.flags[i] ?? 0,
          offset: others.offset[i] ?? 0,
          length: others.length[i] ?? 0,
          cookie: others.cookieLow[i] ?? 0,
        });
      }
      // An export overwrites what it was given.
      if (window.count > 0) slab.buffer.fill(0xff, window.start - 64, window.end);
    }
  }
  t.is(parser.violation, undefined);
  return found.toSorted((a, b) => a.cookie - b.cookie);
}

test('requests come out the same however they arrive, long ones in parts, refused payloads skipped', (t) => {
  const long = Buffer.from(Array.from({ length: 300_032 }, (_, i) => i % 251));
  const bytes = Buffer.concat([
    request(1, 1, 512, 512, { payload: long.subarray(0, 512) }),
    request(0, 2, 0, 4096),
    request(1, 3, 100, 600, { payload: Buffer.alloc(600) }),
    request(1, 4, 4096, long.length, { payload: long, flags: 1 }),
    request(1, 5, (1 << 20) - 512, 200_192, { payload: Buffer.alloc(200_192) }),
    request(4, 6, 0, 1 << 20),
    request(3, 7, 0, 0),
    request(6, 8, 0, 512, { flags: 2 | 16 }),
    request(7, 9, 0, 512, { flags: 8 }),
    request(5, 10, 0, 512),
    request(1, 11, 1024, 512, { payload: long.subarray(512, 1024) }),
  ]);
  const whole = parseAll(t, bytes, bytes.length);
  t.deepEqual(
    whole.map(({ kind, length }) => `${kind} ${length}`),
    [
      'modify 1 512',
      'other 0 4096',
      'refuse 1 22 0',
      `modify 1 ${long.length}`,
      'refuse 1 28 0',
      'modify 4 1048576',
      'modify 3 0',
      'modify 6 512',
      'other 7 512',
      'other 5 512',
      'modify 1 512',
    ],
  );
  t.is(whole[3]?.payload, long.toString('latin1'));
  for (const stepBytes of [1, 7, 511, 4096, 70_001]) t.deepEqual(parseAll(t, bytes, stepBytes), whole, `${stepBytes}`);
});

test('a slab filled by a client that may not go on takes one more read beside it', (t) => {
  const slab = new Slab(65_536);
  const sent: Buffer[] = [];
  for (let next = 1; next < 200; next++) {
    const room = slab.room();
    t.true(room.length >= 32_768);
    const bytes = Buffer.alloc(Math.min(room.length, 50_000), next);
    bytes.copy(room);
    sent.push(bytes);
    const beside = room.buffer !== slab.buffer.buffer;
    if (beside) {
      const before = Buffer.concat(sent.slice(0, -1));
      t.true(slab.buffer.subarray(slab.readAt, slab.writeAt).equals(before));
      slab.readAt = slab.writeAt;
      slab.filled(bytes.length, room);
      t.true(slab.buffer.subarray(slab.readAt, slab.writeAt).equals(bytes));
      return;
    }
    slab.filled(bytes.length, room);
  }
  t.fail('the slab never filled');
});

test('each illegal request gets its own error', (t) => {
  const size = 1 << 20;
  const cases: [string, Buffer, string][] = [
    ['read past the end', request(0, 1, size, 512), 'refuse 0 22'],
    ['read of a wrapping offset', request(0, 1, 0xffff_ffff_ffff_fe00n, 1024), 'refuse 0 22'],
    ['read of more than 32 MiB', request(0, 1, 0, 33 << 20), 'refuse 0 22'],
    ['unaligned read', request(0, 1, 1, 512), 'refuse 0 22'],
    ['empty read', request(0, 1, 0, 0), 'refuse 0 22'],
    ['write past the end', request(1, 1, size, 512, { payload: Buffer.alloc(512) }), 'refuse 1 28'],
    ['empty write', request(1, 1, 0, 0), 'refuse 1 22'],
    ['write with an unknown flag', request(1, 1, 0, 512, { flags: 64, payload: Buffer.alloc(512) }), 'refuse 1 22'],
    ['write with PAYLOAD_LEN', request(1, 1, 0, 512, { flags: 32, payload: Buffer.alloc(512) }), 'refuse 1 22'],
    ['zeroes past the end', request(6, 1, size - 512, 1024), 'refuse 6 28'],
    ['trim past the end', request(4, 1, size - 512, 1024), 'refuse 4 22'],
    ['trim with NO_HOLE', request(4, 1, 0, 512, { flags: 2 }), 'refuse 4 22'],
    ['status past the end', request(7, 1, size, 512), 'refuse 7 22'],
    ['flush with a length', request(3, 1, 0, 512), 'refuse 3 22'],
    ['resize', request(8, 1, 0, 512), 'refuse 8 22'],
    ['nonsense', request(777, 1, 0, 512), 'refuse 777 22'],
  ];
  for (const [what, bytes, expected] of cases) {
    const [only, ...more] = parseAll(t, Buffer.concat([bytes]), 1000);
    t.is(only?.kind, expected, what);
    t.is(more.length, 0);
  }
  for (const command of [0, 1, 3, 4, 5, 6, 7]) {
    const payload = command === 1 ? Buffer.alloc(512) : EMPTY;
    const [only] = parseAll(t, request(command, 1, 0, command === 3 ? 0 : 512, { flags: 1, payload }), 1000);
    t.false(only?.kind.startsWith('refuse'), `FUA on command ${command}`);
  }
});

test('a wrong magic and a payload above 32 MiB end the connection', (t) => {
  for (const bytes of [Buffer.alloc(28, 1), request(1, 1, 0, (32 << 20) + 512)]) {
    const slab = new Slab(65_536);
    const rules = { size: 1 << 20, minimumBlockBytes: 512, readOnly: false, fastZero: true };
    const parser = new RequestParser({ ...rules, structured: false, allocation: false, windowBytes: 65_536 }, slab);
    slab.append(bytes);
    parser.parse(slab);
    t.not(parser.violation, undefined);
  }
});

test('every error code has a number the protocol knows, and back again', (t) => {
  for (const code of Object.keys(ERROR_CODES) as ErrorCode[])
    t.true([1, 5, 12, 22, 28, 75, 95, 108].includes(errnoOf(code)));
  for (const errno of [1, 5, 28, 95, 108] as const) t.is(Number(errnoOf(codeOfErrno(errno))), errno);
  t.is(codeOfErrno(4711), 'invalid-argument');
});

test('addresses are read and printed', (t) => {
  const cases: [string, NbdAddress][] = [
    ['nbd://host:10810/vol', { kind: 'tcp', host: 'host', port: 10810, exportName: 'vol', tls: false }],
    ['nbds://host/', { kind: 'tcp', host: 'host', port: 10809, exportName: '', tls: true }],
    ['nbd://[::1]:99/a%20b', { kind: 'tcp', host: '::1', port: 99, exportName: 'a b', tls: false }],
    ['nbd+unix:///vol?socket=/run/t/s', { kind: 'unix', path: '/run/t/s', exportName: 'vol', tls: false }],
    ['nbds+unix:///a%2Fb?socket=/run/x%20y', { kind: 'unix', path: '/run/x y', exportName: 'a/b', tls: true }],
  ];
  for (const [uri, address] of cases) {
    t.deepEqual(parseNbdUri(uri), address);
    t.deepEqual(parseNbdUri(formatNbdUri(address)), address);
  }
  const wrong = [
    '',
    'vol',
    'http://x/',
    'nbd:///x',
    'nbd+unix:///x',
    'nbd+unix:///x?socket=rel',
    'nbd://h/x?a=b',
    'nbd://h/%zz',
    'nbd://h/x?socket=/s',
  ];
  for (const uri of wrong) t.throws(() => parseNbdUri(uri), { code: 'invalid-argument' }, uri);
});
