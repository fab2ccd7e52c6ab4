import { once } from 'node:events';
import { existsSync, linkSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { DeviceExport } from '../../daemon/nbd/device-export.ts';
import type { ReplyPort } from '../../daemon/nbd/export.ts';
import { NBD_LIMITS } from '../../daemon/nbd/limits.ts';
import { Negotiation } from '../../daemon/nbd/negotiation.ts';
import { encodeDataChunk } from '../../daemon/nbd/reply-encoder.ts';
import { NbdServer } from '../../daemon/nbd/server.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice } from '../../journal/block-device.ts';
import { MemoryDevice } from '../doubles/memory-device.ts';
import { ScriptedExport } from '../doubles/scripted-export.ts';
import { counted, option, RawClient, request, startServer, u32 } from './support.ts';

const MIB = 1024 * 1024;

test('a client that leaves after any byte of handshake and requests hurts nobody', async (t) => {
  const memory = new MemoryDevice(MIB);
  const server = await startServer({ exports: [new DeviceExport(memory, { name: 'disk' })] });
  const script = Buffer.concat([
    Buffer.from([0, 0, 0, 3]),
    option(8, Buffer.alloc(0)),
    option(10, Buffer.concat([counted('disk'), u32(1), counted('base:allocation')])),
    option(7, Buffer.concat([counted('disk'), Buffer.from([0, 1, 0, 3])])),
    request(1, 1, 0, 512, { payload: Buffer.alloc(512, 1) }),
    request(0, 2, 0, 512),
    request(3, 3, 0, 0),
  ]);
  const exportName = Buffer.concat([
    Buffer.from([0, 0, 0, 0]),
    Buffer.from([0, 0, 0, 3]),
    option(1, Buffer.from('disk')),
  ]);
  for (const bytes of [script, exportName.subarray(4)]) {
    for (let length = 0; length <= bytes.length; length++) {
      const socket = connect(server.socketPath);
      await once(socket, 'connect');
      if (length % 2 === 0) socket.end(bytes.subarray(0, length));
      else socket.write(bytes.subarray(0, length), () => socket.destroy());
      socket.on('error', () => {});
      socket.resume();
      if (!socket.closed) await once(socket, 'close');
    }
  }
  const client = await NbdClient.connect(server.address('disk'));
  const got = Buffer.alloc(512);
  await client.read(0, got);
  t.true(got.equals(Buffer.alloc(512, 1)));
  await client.close();
  await server.stop();
});

test('a read the export answers later lets others pass, and its answer is whole', async (t) => {
  const scripted = new ScriptedExport();
  const late = Promise.withResolvers<void>();
  scripted.onRead = (offset, into) => {
    into.fill(offset === 0 ? 7 : 9);
    return offset === 0 ? late.promise : undefined;
  };
  const server = await startServer({ exports: [scripted] });
  const client = new RawClient(server.socketPath);
  await client.go('scripted');
  client.write(Buffer.concat([request(0, 1, 0, 4096), request(0, 2, 4096, 512), request(3, 3, 0, 0)]));
  t.deepEqual(await client.simpleReply(), { errno: 0, cookie: 3 });
  t.deepEqual(await client.simpleReply(), { errno: 0, cookie: 2 });
  t.true((await client.read(512)).every((byte) => byte === 9));
  client.write(request(1, 4, 0, 512, { payload: Buffer.alloc(512) }));
  t.deepEqual(await client.simpleReply(), { errno: 0, cookie: 4 });
  late.resolve();
  t.deepEqual(await client.simpleReply(), { errno: 0, cookie: 1 });
  t.true((await client.read(4096)).every((byte) => byte === 7));
  client.socket.destroy();
  await server.stop();
});

test('a read that fails: an error before the header, a disconnect behind it, a chunk when structured', async (t) => {
  const scripted = new ScriptedExport();
  scripted.onRead = (offset) => {
    if (offset === MIB) throw new TidemarkError('no-space', 'at once');
    if (offset === 2 * MIB) return Promise.reject(new TidemarkError('device-failed', 'later'));
    if (offset === 4 * MIB + 512 * 1024) throw new TidemarkError('device-failed', 'in the middle');
    return undefined;
  };
  const server = await startServer({ exports: [scripted] });
  const simple = new RawClient(server.socketPath);
  await simple.go('scripted');
  simple.write(Buffer.concat([request(0, 1, MIB, 512), request(0, 2, 2 * MIB, 512), request(0, 3, MIB, MIB)]));
  const first = [await simple.simpleReply(), await simple.simpleReply(), await simple.simpleReply()];
  t.deepEqual(
    first.toSorted((a, b) => a.cookie - b.cookie),
    [
      { errno: 28, cookie: 1 },
      { errno: 5, cookie: 2 },
      { errno: 28, cookie: 3 },
    ],
  );
  simple.write(request(0, 4, 4 * MIB, MIB));
  t.deepEqual(await simple.simpleReply(), { errno: 0, cookie: 4 });
  await simple.closed;
  await t.throwsAsync(simple.read(MIB));

  const client = await NbdClient.connect(server.address('scripted'));
  await t.throwsAsync(client.read(4 * MIB, Buffer.alloc(MIB)), { code: 'device-failed' });
  await t.throwsAsync(client.read(MIB, Buffer.alloc(512)), { code: 'no-space' });
  await client.read(0, Buffer.alloc(MIB));
  await client.close();
  await server.stop();
});

test('DF gives one chunk, without it a long read is several between which others pass', async (t) => {
  const scripted = new ScriptedExport();
  const late = Promise.withResolvers<void>();
  scripted.onRead = (offset) => (offset === 512 * 1024 ? late.promise : undefined);
  const server = await startServer({ exports: [scripted] });
  const client = new RawClient(server.socketPath);
  await client.go('scripted', true);
  client.write(request(0, 1, 2 * MIB, MIB, { flags: 4 }));
  const header = await client.read(28);
  t.is(header.readUInt32BE(16), 8 + MIB);
  t.is(header.readUInt16BE(4), 1);
  await client.read(MIB);
  client.write(request(0, 2, 0, MIB));
  let data = 0;
  let flushedAt = -1;
  for (let done = false; !done; ) {
    const magic = await client.read(4);
    if (magic.readUInt32BE(0) === 0x6744_6698) {
      await client.read(12);
      flushedAt = data;
      late.resolve();
      continue;
    }
    const chunk = await client.read(24);
    const length = chunk.readUInt32BE(12) - 8;
    t.is(chunk.readUInt32BE(20), data, 'chunks are in order');
    await client.read(length);
    data += length;
    if (data === 512 * 1024) client.write(request(3, 3, 0, 0));
    done = (chunk.readUInt16BE(0) & 1) === 1;
  }
  t.is(data, MIB);
  t.is(flushedAt, 512 * 1024);
  client.socket.destroy();
  await server.stop();
});

test('acknowledgements that come while a long simple reply is under way do not end up inside it', async (t) => {
  const scripted = new ScriptedExport();
  const late = Promise.withResolvers<void>();
  scripted.onRead = (offset, into) => {
    into.fill(0x55);
    return offset === 512 * 1024 ? late.promise : undefined;
  };
  const server = await startServer({ exports: [scripted] });
  const client = new RawClient(server.socketPath);
  await client.go('scripted');
  client.write(request(0, 1, 0, MIB));
  t.deepEqual(await client.simpleReply(), { errno: 0, cookie: 1 });
  t.true((await client.read(512 * 1024)).every((byte) => byte === 0x55));
  client.write(Buffer.concat([request(3, 2, 0, 0), request(0, 3, 2 * MIB, 512)]));
  while (scripted.submitted.length === 0) await new Promise(setImmediate);
  late.resolve();
  t.true((await client.read(512 * 1024)).every((byte) => byte === 0x55));
  const rest = [(await client.simpleReply()).cookie];
  if (rest[0] === 3) await client.read(512);
  rest.push((await client.simpleReply()).cookie);
  t.deepEqual(
    rest.toSorted((a, b) => a - b),
    [2, 3],
  );
  client.socket.destroy();
  await server.stop();
});

test('two long simple reads are answered one after the other', async (t) => {
  const scripted = new ScriptedExport();
  scripted.onRead = async (offset, into) => {
    await new Promise(setImmediate);
    into.fill(offset < 8 * MIB ? 1 : 2);
  };
  const server = await startServer({ exports: [scripted] });
  const client = new RawClient(server.socketPath);
  await client.go('scripted');
  client.write(Buffer.concat([request(0, 1, 0, 2 * MIB), request(0, 2, 8 * MIB, 2 * MIB), request(0, 1, 0, 512)]));
  const lengths = new Map([
    [1, 2 * MIB],
    [2, 2 * MIB],
  ]);
  for (let answers = 0; answers < 3; answers++) {
    const { errno, cookie } = await client.simpleReply();
    t.is(errno, 0);
    const length = lengths.get(cookie) ?? 0;
    t.true((await client.read(length)).every((byte) => byte === cookie));
    lengths.set(cookie, 512);
  }
  client.socket.destroy();
  await server.stop();
});

test('a device that takes its time with writes gets each its own bytes, and bounds what is taken', async (t) => {
  const memory = new MemoryDevice(8 * MIB);
  let underWay = 0;
  let most = 0;
  const slow: BlockDevice = {
    size: memory.size,
    readOnly: false,
    read: async (offset, into) => memory.read(offset, into),
    write: async (offset, from) => {
      underWay += from.length;
      most = Math.max(most, underWay);
      for (let turn = 0; turn < 60; turn++) await new Promise(setImmediate);
      underWay -= from.length;
      await memory.write(offset, from);
    },
    zero: async (offset, length, mayUnmap) => memory.zero(offset, length, mayUnmap),
    flush: async () => memory.flush(),
    extents: async (offset, length) => memory.extents(offset, length),
    close: async () => memory.close(),
  };
  const item = new DeviceExport(slow, { name: 'disk', inFlightBytesMax: MIB });
  const server = await startServer({ exports: [item] });
  const client = new RawClient(server.socketPath);
  await client.go('disk');
  const writes = 2048;
  for (let i = 0; i < writes; i++)
    client.write(request(1, i, i * 4096, 4096, { payload: Buffer.alloc(4096, 1 + (i % 255)) }));
  for (let i = 0; i < writes; i++) t.is((await client.simpleReply()).errno, 0);
  for (let i = 0; i < writes; i++) {
    t.true(memory.bytes.subarray(i * 4096, (i + 1) * 4096).equals(Buffer.alloc(4096, 1 + (i % 255))));
  }
  t.true(most <= MIB + 512 * 1024, `${most} bytes were under way`);
  client.socket.destroy();
  await server.stop();
});

test('a refused write is read to its end, however long, and the next request is understood', async (t) => {
  const memory = new MemoryDevice(MIB);
  const server = await startServer({ exports: [new DeviceExport(memory, { name: 'disk' })] });
  const client = new RawClient(server.socketPath);
  await client.go('disk');
  const trap = Buffer.alloc(3 * MIB);
  for (let at = 0; at + 28 <= trap.length; at += 28) request(6, 99, 0, 512).copy(trap, at);
  client.write(request(1, 1, 0, trap.length, { payload: trap }));
  t.deepEqual(await client.simpleReply(), { errno: 28, cookie: 1 });
  client.write(request(1, 2, 100, 600, { payload: Buffer.alloc(600) }));
  t.deepEqual(await client.simpleReply(), { errno: 22, cookie: 2 });
  client.write(request(1, 3, 512, 512, { payload: Buffer.alloc(512, 3) }));
  t.deepEqual(await client.simpleReply(), { errno: 0, cookie: 3 });
  t.true(memory.bytes.subarray(512, 1024).every((byte) => byte === 3));
  client.write(request(1, 4, 0, 32 * MIB + 512));
  await client.closed;
  await server.stop();
});

test('the old EXPORT_NAME leads to the same transmission phase', async (t) => {
  const server = await startServer({ exports: [new DeviceExport(new MemoryDevice(MIB), { name: 'disk' })] });
  const client = new RawClient(server.socketPath);
  await client.read(18);
  client.write(
    Buffer.concat([
      Buffer.from([0, 0, 0, 1]),
      option(1, Buffer.from('disk')),
      request(1, 1, 0, 512, { payload: Buffer.alloc(512, 4) }),
    ]),
  );
  t.is((await client.read(134)).readBigUInt64BE(0), BigInt(MIB));
  t.deepEqual(await client.simpleReply(), { errno: 0, cookie: 1 });
  client.write(Buffer.concat([request(0, 2, 0, 512), request(2, 3, 0, 0)]));
  t.deepEqual(await client.simpleReply(), { errno: 0, cookie: 2 });
  t.true((await client.read(512)).equals(Buffer.alloc(512, 4)));
  await client.closed;
  await server.stop();
});

test('random bytes after the handshake end a connection or are answered; the server lives on', async (t) => {
  const memory = new MemoryDevice(MIB);
  const server = await startServer({ exports: [new DeviceExport(memory, { name: 'disk' })] });
  const header = fc.record({
    command: fc.oneof(fc.integer({ min: 0, max: 8 }), fc.nat(0xffff)),
    offset: fc.oneof(fc.nat(2 * MIB), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })),
    length: fc.oneof(fc.nat(8192), fc.constant(512), fc.nat(0xffff_ffff)),
    flags: fc.oneof(fc.constant(0), fc.nat(0xffff)),
    payload: fc.uint8Array({ maxLength: 600 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.boolean(), fc.array(header, { maxLength: 10 }), async (structured, headers) => {
      const client = new RawClient(server.socketPath);
      await client.go('disk', structured);
      for (const { command, offset, length, flags, payload } of headers) {
        client.write(request(command, 1, offset, length, { flags, payload }));
      }
      client.socket.end();
      await client.closed;
    }),
    { numRuns: 60 },
  );
  const client = await NbdClient.connect(server.address('disk'));
  await client.flush();
  await client.close();
  await server.stop();
  t.pass();
});

test('32 MiB in one request, both ways, in parts of whole sectors', async (t) => {
  const memory = new MemoryDevice(34 * MIB);
  const server = await startServer({ exports: [new DeviceExport(memory, { name: 'disk' })] });
  const client = await NbdClient.connect(server.address('disk'));
  const bytes = Buffer.allocUnsafe(32 * MIB);
  for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE(at ^ 0x5a5a_1234, at);
  await client.write(MIB + 512, bytes, { fua: true });
  t.is(memory.flushes, 1);
  t.true(memory.bytes.subarray(MIB + 512, 33 * MIB + 512).equals(bytes));
  const got = Buffer.alloc(32 * MIB);
  await client.read(MIB + 512, got);
  t.true(got.equals(bytes));
  await client.close();

  const scripted = new ScriptedExport();
  server.server.addExport(scripted);
  const other = await NbdClient.connect(server.address('scripted'));
  await other.write(0, bytes);
  await other.write(0, bytes.subarray(0, 200 * 1024));
  t.true(scripted.submitted.length < 32 * 8 + 10);
  const lengths = scripted.submitted.map((line) => Number(line.split(' ')[2]));
  t.is(
    lengths.reduce((sum, length) => sum + length, 0),
    32 * MIB + 200 * 1024,
  );
  t.is(lengths.at(-1), 200 * 1024, 'a request that fits the window is not cut');
  await other.close();
  await server.stop();
});

test('a client that does not read its replies costs a bounded amount, and gets everything when it does', async (t) => {
  const scripted = new ScriptedExport();
  let produced = 0;
  scripted.onRead = (offset, into) => {
    produced += into.length;
    into.fill((offset / 65_536) & 0xff);
    return undefined;
  };
  const server = await startServer({ exports: [scripted] });
  const client = new RawClient(server.socketPath);
  await client.go('scripted');
  client.socket.pause();
  const reads = 800;
  for (let i = 0; i < reads; i++) client.write(request(0, i, i * 65_536, 65_536));
  while (produced < 4 * MIB) await new Promise(setImmediate);
  let before = -1;
  while (before !== produced) {
    before = produced;
    for (let turn = 0; turn < 200; turn++) await new Promise(setImmediate);
  }
  t.true(produced < 8 * MIB, `${produced} bytes were produced`);
  client.socket.resume();
  const seen = new Set<number>();
  for (let i = 0; i < reads; i++) {
    const { cookie } = await client.simpleReply();
    seen.add(cookie);
    const data = await client.read(65_536);
    t.is(data[0], cookie & 0xff);
    t.is(data[65_535], cookie & 0xff);
  }
  t.is(seen.size, reads);
  client.socket.destroy();
  await server.stop();
});

test('reads that the export answers later are bounded in bytes', async (t) => {
  const scripted = new ScriptedExport();
  const open: (() => void)[] = [];
  let most = 0;
  scripted.onRead = () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    open.push(resolve);
    most = Math.max(most, open.length);
    return promise;
  };
  const server = await startServer({ exports: [scripted], limits: { readBytesMax: 10 * 65_536 } });
  const client = new RawClient(server.socketPath);
  await client.go('scripted');
  client.write(Buffer.concat(Array.from({ length: 100 }, (_, i) => request(0, i, i * 65_536, 65_536))));
  for (let answered = 0; answered < 100; answered++) {
    while (open.length === 0) await new Promise(setImmediate);
    open.shift()?.();
    await client.simpleReply();
    await client.read(65_536);
  }
  t.is(most, 10);
  client.socket.destroy();
  await server.stop();
});

