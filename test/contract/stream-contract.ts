import test, { type ExecutionContext } from 'ava';
import { hasCode } from '../../journal/base/errors.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { FrameSink, FrameSource } from '../../journal/stream.ts';
import { ReplicaEnd, ReplicaState, SourceEnd, TestHistory } from './stream-ends.ts';

/** One stream of one group, with everything it needs; each test has its own. */
export interface StreamStage {
  /** 32 hex digits. */
  readonly groupId: string;
  /** The name under which the source knows the replica. */
  readonly replica: string;
  /** A new source end, as after a start; at most one is open at a time. */
  sink(): FrameSink;
  /** A new replica end; at most one is open at a time. */
  source(): FrameSource;
  /** Cuts every connection under way; the stream mends itself. */
  interrupt(): Promise<void> | void;
  /** Most bytes the sink holds that the stream has not accepted. */
  readonly windowBytes: number;
  /** Stops servers, removes files. Sinks and sources are closed already. */
  close(): Promise<void>;
}

/** How much still arrives after `pause`. */
const PAUSED_BYTES_MAX = 8 * 1024 * 1024;

/**
 * What every stream must do (journal/stream.ts), run against each implementation:
 *
 *   streamContract('direct over TCP', () => openStage(...));
 */
export function streamContract(name: string, openStage: () => Promise<StreamStage>): void {
  const run = (title: string, body: (t: ExecutionContext, play: Play) => Promise<void>): void => {
    test(`${name}: ${title}`, async (t) => {
      t.timeout(120_000);
      const play = new Play(await openStage());
      try {
        await body(t, play);
      } finally {
        await play.end();
      }
    });
  };

  run('records arrive in order, whole and without gaps, and both ends learn how far they came', async (t, play) => {
    const { history } = play;
    const replica = play.replica();
    const source = play.start();
    for (let round = 1; round <= 5; round++) {
      history.grow(40);
      source.pump();
      await replica.untilDurable(round * 40);
    }
    await source.until('feedback tells of record 200', () => source.feedback?.durableLsn === 200);
    await source.until('everything was accepted', () => source.acceptedLsn === 200);
    t.is(source.feedback?.chain, history.chainAt(200));
    t.is(source.feedback?.replica, play.stage.replica);
    t.is(source.seeks[0], 1);
    t.is(source.sink.status().state, 'streaming');
    t.is(replica.source.status().state, 'streaming');
    t.deepEqual(replica.lost, []);
  });

  run('a source that was there first finds its replica', async (t, play) => {
    play.history.grow(20);
    const source = play.start();
    const replica = play.replica();
    await replica.untilDurable(20);
    await source.until('feedback tells of record 20', () => source.feedback?.durableLsn === 20);
    t.pass();
  });

  run('the source restarts in mid-stream: nothing is missing, repeats are harmless', async (t, play) => {
    const { history } = play;
    const replica = play.replica();
    history.grow(400);
    const first = play.start();
    await replica.untilDurable(100);
    await first.close();
    history.grow(100);
    const second = play.start();
    await replica.untilDurable(500);
    await second.until('feedback tells of record 500', () => second.feedback?.durableLsn === 500);
    t.true(second.seeks[0]! > 1, 'goes on from what the far side holds');
  });

  run('the replica restarts in mid-stream and goes on from what it holds', async (t, play) => {
    const { history } = play;
    const first = play.replica();
    const source = play.start();
    history.grow(100);
    source.pump();
    await first.untilDurable(100);
    await first.close();
    history.grow(200);
    source.pump();
    const second = play.replica(first.state);
    await second.untilDurable(300);
    await source.until('feedback tells of record 300', () => source.feedback?.durableLsn === 300);
    t.deepEqual(second.lost, []);
  });

  run('connections are cut again and again', async (t, play) => {
    const { history } = play;
    const replica = play.replica();
    const source = play.start();
    for (let round = 1; round <= 4; round++) {
      history.grow(100);
      source.pump();
      await replica.untilDurable(round * 100 - 60);
      await play.stage.interrupt();
    }
    await replica.untilDurable(400);
    await source.until('feedback tells of record 400', () => source.feedback?.durableLsn === 400);
    t.deepEqual(replica.lost, []);
  });

  run('what the replica asks for comes again', async (t, play) => {
    const { history } = play;
    const replica = play.replica();
    const source = play.start();
    replica.refusesFrom = 41;
    history.grow(80);
    source.pump();
    await replica.until('frames were lost', () => replica.refusedLsn === 80);
    const missing = replica.durableLsn + 1;
    t.true(missing <= 41);
    replica.refusesFrom = Number.POSITIVE_INFINITY;
    replica.askAgain(missing);
    await source.until('the sink seeks back', () => source.seeks.includes(missing));
    await replica.untilDurable(80);
    history.grow(10);
    source.pump();
    await replica.untilDurable(90);
    t.pass();
  });

  run('a replica that lost its end gets it back', async (t, play) => {
    const { history } = play;
    const first = play.replica();
    const source = play.start();
    history.grow(160);
    source.pump();
    await first.untilDurable(160);
    await first.close();
    const second = play.replica(ReplicaEnd.cut(first.state, 80));
    t.true(second.durableLsn <= 80);
    await second.untilDurable(160);
    history.grow(40);
    source.pump();
    await second.untilDurable(200);
  });

  run('the window bounds what is under way', async (t, play) => {
    const history = new TestHistory(play.stage.groupId, 65_536);
    play.history = history;
    const replica = play.replica();
    history.grow(600);
    const source = play.start();
    await replica.untilDurable(600);
    const frame = 8 * 65_536 + 4096;
    t.true(source.underWayMax <= play.stage.windowBytes + frame, `${source.underWayMax} bytes were under way`);
  });

  run('a paused replica gets no more than what was on its way, and all of it later', async (t, play) => {
    const history = new TestHistory(play.stage.groupId, 65_536);
    play.history = history;
    const replica = play.replica();
    const source = play.start();
    history.grow(8);
    source.pump();
    await replica.untilDurable(8);
    replica.source.pause();
    const before = replica.bytes;
    history.grow(400);
    source.pump();
    await source.until(
      'the stream holds what it can',
      () => source.sink.windowBytes <= 0 || source.acceptedLsn === 408,
    );
    t.true(replica.bytes - before <= PAUSED_BYTES_MAX, `${replica.bytes - before} bytes came during the pause`);
    replica.source.resume();
    await replica.untilDurable(408);
  });

  run('a frame near the size limit passes', async (t, play) => {
    const history = new TestHistory(play.stage.groupId, 1024 * 1024);
    play.history = history;
    const replica = play.replica();
    history.grow(6);
    const source = play.start();
    source.frameRecords = 1;
    await replica.untilDurable(6);
    t.true(replica.bytes >= 6 * 1024 * 1024);
  });

  run('feedback is state: the newest wins, also for a source that comes later', async (t, play) => {
    const { history } = play;
    history.grow(64);
    const replica = play.replica();
    const first = play.start();
    await replica.untilDurable(64);
    await first.close();
    const second = play.start();
    await second.until('feedback tells of record 64', () => second.feedback?.durableLsn === 64);
    t.is(second.feedback?.missingFrom, 0);
  });

  run('settle tells what the far side holds, fetch brings it', async (t, play) => {
    const { history } = play;
    history.grow(100);
    const replica = play.replica();
    const first = play.start();
    await replica.untilDurable(100);
    await first.close();
    const second = play.start();
    t.deepEqual(await second.sink.settle(20_000), { highestLsn: 100 });
    let next = 57;
    for await (const bytes of second.sink.fetch(57, new AbortController().signal)) {
      const view = FrameView.open(bytes);
      t.true(view.firstLsn <= next && view.lastLsn >= next, `frame ${view.firstLsn}-${view.lastLsn} at ${next}`);
      next = view.lastLsn + 1;
    }
    t.is(next, 101);
  });

  run('close ends everything, twice over, also before the far side was found', async (t, play) => {
    const lonely = play.start();
    const settling = lonely.sink.settle(60_000).then(
      () => 'settled',
      (error: unknown) => (hasCode(error, 'stream-unavailable') || hasCode(error, 'cancelled') ? 'refused' : error),
    );
    await Promise.all([lonely.close(), lonely.close()]);
    const settled = await settling;
    t.true(settled === 'settled' || settled === 'refused', String(settled));
    const replica = play.replica();
    await Promise.all([replica.close(), replica.close()]);
    t.is(lonely.sink.windowBytes, 0);
  });
}

/** The ends of one test: opened in order, closed at the end. */
class Play {
  readonly stage: StreamStage;
  history: TestHistory;
  readonly #opened: { close(): Promise<void> }[] = [];
  #runs = 0;

  constructor(stage: StreamStage) {
    this.stage = stage;
    this.history = new TestHistory(stage.groupId);
  }

  /** A source of the next incarnation. */
  start(): SourceEnd {
    const source = new SourceEnd(this.stage.sink(), this.history, ++this.#runs);
    this.#opened.push(source);
    return source;
  }

  replica(state: ReplicaState = new ReplicaState()): ReplicaEnd {
    const replica = new ReplicaEnd(this.stage.source(), this.history, this.stage.replica, state);
    this.#opened.push(replica);
    return replica;
  }

  async end(): Promise<void> {
    for (const end of this.#opened) await end.close();
    await this.stage.close();
  }
}
