import { ClientNegotiation } from '../../../daemon/nbd/client-negotiation.ts';
import { encodeOption, encodeOptionReply } from '../../../daemon/nbd/handshake-step.ts';
import { NBD_LIMITS } from '../../../daemon/nbd/limits.ts';
import { Negotiation, type TlsMode } from '../../../daemon/nbd/negotiation.ts';
import { TidemarkError } from '../../../journal/base/errors.ts';
import { ScriptedExport } from '../../doubles/scripted-export.ts';
import { type FuzzTarget, must, words } from '../target.ts';

const disk = new ScriptedExport();
const catalogue = {
  list: () => [disk],
  find: (name: string) => (name === disk.name || name === '' ? disk : undefined),
};
const TLS: readonly TlsMode[] = ['off', 'offered', 'required'];
const STEPS_MAX = 100_000;

interface Trace {
  readonly sent: Uint8Array[];
  readonly events: string[];
  readonly consumed: number;
}

interface Haggler {
  step(bytes: Uint8Array): {
    readonly consumed: number;
    readonly send: readonly Uint8Array[];
    readonly event: { readonly kind: string } | undefined;
  };
  secured(): Uint8Array | void;
}

/** Shows the bytes as a connection would that receives `piece` bytes at a time. */
function haggle(side: Haggler, bytes: Uint8Array, piece: number): Trace {
  const sent: Uint8Array[] = [];
  const events: string[] = [];
  let at = 0;
  let steps = 0;
  for (let received = 0; received < bytes.length; ) {
    received = Math.min(bytes.length, received + piece);
    for (;;) {
      steps += 1;
      must(steps < STEPS_MAX, 'a handshake ends');
      const step = side.step(bytes.subarray(at, received));
      must(step.consumed >= 0 && at + step.consumed <= received, 'no more is taken than was shown');
      at += step.consumed;
      sent.push(...step.send);
      if (step.event === undefined) {
        if (step.consumed === 0) break;
        continue;
      }
      events.push(step.event.kind);
      if (step.event.kind !== 'start-tls') return { sent, events, consumed: at };
      const first = side.secured();
      if (first !== undefined) sent.push(first);
    }
  }
  return { sent, events, consumed: at };
}

function same(one: Trace, other: Trace): boolean {
  return (
    one.consumed === other.consumed &&
    one.events.join() === other.events.join() &&
    Buffer.concat(one.sent).equals(Buffer.concat(other.sent))
  );
}

const name = Buffer.from(disk.name);
const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};
const context = Buffer.from('base:allocation');
const flags = Buffer.from([0, 0, 0, 3]);
const infoData = Buffer.concat([u32(name.length), name, Buffer.from([0, 2, 0, 3, 0, 1])]);
const metaData = Buffer.concat([u32(name.length), name, u32(1), u32(context.length), context]);
const none = Buffer.alloc(0);

/** First byte: which mode of TLS the server has. */
export const nbdServerHandshake: FuzzTarget = {
  name: 'nbd-handshake-server',
  testRuns: 30_000,
  inputBytesMax: 40_000,
  words: [...words('IHAVEOPT', 'scripted', 'base:allocation', 'base:'), encodeOption(7, infoData)],
  allocatedBytesMax: 3 * NBD_LIMITS.handshakeReplyBytesMax,
  seeds: () =>
    [0, 1, 2].map((mode) =>
      Buffer.concat([
        Buffer.from([mode]),
        flags,
        encodeOption(3, none),
        encodeOption(5, none),
        encodeOption(8, none),
        encodeOption(9, metaData),
        encodeOption(10, metaData),
        encodeOption(6, infoData),
        encodeOption(mode === 1 ? 1 : 7, mode === 1 ? name : infoData),
      ]),
    ),
  run: (input) => {
    const mode = TLS[(input[0] ?? 0) % 3]!;
    const bytes = input.subarray(1);
    const whole = haggle(new Negotiation(catalogue, mode, NBD_LIMITS), bytes, Number.MAX_SAFE_INTEGER);
    const sent = whole.sent.reduce((sum, part) => sum + part.length, 0);
    must(sent <= NBD_LIMITS.handshakeReplyBytesMax + 65_536, 'replies are bounded');
    must(mode !== 'required' || !whole.events.includes('enter') || whole.events[0] === 'start-tls', 'FORCEDTLS holds');
    const pieces = haggle(new Negotiation(catalogue, mode, NBD_LIMITS), bytes, 1 + (bytes.length % 13));
    must(same(whole, pieces), 'it does not matter how bytes arrive');
  },
};

/** First byte, lowest bit: the client wants TLS. */
export const nbdClientHandshake: FuzzTarget = {
  name: 'nbd-handshake-client',
  testRuns: 30_000,
  words: words('NBDMAGIC', 'IHAVEOPT', 'base:allocation', '\0\x03\xe8\x89\x04\x55\x65\xa9'),
  seeds: () => {
    const greeting = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), Buffer.from([0, 3])]);
    const size = Buffer.from([0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 1, 0x6d]);
    const blocks = Buffer.from([0, 3, 0, 0, 2, 0, 0, 0, 16, 0, 2, 0, 0, 0]);
    const answers = [
      encodeOptionReply(8, 1),
      encodeOptionReply(10, 4, Buffer.concat([u32(1), context])),
      encodeOptionReply(10, 1),
      encodeOptionReply(7, 3, size),
      encodeOptionReply(7, 3, blocks),
      encodeOptionReply(7, 1),
    ];
    return [
      Buffer.concat([Buffer.from([0]), greeting, ...answers]),
      Buffer.concat([Buffer.from([1]), greeting, encodeOptionReply(5, 1), ...answers]),
      Buffer.concat([Buffer.from([0]), greeting, encodeOptionReply(8, 0x8000_0005, Buffer.from('tls'))]),
    ];
  },
  run: (input) => {
    const tls = ((input[0] ?? 0) & 1) === 1;
    const bytes = input.subarray(1);
    const [whole, pieces] = [Number.MAX_SAFE_INTEGER, 1 + (bytes.length % 13)].map((piece) =>
      outcome(bytes, tls, piece),
    );
    if (whole === undefined || pieces === undefined) return;
    const what = `it does not matter how bytes arrive: ${whole.refusal?.message}, ${pieces.refusal?.message}`;
    must(whole.refusal?.message === pieces.refusal?.message, what);
    if (whole.refusal !== undefined) throw whole.refusal;
    must(same(whole.trace, pieces.trace), what);
  },
};

interface Outcome {
  readonly trace: Trace;
  readonly refusal: TidemarkError | undefined;
}

function outcome(bytes: Uint8Array, tls: boolean, piece: number): Outcome {
  try {
    return { trace: haggle(new ClientNegotiation('disk', tls), bytes, piece), refusal: undefined };
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    return { trace: { sent: [], events: [], consumed: 0 }, refusal: error };
  }
}