test('an export that pauses is not sent more, and loses nothing', async (t) => {
  const scripted = new ScriptedExport();
  const held: [ReplyPort, number, number][] = [];
  let paused = false;
  let answering = false;
  scripted.onRequest = (replies, high, low) => {
    if (answering) return replies.ok(high, low);
    held.push([replies, high, low]);
    if (!paused) replies.pause();
    paused = true;
  };
  const server = await startServer({ exports: [scripted] });
  const client = new RawClient(server.socketPath);
  await client.go('scripted');
  const writes = 400;
  for (let i = 0; i < writes; i++) client.write(request(1, i, 0, 4096, { payload: Buffer.alloc(4096) }));
  while (!paused) await new Promise(setImmediate);
  for (let turn = 0; turn < 200; turn++) await new Promise(setImmediate);
  t.true(held.length > 0 && held.length < 100, `${held.length} of ${writes} requests were taken`);
  answering = true;
  for (const [replies, high, low] of held) replies.ok(high, low);
  scripted.replies?.send();
  scripted.replies?.resume();
  const cookies = new Set<number>();
  for (let i = 0; i < writes; i++) cookies.add((await client.simpleReply()).cookie);
  t.is(cookies.size, writes);
  client.socket.destroy();
  await server.stop();
});

test('requests in flight are bounded', async (t) => {
  const scripted = new ScriptedExport();
  const held: [number, number][] = [];
  scripted.onRequest = (_replies, high, low) => held.push([high, low]);
  const server = await startServer({ exports: [scripted], limits: { inFlightMax: 8, windowBytes: 32_768 } });
  const client = new RawClient(server.socketPath);
  await client.go('scripted');
  for (let i = 0; i < 5000; i++) client.write(request(3, i, 0, 0));
  while (held.length < 8) await new Promise(setImmediate);
  for (let turn = 0; turn < 200; turn++) await new Promise(setImmediate);
  t.true(held.length < 4096, `${held.length} requests were taken`);
  for (let answered = 0; answered < 5000; ) {
    while (held.length === 0) await new Promise(setImmediate);
    for (const [high, low] of held.splice(0)) {
      scripted.replies?.ok(high, low);
      answered += 1;
    }
    scripted.replies?.send();
  }
  for (let i = 0; i < 5000; i++) t.is((await client.simpleReply()).errno, 0);
  client.socket.destroy();
  await server.stop();
});

