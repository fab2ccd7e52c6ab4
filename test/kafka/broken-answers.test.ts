import net, { type AddressInfo } from 'node:net';
import test from 'ava';
import { KafkaLog } from '../../daemon/stream/kafka/kafka-log.ts';
import { hasCode } from '../../journal/base/errors.ts';

/* A broker, or what stands between, that answers with something else: the connection ends, never the process. */

function lengthOf(bytes: number): Buffer {
  const length = Buffer.alloc(4);
  length.writeInt32BE(bytes);
  return length;
}

const ANSWERS: readonly (readonly [string, Buffer])[] = [
  ['an answer too short for its number', Buffer.concat([lengthOf(2), Buffer.alloc(2)])],
  ['an empty answer', lengthOf(0)],
  ['an answer of a negative length', Buffer.concat([lengthOf(-5), Buffer.alloc(64)])],
  ['an answer of two gigabytes', lengthOf(0x7fffffff)],
  ['an answer to nobody, and half of another', Buffer.concat([lengthOf(8), Buffer.alloc(8, 7), lengthOf(8)])],
  ['another protocol', Buffer.from('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n')],
];

for (const [name, answer] of ANSWERS) {
  test(`${name} is a stream that cannot be reached`, async (t) => {
    let ended = 0;
    const server = net.createServer((socket) => {
      socket.once('data', () => socket.write(answer));
      socket.on('close', () => ended++);
      socket.on('error', () => {});
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    t.teardown(() => server.close());
    const { port } = server.address() as AddressInfo;
    const log = new KafkaLog({ brokers: [`127.0.0.1:${port}`], clientId: 't', connectTimeoutMs: 1_000 });
    const admin = log.admin();
    const began = performance.now();
    for (let attempt = 0; attempt < 2; attempt++) {
      const error = await t.throwsAsync(admin.describe('topic'));
      t.true(hasCode(error, 'stream-unavailable'), String(error));
      admin.reset();
    }
    admin.close();
    // less than the library waits for one answer
    t.true(performance.now() - began < 30_000);
    while (ended < 2) await new Promise((resolve) => setTimeout(resolve, 10));
  });
}
