import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import type { ConnectionTimes } from '../../daemon/stream/direct/direct-connection.ts';
import { DirectListener } from '../../daemon/stream/direct/direct-listener.ts';
import { encodeMessage, type Message, MessageParser, MessageType } from '../../daemon/stream/direct/direct-protocol.ts';
import { DirectSink } from '../../daemon/stream/direct/direct-sink.ts';
import { TcpDialer, type TcpDialerTls, TcpListener, type TcpListenerTls } from '../../daemon/stream/direct/tcp-wire.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { readFrameHeader } from '../../journal/frame-codec.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { type StreamStage, streamContract } from '../contract/stream-contract.ts';
import { ReplicaEnd, SourceEnd, TestHistory } from '../contract/stream-ends.ts';
import { FaultyDialer } from './test-wires.ts';

const GROUP_ID = 'd1d2d3d4d5d6d7d8d9dadbdcdddedfd0';
const WINDOW_BYTES = 4 * 1024 * 1024;
const TIMES = { aliveMs: 500, deadAfterMs: 10_000 };
const IMPATIENT = { aliveMs: 50, deadAfterMs: 600 };

interface DirectStage extends StreamStage {
  readonly dialer: FaultyDialer;
  readonly listener: DirectListener;
  readonly address: string;
}

interface Secrets {
  readonly dialer: TcpDialerTls;
  readonly listener: TcpListenerTls;
}

async function openStage(tls?: Secrets, times: ConnectionTimes = TIMES): Promise<DirectStage> {
  const host = realHost();
  const tcp = new TcpListener('127.0.0.1', 0, tls?.listener);
  const listener = new DirectListener(host.clock, { listener: tcp, windowBytes: WINDOW_BYTES, times });
  const address = await listener.listen();
  const dialer = new FaultyDialer(new TcpDialer('127.0.0.1', Number(address.split(':')[1]), tls?.dialer));
  return {
    groupId: GROUP_ID,
    replica: 'dr1',
    windowBytes: WINDOW_BYTES,
    dialer,
    listener,
    address,
    sink: () => new DirectSink(host, { replica: 'dr1', dialer, times, retryMinMs: 10, retryMaxMs: 100 }),
    source: () => listener.source({ groupName: 'contract', groupId: GROUP_ID }),
    interrupt: () => dialer.cut(),
    close: () => listener.close(),
  };
}