test('shutdown answers what was accepted and then closes; DISC and a half-closed socket do the same', async (t) => {
  const scripted = new ScriptedExport();
  const held: [number, number][] = [];
  scripted.onRequest = (_replies, high, low) => held.push([high, low]);
  const answer = (): void => {
    for (const [high, low] of held.splice(0)) scripted.replies?.ok(high, low);
    scripted.replies?.send();
  };
  for (const how of ['disc', 'half-close', 'shutdown'] as const) {
    const server = await startServer({ exports: [scripted] });
    const client = new RawClient(server.socketPath);
    await client.go('scripted');
    client.write(request(3, 5, 0, 0));
    while (held.length === 0) await new Promise(setImmediate);
    let stopped = Promise.resolve();
    if (how === 'disc') client.write(request(2, 6, 0, 0));
    else if (how === 'half-close') client.socket.end();
    else stopped = server.server.close();
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
    answer();
    t.deepEqual(await client.simpleReply(), { errno: 0, cookie: 5 }, how);
    await client.closed;
    await stopped;
    await server.stop();
  }
  t.is(scripted.detached, 3);
});

test('a shut export refuses GO and the client may haggle on; a listener may refuse as well', async (t) => {
  const scripted = new ScriptedExport();
  scripted.onAttach = () => {
    throw new TidemarkError('shutting-down', 'going away');
  };
  const server = await startServer({ exports: [scripted, new DeviceExport(new MemoryDevice(512), { name: 'disk' })] });
  await t.throwsAsync(NbdClient.connect(server.address('scripted')), { code: 'shutting-down' });
  await t.throwsAsync(NbdClient.connect(server.address('nobody')), { code: 'not-found' });
  const client = new RawClient(server.socketPath);
  await client.read(18);
  client.write(Buffer.from([0, 0, 0, 3]));
  for (const [name, type] of [
    ['scripted', 0x8000_0007],
    ['disk', 3],
  ] as const) {
    client.write(option(7, Buffer.concat([counted(name), Buffer.from([0, 0])])));
    t.is((await client.optionReply()).type, type);
  }
  client.socket.destroy();
  await server.stop();
  let shut = true;
  const tcp = await NbdServer.start({
    exports: [new DeviceExport(new MemoryDevice(512), { name: 'disk' })],
    listeners: [
      {
        address: { kind: 'tcp', host: '127.0.0.1', port: 0 },
        admit: () => {
          if (shut) throw new TidemarkError('precondition-failed', 'not released after a power loss');
        },
      },
    ],
  });
  const [at] = tcp.addresses;
  if (at?.kind !== 'tcp') return t.fail();
  const address = { ...at, exportName: 'disk', tls: false };
  await t.throwsAsync(NbdClient.connect(address), { code: 'precondition-failed', message: /power loss/ });
  shut = false;
  const released = await NbdClient.connect(address);
  t.is(released.size, 512);
  t.like(tcp.clients('disk')[0], { exportName: 'disk', tls: undefined });
  await released.close();
  await tcp.close();
});

