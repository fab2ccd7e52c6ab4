import { connect, type Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { DeviceExport } from '../../daemon/nbd/device-export.ts';
import { NBD_LIMITS } from '../../daemon/nbd/limits.ts';
import { MemoryDevice } from '../doubles/memory-device.ts';
import { option, RawClient, request, startServer, type TestServer } from './support.ts';

const MIB = 1024 * 1024;
/** Slab and reply buffer of one connection, and what TLS or a spill may add. */
const CONNECTION_BYTES = 1 * MIB;

/** A client with nothing wrong: each of its requests is answered before the next, and the bytes are right. */
async function workHonestly(t: ExecutionContext, client: RawClient, rounds: number, beside: () => void): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    beside();
    const payload = Buffer.alloc(4096, (round % 255) + 1);
    client.write(request(1, round, (round % 64) * 4096, 4096, { payload }));
    t.deepEqual(await client.simpleReply(), { errno: 0, cookie: round });
    client.write(request(0, round, (round % 64) * 4096, 4096));
    t.is((await client.simpleReply()).errno, 0);
    if (!(await client.read(4096)).equals(payload)) t.fail(`round ${round} read other bytes`);
  }
}

async function openServer(): Promise<{ server: TestServer; honest: RawClient }> {
  const server = await startServer({
    exports: [
      new DeviceExport(new MemoryDevice(MIB), { name: 'honest' }),
      new DeviceExport(new MemoryDevice(16 * MIB), { name: 'other' }),
    ],
  });
  const honest = new RawClient(server.socketPath);
  await honest.go('honest');
  return { server, honest };
}

/** Bytes of buffers above `before`. */
function grown(before: number): number {
  return process.memoryUsage().arrayBuffers - before;
}

test.serial(
  '5,000 idle connections: a hundred are held, the others are refused without costing anything',
  async (t) => {
    const { server, honest } = await openServer();
    const before = process.memoryUsage().arrayBuffers;
    const idle: Socket[] = [];
    let refused = 0;
    let most = 0;
    const wave = async (count: number): Promise<void> => {
      // Held: the server greets; refused: it closes.
      await Promise.all(
        Array.from({ length: count }, async () => {
          const { promise, resolve } = Promise.withResolvers<void>();
          const socket = connect(server.socketPath);
          socket.on('error', () => {});
          socket.on('close', () => {
            refused += 1;
            resolve();
          });
          socket.once('data', () => resolve());
          idle.push(socket);
          await promise;
        }),
      );
      most = Math.max(most, grown(before));
    };
    for (let sent = 0; sent < 5000; sent += 200) {
      await Promise.all([wave(200), workHonestly(t, honest, 5, () => {})]);
      t.true(server.server.clients().length <= NBD_LIMITS.connectionsMax);
    }
    t.is(idle.length, 5000);
    t.true(refused >= 5000 - NBD_LIMITS.connectionsMax, `${refused} were refused`);
    t.true(most < NBD_LIMITS.connectionsMax * CONNECTION_BYTES, `${most} bytes for idle connections`);
    await workHonestly(t, honest, 50, () => {});
    for (const socket of idle) socket.destroy();
    while (server.server.clients().length > 1) await turn();
    const late = new RawClient(server.socketPath);
    await late.go('other');
    late.socket.destroy();
    honest.socket.destroy();
    await server.stop();
  },
);

test.serial('clients that send a byte at a time, in handshake and in requests, hold nobody up', async (t) => {
  const { server, honest } = await openServer();
  const before = process.memoryUsage().arrayBuffers;
  const handshake = Buffer.concat([
    Buffer.from([0, 0, 0, 3]),
    option(7, Buffer.from([0, 0, 0, 5, ...Buffer.from('other'), 0, 0])),
  ]);
  const write = request(1, 7, 0, 512, { payload: Buffer.alloc(512, 9) });
  const slow: { client: RawClient; bytes: Buffer; sent: number }[] = [];
  for (let i = 0; i < 40; i++) {
    const client = new RawClient(server.socketPath);
    const inRequest = i % 2 === 0;
    if (inRequest) await client.go('other');
    else await client.read(18);
    slow.push({ client, bytes: inRequest ? write : handshake, sent: 0 });
  }
  await workHonestly(t, honest, write.length, () => {
    for (const one of slow) {
      if (one.sent < one.bytes.length) one.client.write(one.bytes.subarray(one.sent, one.sent + 1));
      one.sent += 1;
    }
  });
  t.true(grown(before) < slow.length * CONNECTION_BYTES, `${grown(before)} bytes for slow clients`);
  for (const [i, { client }] of slow.entries()) {
    if (i % 2 === 0) t.deepEqual(await client.simpleReply(), { errno: 0, cookie: 7 });
    else t.is((await client.optionReply()).type, 3);
    client.socket.destroy();
  }
  honest.socket.destroy();
  await server.stop();
});

test.serial('clients that never read their replies are held up themselves, and nobody else', async (t) => {
  const { server, honest } = await openServer();
  const before = process.memoryUsage().arrayBuffers;
  const deaf: RawClient[] = [];
  const asked = Buffer.concat(Array.from({ length: 400 }, (_, i) => request(0, i, (i % 128) * 131_072, 131_072)));
  for (let i = 0; i < 12; i++) {
    const client = new RawClient(server.socketPath);
    await client.go('other');
    client.socket.pause();
    client.write(asked);
    deaf.push(client);
  }
  let most = 0;
  await workHonestly(t, honest, 300, () => {
    most = Math.max(most, grown(before));
  });
  // 400 x 128 KiB were asked for by each; what is held back is the bound of one connection.
  const bound = deaf.length * (NBD_LIMITS.outputBytesMax + NBD_LIMITS.readBytesMax + 2 * CONNECTION_BYTES);
  t.true(most < bound && bound < (deaf.length * 400 * 131_072) / 3, `${most} bytes for clients that do not read`);
  for (const client of deaf) client.socket.destroy();
  while (server.server.clients().length > 1) await turn();
  await workHonestly(t, honest, 20, () => {});
  honest.socket.destroy();
  await server.stop();
});
