import { crc32c } from '@node-rs/crc32';
import { Packr } from 'msgpackr';
import { decodeShipState, encodeShipState } from '../../../daemon/ship/ship-state.ts';
import * as direct from '../../../daemon/stream/direct/direct-protocol.ts';
import { decodeFeedback, encodeFeedback, FEEDBACK_CRC_BYTES } from '../../../daemon/stream/kafka/feedback-codec.ts';
import { decodeLogDirsResponse } from '../../../daemon/stream/kafka/log-dirs-codec.ts';
import { decodeMetadataResponse } from '../../../daemon/stream/kafka/metadata-codec.ts';
import { formatStreamOffset, parseStreamOffset } from '../../../daemon/stream/kafka/stream-offset.ts';
import { TidemarkError } from '../../../journal/base/errors.ts';
import type { ReplicaFeedback } from '../../../journal/stream.ts';
import { type FuzzTarget, must, words } from '../target.ts';
import { smallFrames } from './frames.ts';

const GROUP = 'ab'.repeat(16);
const { MessageType } = direct;
const packr = new Packr({ useRecords: false });

const FEEDBACK: ReplicaFeedback = {
  replica: 'b',
  groupId: GROUP,
  epoch: 1,
  incarnation: 2,
  durableLsn: 77,
  chain: '0123456789abcdef',
  state: 'receiving',
  reason: '',
  missingFrom: 0,
  heartbeatMs: 12.5,
  resumeOffset: '5@00',
};
const KEYS = ['protocol', 'frameVersion', 'groupId', 'durableLsn', 'windowBytes', 'feedback', 'chain', 'code', 'lsn'];
const MSGPACK = [
  '\xdf\xff\xff\xff\xff',
  '\xdd\x7f\xff\xff\xff',
  '\xc6\x7f\xff\xff\xff',
  '\xc9\0\0\0\x01',
  '\xcb',
  '\xcf',
  '\xd4r',
];

/** As a broker answers, each topic with its partition 0. */
export function logDirsResponse(directories: { error: number; topics: [name: string, bytes: bigint][] }[]): Buffer {
  const list = (items: Buffer[]): Buffer => Buffer.concat([Buffer.from([items.length + 1]), ...items]);
  const text = (value: string): Buffer => Buffer.concat([Buffer.from([value.length + 1]), Buffer.from(value)]);
  const noTags = Buffer.from([0]);
  const partition = (bytes: bigint): Buffer => {
    const fields = Buffer.alloc(4 + 8 + 8 + 1 + 1);
    fields.writeBigInt64BE(bytes, 4);
    return fields;
  };
  const all = directories.map(({ error, topics }) => {
    const named = topics.map(([name, bytes]) => Buffer.concat([text(name), list([partition(bytes)]), noTags]));
    return Buffer.concat([Buffer.from([0, error]), text('/data'), list(named), noTags]);
  });
  return Buffer.concat([Buffer.alloc(1 + 4), list(all), noTags]);
}

const hello = direct.helloBody({
  groupId: GROUP,
  groupName: 'shop',
  epoch: 1,
  incarnation: { counter: 1, nonce: '1'.repeat(16) },
  frameVersion: 1,
});
const welcome = { protocol: 1, frameVersion: 1, replica: 'b', durableLsn: 5, windowBytes: 2 ** 24, feedback: FEEDBACK };

function readBody({ type, body }: direct.Message): unknown {
  if (type === MessageType.hello) return direct.readHello(body);
  if (type === MessageType.welcome) return direct.readWelcome(body);
  if (type === MessageType.refuse || type === MessageType.fetchEnd) return direct.readRefusal(body);
  if (type === MessageType.feedback || type === MessageType.settled) return direct.readFeedback(body);
  return type === MessageType.fetch ? direct.readLsn(body) : body.length;
}