test('exports come and go, and who uses them is known', async (t) => {
  const reasons: string[] = [];
  const server = await startServer({
    exports: [new DeviceExport(new MemoryDevice(512), { name: 'a' })],
    onDisconnect: (client, reason) => reasons.push(`${client.exportName}: ${reason}`),
  });
  const a = await NbdClient.connect(server.address('a'));
  t.throws(() => server.server.addExport(new DeviceExport(new MemoryDevice(512), { name: 'a' })), {
    code: 'already-exists',
  });
  server.server.addExport(new DeviceExport(new MemoryDevice(512), { name: 'b' }));
  const b = await NbdClient.connect(server.address('b'));
  t.is(server.server.clients().length, 2);
  t.deepEqual(
    server.server.clients('b').map((client) => client.peer),
    [server.socketPath],
  );
  const gone = new Promise<string | undefined>((done) => a.onClosed((reason) => done(reason?.code)));
  await server.server.removeExport('a');
  t.is(await gone, 'device-gone');
  await t.throwsAsync(a.read(0, Buffer.alloc(512)), { code: 'device-gone' });
  await b.read(0, Buffer.alloc(512));
  await t.throwsAsync(server.server.removeExport('a'), { code: 'not-found' });
  await b.close();
  while (server.server.clients().length > 0) await new Promise(setImmediate);
  await server.stop();
  t.deepEqual(reasons, ['a: shutting down', 'b: ']);
});