/** A CA, and a certificate by it for each end; `stranger` is by another CA. */
function makeSecrets(): Secrets & { stranger: TcpDialerTls } {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-tls-'));
  const openssl = (...args: string[]): void => {
    execFileSync('openssl', args, { cwd: directory, stdio: 'ignore' });
  };
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const issue = (name: string, ca: string): { certificate: Buffer; key: Buffer } => {
    openssl('req', '-x509', ...key, '-subj', `/CN=${ca}`, '-keyout', `${ca}.key`, '-out', `${ca}.pem`, '-days', '2');
    return issueBy(name, ca);
  };
  const issueBy = (name: string, ca: string): { certificate: Buffer; key: Buffer } => {
    const subject = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost'];
    openssl(
      'req',
      '-x509',
      ...key,
      ...subject,
      '-CA',
      `${ca}.pem`,
      '-CAkey',
      `${ca}.key`,
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.pem`,
      '-days',
      '2',
    );
    return {
      certificate: readFileSync(join(directory, `${name}.pem`)),
      key: readFileSync(join(directory, `${name}.key`)),
    };
  };
  try {
    const replica = issue('replica', 'ca');
    const source = issueBy('source', 'ca');
    const stranger = issue('stranger', 'other');
    const authorities = readFileSync(join(directory, 'ca.pem'));
    return {
      listener: { ...replica, authorities },
      dialer: { ...source, authorities },
      stranger: { ...stranger, authorities },
    };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const secrets = makeSecrets();

streamContract('direct over TCP', () => openStage());
streamContract('direct over TLS', () => openStage(secrets));

test('a source without a certificate of the right authority gets nowhere', async (t) => {
  const stage = await openStage(secrets);
  const history = new TestHistory(GROUP_ID);
  history.grow(5);
  const replica = new ReplicaEnd(stage.source(), history, 'dr1');
  const dialer = new TcpDialer('127.0.0.1', Number(stage.address.split(':')[1]), secrets.stranger);
  const source = new SourceEnd(
    new DirectSink(realHost(), { replica: 'dr1', dialer, retryMinMs: 10, retryMaxMs: 20 }),
    history,
  );
  await source.until(
    'the third attempt failed',
    () => source.statuses.filter((s) => s.state === 'retrying').length >= 3,
  );
  t.is(replica.frames, 0);
  t.deepEqual(source.seeks, []);
  await source.close();
  await replica.close();
  await stage.close();
});

test('an end that falls silent without a word is noticed by both, and the stream mends itself', async (t) => {
  const stage = await openStage(undefined, IMPATIENT);
  const history = new TestHistory(GROUP_ID);
  const replica = new ReplicaEnd(stage.source(), history, 'dr1');
  const source = new SourceEnd(stage.sink(), history);
  history.grow(40);
  source.pump();
  await replica.untilDurable(40);
  stage.dialer.freeze();
  history.grow(40);
  source.pump();
  await replica.untilDurable(80);
  t.true(source.statuses.some((status) => status.reason.includes('nothing was heard')));
  await source.close();
  await replica.close();
  await stage.close();
});

test('a frame damaged on the way is delivered as it came and sent again when asked for', async (t) => {
  const stage = await openStage();
  const history = new TestHistory(GROUP_ID);
  const damaged: number[] = [];
  const inner = stage.source();
  const replica = new ReplicaEnd(
    {
      open: (start, events) =>
        inner.open(start, {
          ...events,
          onFrame: (bytes, offset) => {
            try {
              events.onFrame(bytes, offset);
            } catch (error) {
              if (!(error instanceof TidemarkError)) throw error;
              damaged.push(replica.durableLsn);
              replica.askAgain(replica.durableLsn + 1);
            }
          },
        }),
      pause: () => inner.pause(),
      resume: () => inner.resume(),
      feedback: (feedback) => inner.feedback(feedback),
      status: () => inner.status(),
      close: () => inner.close(),
    },
    history,
    'dr1',
  );
  const source = new SourceEnd(stage.sink(), history);
  history.grow(16);
  source.pump();
  await replica.untilDurable(16);
  stage.dialer.damage(1);
  history.grow(40);
  source.pump();
  await replica.untilDurable(56);
  t.deepEqual(damaged, [16]);
  await source.close();
  await replica.close();
  await stage.close();
});

test('unknown groups, other replicas, newer formats and stale sources are told so by code', async (t) => {
  const stage = await openStage();
  const history = new TestHistory(GROUP_ID);
  const replica = new ReplicaEnd(stage.source(), history, 'dr1');
  const meet = async (edit: {
    groupName?: string;
    groupId?: string;
    frameVersion?: number;
    counter?: number;
    replica?: string;
  }): Promise<string> => {
    const sink = new DirectSink(realHost(), { replica: edit.replica ?? 'dr1', dialer: stage.dialer });
    const status = await new Promise<string>((resolve) => {
      sink.open(
        {
          groupId: edit.groupId ?? GROUP_ID,
          groupName: edit.groupName ?? 'contract',
          epoch: 1,
          incarnation: { counter: edit.counter ?? 5, nonce: '00000000000000aa' },
          frameVersion: edit.frameVersion ?? 1,
        },
        {
          onSeek: () => undefined,
          onReady: () => undefined,
          onAccepted: () => undefined,
          onFeedback: () => undefined,
          onStatus: ({ state, code }) => resolve(`${state} ${code ?? ''}`),
        },
      );
    });
    await sink.close();
    return status;
  };
  const otherId = 'ffffffffffffffffffffffffffffffff';
  t.is(await meet({}), 'streaming ');
  t.is(await meet({ groupName: 'other', groupId: otherId }), 'retrying stream-refused');
  t.is(await meet({ groupId: otherId }), 'stopped frame-foreign');
  t.is(await meet({ frameVersion: 2 }), 'retrying upgrade-replica-first');
  t.is(await meet({ replica: 'dr2' }), 'retrying stream-refused');
  t.is(await meet({ counter: 4 }), 'stopped stale-incarnation');
  await replica.close();
  t.is(await meet({}), 'retrying stream-refused');
  await stage.close();
});

test('settle says nothing as long as nobody answers, and fetch names why it cannot', async (t) => {
  const stage = await openStage();
  const history = new TestHistory(GROUP_ID);
  const source = new SourceEnd(stage.sink(), history);
  await t.throwsAsync(source.sink.settle(50), { code: 'stream-unavailable' });
  const fetch = async (): Promise<void> => {
    for await (const bytes of source.sink.fetch(1, new AbortController().signal)) t.fail(`${bytes.length} bytes came`);
  };
  await t.throwsAsync(fetch(), { code: 'stream-unavailable' });
  const late = source.sink.settle(20_000);
  const replica = new ReplicaEnd(stage.source(), history, 'dr1');
  t.deepEqual(await late, { highestLsn: 0 });
  const aborted = new AbortController();
  aborted.abort();
  await t.throwsAsync(
    async () => {
      for await (const bytes of source.sink.fetch(1, aborted.signal)) t.fail(`${bytes.length} bytes came`);
    },
    { code: 'cancelled' },
  );
  await source.close();
  await replica.close();
  await stage.close();
});

test('rubbish on the port closes that connection and nothing else', async (t) => {
  const stage = await openStage();
  const history = new TestHistory(GROUP_ID);
  const replica = new ReplicaEnd(stage.source(), history, 'dr1');
  const port = Number(stage.address.split(':')[1]);
  const rubbish = [
    'GET / HTTP/1.1\r\n\r\n                      ',
    Buffer.alloc(64, 255),
    encodeMessage(MessageType.alive, 0),
    encodeMessage(MessageType.hello, 0, { protocol: 'x' }),
  ];
  for (const bytes of rubbish) {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => undefined);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.resume();
    socket.write(bytes);
    await closed;
  }
  history.grow(8);
  const source = new SourceEnd(stage.sink(), history);
  await replica.untilDurable(8);
  t.pass();
  await source.close();
  await replica.close();
  await stage.close();
});

test('messages come whole however the bytes are cut, and any flipped bit in one is found', (t) => {
  const bodies = [undefined, { lsn: 77 }, { text: 'x'.repeat(300) }];
  const bytes = Buffer.concat(bodies.map((body, i) => encodeMessage(MessageType.settle, i, body)));
  fc.assert(
    fc.property(fc.array(fc.nat(bytes.length), { maxLength: 8 }), (cuts) => {
      const parser = new MessageParser();
      const messages: Message[] = [];
      const edges = [0, ...cuts.toSorted((a, b) => a - b), bytes.length];
      for (let i = 1; i < edges.length; i++)
        parser.push(bytes.subarray(edges[i - 1], edges[i]), (m) => messages.push(m) > 0);
      return messages.length === 3 && messages.every((message, i) => message.tag === i);
    }),
  );
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const damaged = Buffer.from(bytes);
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    t.throws(() => new MessageParser().push(damaged, () => true), { code: 'stream-unavailable' }, `bit ${bit}`);
  }
});

test('after a reconnect nothing comes before the position that the replica named', async (t) => {
  const stage = await openStage();
  const history = new TestHistory(GROUP_ID, 65_536);
  const inner = stage.source();
  const ahead: number[] = [];
  const replica: ReplicaEnd = new ReplicaEnd(
    {
      open: (start, events) =>
        inner.open(start, {
          ...events,
          onFrame: (bytes, offset) => {
            const { firstLsn } = readFrameHeader(bytes);
            if (firstLsn > replica.durableLsn + 1) ahead.push(firstLsn);
            events.onFrame(bytes, offset);
          },
        }),
      pause: () => inner.pause(),
      resume: () => inner.resume(),
      feedback: (feedback) => inner.feedback(feedback),
      status: () => inner.status(),
      close: () => inner.close(),
    },
    history,
    'dr1',
  );
  history.grow(400);
  const source = new SourceEnd(stage.sink(), history);
  for (const lsn of [50, 150, 250]) {
    await replica.untilDurable(lsn);
    stage.dialer.cut();
  }
  await replica.untilDurable(400);
  t.deepEqual(ahead, []);
  await source.close();
  await replica.close();
  await stage.close();
});

test('what a replica turns out to hold is not sent to it, unless it follows a newer source', async (t) => {
  const stage = await openStage();
  const history = new TestHistory(GROUP_ID);
  history.grow(40);
  const end = stage.source();
  const say = (durableLsn: number, incarnation: number, epoch = 1): void =>
    end.feedback({
      replica: 'dr1',
      groupId: GROUP_ID,
      epoch,
      incarnation,
      durableLsn,
      chain: history.chainAt(durableLsn),
      state: 'receiving',
      reason: '',
      missingFrom: 0,
      heartbeatMs: 0,
      resumeOffset: '',
    });
  const start = { replica: 'dr1', groupId: GROUP_ID, durableLsn: 5, resumeOffset: '', frameVersion: 1 };
  end.open(
    { ...start, async *framesFrom() {} },
    { onFrame: () => undefined, onLost: () => undefined, onStatus: () => undefined },
  );
  // nothing to send yet: it stands at the position of the welcome
  const source = new SourceEnd(stage.sink(), new TestHistory(GROUP_ID), 3);
  const heard = (durableLsn: number): Promise<void> =>
    source.until(`feedback tells of record ${durableLsn}`, () => source.feedback?.durableLsn === durableLsn);
  await source.until('the sink seeks', () => source.seeks.length === 1);
  say(5, 2);
  await heard(5);
  say(12, 2);
  await heard(12);
  say(20, 4);
  await heard(20);
  say(21, 1, 2);
  await heard(21);
  say(30, 3);
  await source.until('the sink seeks on', () => source.seeks.includes(31));
  say(30, 3);
  say(31, 3);
  await source.until('and on', () => source.seeks.includes(32));
  t.deepEqual(source.seeks, [6, 13, 31, 32]);
  await source.close();
  await end.close();
  await stage.close();
});