function messagesOf(input: Uint8Array, piece: number): string[] {
  const parser = new direct.MessageParser();
  const seen: string[] = [];
  const take = (message: direct.Message): boolean => {
    seen.push(`${message.type} ${message.tag} ${JSON.stringify(readBody(message))}`);
    return true;
  };
  try {
    for (let at = 0; at < input.length; at += piece) parser.push(input.subarray(at, at + piece), take);
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    seen.push(error.message);
  }
  return seen;
}

export const directMessages: FuzzTarget = {
  name: 'direct-messages',
  testRuns: 40_000,
  // The body of a frame: 4 MiB once its header is checked, for each of both ways of cutting.
  allocatedBytesMax: 2 * 4 * 1024 * 1024 + 65_536,
  inputBytesMax: 12_000,
  words: words('TD', ...KEYS, ...MSGPACK),
  seeds: () => {
    const [first] = smallFrames(20, 1);
    const body = first ?? new Uint8Array(0);
    return [
      Buffer.concat([
        direct.encodeMessage(MessageType.hello, 0, hello),
        direct.encodeMessage(MessageType.taken, 4),
        direct.encodeMessage(MessageType.fetch, 1, { lsn: 9 }),
        direct.encodeMessage(MessageType.alive, 0),
      ]),
      Buffer.concat([
        direct.encodeMessage(MessageType.welcome, 0, welcome),
        direct.encodeHeader(MessageType.frame, 0, body),
        body,
      ]),
      direct.encodeMessage(MessageType.feedback, 0, FEEDBACK),
      direct.encodeMessage(MessageType.refuse, 0, { code: 'gap', reason: 'x' }),
      direct.encodeMessage(MessageType.settled, 3, FEEDBACK),
    ];
  },
  fix: (input) => {
    const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
    for (let at = 0; at + 20 <= input.length; ) {
      const length = Math.min(view.getUint32(at + 8, true), input.length - at - 20);
      const carries = input[at + 2] === MessageType.frame || input[at + 2] === MessageType.fetched;
      view.setUint32(at + 12, carries || length === 0 ? 0 : crc32c(input.subarray(at + 20, at + 20 + length)), true);
      view.setUint32(at + 16, crc32c(input.subarray(at, at + 16)), true);
      at += 20 + length;
    }
  },
  run: (input) => {
    const whole = messagesOf(input, Math.max(1, input.length));
    const pieces = messagesOf(input, 1 + (input.length % 41));
    must(whole.join('\n') === pieces.join('\n'), 'it does not matter how bytes arrive');
    if (whole.length === 1) throw new TidemarkError('stream-unavailable', whole[0]!.slice(0, 60));
  },
};

/** A body by itself: the first byte says of which message. */
export const directBodies: FuzzTarget = {
  name: 'direct-bodies',
  testRuns: 60_000,
  words: words(...KEYS, ...MSGPACK),
  seeds: () =>
    [hello, welcome, { code: 'gap', reason: 'x' }, FEEDBACK, { lsn: 5 }].map((body, i) =>
      Buffer.concat([Buffer.from([[1, 2, 3, 5, 6][i] ?? 6, i]), packr.pack(body)]),
    ),
  run: (input) => {
    const type = (input[0] ?? 0) % 15;
    readBody({ type: (type === 0 ? 6 : type) as direct.MessageType, tag: 0, body: input.subarray(2) });
  },
};