test('too many connections are turned away, until one leaves', async (t) => {
  const server = await startServer({
    exports: [new DeviceExport(new MemoryDevice(MIB), { name: 'disk' })],
    limits: { connectionsMax: 2 },
  });
  const first = await NbdClient.connect(server.address('disk'));
  const haggling = new RawClient(server.socketPath);
  await haggling.read(18);
  const third = new RawClient(server.socketPath);
  await third.closed;
  await t.throwsAsync(third.read(1));
  await first.close();
  while (server.server.clients().length > 1) await new Promise(setImmediate);
  const fourth = await NbdClient.connect(server.address('disk'));
  await fourth.close();
  haggling.socket.destroy();
  await server.stop();
});

test('a slow handshake and a request that stops in the middle are cut off', async (t) => {
  const reasons: string[] = [];
  const exports = [new DeviceExport(new MemoryDevice(MIB), { name: 'disk' })];
  const onDisconnect = (_client: unknown, reason: string): void => void reasons.push(reason);
  // a server for each: on a busy machine the one would be cut off while it shakes hands
  const [progress, handshake] = await Promise.all(
    [{ requestProgressMs: 100 }, { handshakeMs: 300 }].map((limits) => startServer({ exports, limits, onDisconnect })),
  );
  const stuck = new RawClient(progress!.socketPath);
  await stuck.go('disk');
  stuck.write(request(1, 1, 0, 4096, { payload: Buffer.alloc(100) }));
  const slow = new RawClient(handshake!.socketPath);
  await slow.read(18);
  await Promise.all([slow.closed, stuck.closed]);
  t.deepEqual(reasons.toSorted(), ['a request stopped in the middle', 'no handshake in time']);
  await Promise.all([progress!.stop(), handshake!.stop()]);
});

