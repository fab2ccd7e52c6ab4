import { randomBytes, randomInt } from 'node:crypto';
import { connect, type NetConnectOpts } from 'node:net';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import { DIRECT_PROTOCOL, encodeMessage, type Hello, MessageType } from '../../daemon/stream/direct/direct-protocol.ts';
import type { KafkaLog } from '../../daemon/stream/kafka/kafka-log.ts';
import { CHAIN_START } from '../../journal/chain.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import { FrameSealer } from '../../journal/frame-sealer.ts';
import { RecordKind } from '../../journal/record.ts';
import type { Incarnation } from '../../journal/stream.ts';
import { option, request } from '../nbd/support.ts';

const BLOCK_BYTES = 4096;
const AT_ONCE = 24;
/** So long rubbish waits for an end to close on it; then it goes by itself. */
const PATIENCE_MS = 150;

/** A copy with one to three bytes changed. */
export function spoil(bytes: Uint8Array): Buffer {
  const copy = Buffer.from(bytes);
  const first = randomInt(copy.length);
  for (let change = 0; change < 1 + randomInt(3); change += 1) {
    const at = (first + change * 13) % copy.length;
    copy.writeUInt8(copy.readUInt8(at) ^ (1 + randomInt(255)), at);
  }
  return copy;
}

/** The first part of it, never all. */
export function cut(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.subarray(0, randomInt(bytes.length)));
}

/** Client flags, GO for the export, then requests of every kind and some of none. */
function nbdConversation(exportName: string): Buffer {
  const name = Buffer.from(exportName);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(name.length);
  const requests = Array.from({ length: 4 }, (_, cookie) => {
    const bytes = 512 * randomInt(1, 64);
    const payload = randomBytes(bytes);
    return request(1 + randomInt(7), cookie, 512 * randomInt(4096), bytes, randomInt(2) === 0 ? {} : { payload });
  });
  return Buffer.concat([
    Buffer.from([0, 0, 0, 3]),
    ...(randomInt(2) === 0 ? [option(8, Buffer.alloc(0))] : []),
    option(7, Buffer.concat([length, name, Buffer.from([0, 0])])),
    ...requests,
  ]);
}

/** What a broken or hostile NBD client may send; whatever of it takes effect does so on the volume `exportName`. */
export function nbdRubbish(exportName: string): Buffer {
  const kind = randomInt(4);
  if (kind === 0) return randomBytes(1 + randomInt(4096));
  const conversation = nbdConversation(exportName);
  if (kind === 1) return cut(conversation);
  if (kind === 2) return spoil(conversation);
  return Buffer.concat([conversation, randomBytes(1 + randomInt(2048))]);
}

/** What a broken or foreign source may send to a replica. */
export function directRubbish(groupName: string): Buffer {
  const hello: Hello = {
    protocol: DIRECT_PROTOCOL,
    groupId: randomBytes(16).toString('hex'),
    groupName,
    epoch: 1,
    incarnation: { counter: randomInt(1, 1000), nonce: randomBytes(8).toString('hex') },
    frameVersion: FRAME_VERSION,
  };
  const message = Buffer.from(encodeMessage(MessageType.hello, 0, hello));
  switch (randomInt(6)) {
    case 0:
      return randomBytes(1 + randomInt(4096));
    case 1:
      return cut(message);
    case 2:
      return spoil(message);
    case 3:
      // Well-formed, of a group that is not ours or of none.
      return randomInt(2) === 0
        ? message
        : Buffer.from(encodeMessage(MessageType.hello, 0, { ...hello, groupName: 7 }));
    case 4:
      // Messages nobody sends first.
      return Buffer.from(encodeMessage(randomInt(2) === 0 ? MessageType.frame : MessageType.settle, randomInt(9)));
    default:
      return Buffer.concat([message, randomBytes(1 + randomInt(2048))]);
  }
}

/** Opens so many connections, sends rubbish on each, and lets go of it or waits to be dropped. */
export async function pelt(to: NetConnectOpts, count: number, rubbish: () => Buffer): Promise<void> {
  let left = count;
  const worker = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      await throwOnce(to, rubbish());
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

function throwOnce(to: NetConnectOpts, bytes: Buffer): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(to);
    socket.on('error', () => {});
    socket.on('close', () => resolve());
    socket.resume();
    socket.write(bytes, () => {
      if (randomInt(3) > 0) socket.end();
      socket.setTimeout(PATIENCE_MS, () => socket.destroy());
    });
  });
}

/** Writes `count` random blocks and reads each tenth back; the model is what the disk must hold. */
export async function workOn(uri: string, model: Buffer, count: number): Promise<void> {
  const disk = await NbdClient.connect(parseNbdUri(uri));
  const got = Buffer.alloc(BLOCK_BYTES);
  for (let index = 0; index < count; index += 1) {
    const offset = randomInt(model.length / BLOCK_BYTES) * BLOCK_BYTES;
    const block = randomBytes(BLOCK_BYTES);
    await disk.write(offset, block);
    block.copy(model, offset);
    if (index % 10 !== 0) continue;
    await disk.read(offset, got);
    if (!got.equals(block)) throw new Error(`write ${index} at ${offset} reads back as other bytes`);
    if (index % 50 === 0) await disk.flush();
  }
  await disk.flush();
  await disk.close();
}

/** A frame that is whole in itself: who made it is what is wrong with it. */
export function frameOf(groupId: string, incarnation: Incarnation, firstLsn: number): Uint8Array {
  const sealer = new FrameSealer({ groupId, epoch: 1, incarnation });
  sealer.begin(firstLsn, CHAIN_START);
  const payload = randomBytes(BLOCK_BYTES);
  sealer.add({
    lsn: firstLsn,
    kind: RecordKind.write,
    flags: 0,
    volume: 1,
    sector: 0,
    sectors: BLOCK_BYTES / 512,
    requestId: 0,
    time: Date.now() * 1000,
    payload,
  });
  return sealer.seal(firstLsn).bytes;
}

/** Every record of a topic. */
export async function readTopic(log: KafkaLog, topic: string): Promise<{ key: string; value: Uint8Array }[]> {
  const reader = log.reader(topic);
  const found: { key: string; value: Uint8Array }[] = [];
  try {
    const bounds = await reader.bounds();
    if (bounds === undefined) return found;
    for (let next = bounds.start; next < bounds.end; ) {
      const { records } = await reader.read(next, 8 * 1024 * 1024, 500);
      for (const { key, value, offset } of records) {
        found.push({ key, value });
        next = offset + 1n;
      }
      // A compacted topic ends with offsets that hold nothing.
      if (records.length === 0) break;
    }
    return found;
  } finally {
    reader.close();
  }
}