export const feedbackBody: FuzzTarget = {
  name: 'kafka-feedback',
  testRuns: 60_000,
  words: words(...Object.keys(FEEDBACK), 'needs-resync', ...MSGPACK),
  seeds: () => [encodeFeedback(FEEDBACK), encodeFeedback({ ...FEEDBACK, state: 'diverged', heartbeatMs: 0 })],
  fix: (input) => {
    const at = input.length - FEEDBACK_CRC_BYTES;
    if (at < 0) return;
    const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
    view.setUint32(at, crc32c(input.subarray(0, at)), true);
  },
  run: (input) => {
    const feedback = decodeFeedback(`${GROUP}/b`, input, GROUP);
    if (feedback === undefined) throw new TidemarkError('invalid-argument', 'no feedback');
    const again = decodeFeedback(`${GROUP}/b`, encodeFeedback(feedback), GROUP);
    must(JSON.stringify(again) === JSON.stringify(feedback), 'a feedback is written as it was read');
    const offset = parseStreamOffset(feedback.resumeOffset);
    if (offset !== undefined)
      must(parseStreamOffset(formatStreamOffset(offset))?.offset === offset.offset, 'an offset');
  },
};

export const kafkaMetadata: FuzzTarget = {
  name: 'kafka-metadata',
  testRuns: 60_000,
  words: words('\xff\xff\xff\xff\x0f', '\xff\xff\xff\xff\x7f', 'topic'),
  seeds: () => {
    const int32 = (value: number): Buffer => {
      const bytes = Buffer.alloc(4);
      bytes.writeInt32BE(value);
      return bytes;
    };
    const replicas = Buffer.concat([Buffer.from([2]), int32(1)]);
    const partition = Buffer.concat([
      Buffer.alloc(2),
      int32(0),
      int32(1),
      int32(5),
      replicas,
      replicas,
      Buffer.from([1, 0]),
    ]);
    const topic = (error: number): Buffer =>
      Buffer.concat([
        Buffer.from([0, error, 6]),
        Buffer.from('topic'),
        Buffer.alloc(16, 7),
        Buffer.from([0, 2]),
        partition,
        int32(-1),
        Buffer.from([0]),
      ]);
    const broker = Buffer.concat([int32(1), Buffer.from([5]), Buffer.from('host'), int32(9092), Buffer.from([0, 0])]);
    return [0, 3, 29, 5].map((error) =>
      Buffer.concat([
        Buffer.from([0]),
        int32(0),
        Buffer.from([2]),
        broker,
        Buffer.from([3]),
        Buffer.from('id'),
        int32(1),
        Buffer.from([2]),
        topic(error),
        int32(0),
        Buffer.from([0]),
      ]),
    );
  },
  run: (input) => {
    decodeMetadataResponse(Buffer.from(input), 'topic');
  },
};

export const kafkaLogDirs: FuzzTarget = {
  name: 'kafka-log-dirs',
  testRuns: 60_000,
  words: words('\xff\xff\xff\xff\x0f', '\xff\xff\xff\xff\x7f', 'topic', '\x7f\xff\xff\xff\xff\xff\xff\xff'),
  seeds: () => [
    logDirsResponse([]),
    logDirsResponse([{ error: 0, topics: [['topic', 4096n]] }]),
    logDirsResponse([
      { error: 56, topics: [] },
      {
        error: 0,
        topics: [
          ['other', 1n],
          ['topic', 2n ** 40n],
        ],
      },
    ]),
  ],
  run: (input) => {
    const bytes = decodeLogDirsResponse(Buffer.from(input), 'topic');
    must(bytes === undefined || (Number.isSafeInteger(bytes) && bytes >= 0), 'a size is a number of bytes, or unknown');
  },
};

export const shipState: FuzzTarget = {
  name: 'ship-state',
  testRuns: 40_000,
  words: words('TMS1'),
  seeds: () => [
    encodeShipState(
      GROUP,
      [1, 2, 3].map((i) => ({ lsn: i * 10, address: i * 4096, chain: { low: i, high: 2 ** 31 + i } })),
    ),
    encodeShipState(GROUP, []),
  ],
  fix: (input) => {
    if (input.length < 32) return;
    const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
    view.setUint32(28, 0, true);
    view.setUint32(28, crc32c(input), true);
  },
  run: (input) => {
    const again = encodeShipState(GROUP, decodeShipState(input, GROUP));
    must(Buffer.from(again).equals(input), 'ship.state is written as it was read');
  },
};