// A guest that had waited for room in the middle of a long write lost its connection when it was let go on.
test('a long write that had to wait longer than it may stand still goes on where it was', async (t) => {
  const scripted = new ScriptedExport();
  const reasons: string[] = [];
  const limits = { requestProgressMs: 3000, windowBytes: 8192 };
  const onDisconnect = (_client: unknown, reason: string) => void reasons.push(reason);
  const server = await startServer({ exports: [scripted], limits, onDisconnect });
  const client = new RawClient(server.socketPath);
  await client.go('scripted');
  while (scripted.replies === undefined) await new Promise(setImmediate);
  client.write(request(1, 1, 0, 16_384, { payload: Buffer.alloc(8192) }));
  while (scripted.submitted.length === 0) await new Promise(setImmediate);
  scripted.replies.pause();
  await new Promise((resolve) => setTimeout(resolve, 3300));
  scripted.replies.resume();
  await new Promise((resolve) => setTimeout(resolve, 900));
  t.deepEqual(reasons, []);
  client.write(Buffer.alloc(8192));
  t.deepEqual(await client.simpleReply(), { errno: 0, cookie: 1 });
  client.socket.destroy();
  await server.stop();
});

test('the unix socket: mode 0660, its directory 0750; stale ones are removed, live and foreign ones are not', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'tidemark-nbd-'));
  const path = join(root, 'own', 's');
  const listeners = [{ address: { kind: 'unix', path } as const }];
  const first = await NbdServer.start({ listeners });
  t.is(statSync(path).mode & 0o777, 0o660);
  t.is(statSync(join(root, 'own')).mode & 0o777 & ~0o750, 0);
  await t.throwsAsync(NbdServer.start({ listeners }), { code: 'already-exists' });
  await first.close();
  t.false(existsSync(path));

  // A socket file nobody listens on: what a killed server leaves.
  const dead = createServer().listen(join(root, 'own', 'other'));
  await once(dead, 'listening');
  linkSync(join(root, 'own', 'other'), path);
  dead.close();
  await once(dead, 'close');
  t.true(existsSync(path));
  const second = await NbdServer.start({ listeners });
  await second.close();

  writeFileSync(path, 'precious');
  await t.throwsAsync(NbdServer.start({ listeners }), { code: 'already-exists', message: /no socket/ });
  t.true(existsSync(path));
  rmSync(root, { recursive: true });
});

test('the client: deadlines, a server that dies, a server that is no NBD server', async (t) => {
  const scripted = new ScriptedExport();
  scripted.onRequest = () => {};
  const server = await startServer({ exports: [scripted], limits: { drainMs: 50 } });
  const client = await NbdClient.connect(server.address('scripted'), { requestTimeoutMs: 100 });
  const other = await NbdClient.connect(server.address('scripted'));
  await t.throwsAsync(client.flush(), { code: 'timed-out' });
  await t.throwsAsync(client.flush(), { code: 'timed-out' });
  const pending = t.throwsAsync(other.flush(), { code: 'device-gone' });
  while (server.server.clients('scripted').length > 1) await new Promise(setImmediate);
  await server.stop();
  await pending;
  await t.throwsAsync(NbdClient.connect(server.address('scripted')), { code: 'device-gone' });

  const directory = mkdtempSync(join(tmpdir(), 'tidemark-nbd-'));
  const path = join(directory, 's');
  const rubbish = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')).listen(path);
  await once(rubbish, 'listening');
  const address = { kind: 'unix', path, exportName: '', tls: false } as const;
  await t.throwsAsync(NbdClient.connect(address), { code: 'device-failed' });
  rubbish.close();
  const silent = createServer(() => {}).listen(path);
  await once(silent, 'listening');
  await t.throwsAsync(NbdClient.connect(address, { connectTimeoutMs: 50 }), { code: 'timed-out' });
  silent.close();
  rmSync(directory, { recursive: true, force: true });
});

test('the client: a read with a gap, an overlap or too little is an error, never old bytes', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-nbd-'));
  const path = join(directory, 's');
  const disk = new DeviceExport(new MemoryDevice(MIB), { name: 'disk' });
  let chunks: [number, number][] = [];
  /** A server that negotiates as ours and answers any request with the chunks a case asks for. */
  const liar = createServer((socket) => {
    const negotiation = new Negotiation({ list: () => [disk], find: () => disk }, 'off', NBD_LIMITS);
    socket.write(negotiation.greeting());
    socket.on('error', () => {});
    let serving = false;
    socket.on('data', (bytes) => {
      if (serving) {
        const parts = chunks.map(([at, length], i) => {
          const chunk = Buffer.alloc(28 + length, 7);
          encodeDataChunk(
            new DataView(chunk.buffer, chunk.byteOffset),
            0,
            i === chunks.length - 1,
            0,
            bytes.readUInt32BE(12),
            at,
            length,
          );
          return chunk;
        });
        socket.write(Buffer.concat(parts));
        return;
      }
      for (let rest = bytes; rest.length > 0; ) {
        const step = negotiation.step(rest);
        rest = rest.subarray(step.consumed);
        for (const part of step.send) socket.write(part);
        if (step.event?.kind !== 'enter') continue;
        for (const part of step.event.accept) socket.write(part);
        serving = true;
      }
    });
  }).listen(path);
  await once(liar, 'listening');
  const cases: [boolean, [number, number][]][] = [
    [true, [[0, 4096]]],
    [
      true,
      [
        [2048, 2048],
        [0, 2048],
      ],
    ],
    [false, [[0, 2048]]],
    [
      false,
      [
        [0, 2048],
        [0, 2048],
      ],
    ],
    [
      false,
      [
        [0, 1024],
        [2048, 2048],
      ],
    ],
    [false, [[4096, 512]]],
    [false, [[2048, 4096]]],
  ];
  for (const [honest, sent] of cases) {
    chunks = sent;
    const client = await NbdClient.connect({ kind: 'unix', path, exportName: 'disk', tls: false });
    const read = client.read(0, Buffer.alloc(4096));
    if (honest) {
      await t.notThrowsAsync(read);
      await client.close();
    } else {
      await t.throwsAsync(read, { code: 'device-failed' }, JSON.stringify(sent));
      await t.throwsAsync(client.flush(), { code: 'device-failed' });
    }
  }
  liar.close();
  rmSync(directory, { recursive: true, force: true });
});
