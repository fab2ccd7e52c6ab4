import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { settleFarSide } from '../../daemon/ship/settle.ts';
import { Shipper } from '../../daemon/ship/shipper.ts';
import { DirectListener } from '../../daemon/stream/direct/direct-listener.ts';
import { DirectSink } from '../../daemon/stream/direct/direct-sink.ts';
import { TcpDialer, TcpListener } from '../../daemon/stream/direct/tcp-wire.ts';
import { CHAIN_START, type Chain, chainString, sameChain } from '../../journal/chain.ts';
import { journalFileName } from '../../journal/file-reads.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import { FrameView } from '../../journal/frame-view.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { Journal } from '../../journal/journal.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import type { FrameSource } from '../../journal/stream.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../replica/replica-group.ts';
import { FaultyDialer } from '../stream/test-wires.ts';

const GROUP_ID = 'e0e1e2e3e4e5e6e7e8e9eaebecedeeef';
const host = realHost();

/** Takes frames that continue what it holds, checks the chain, and says so. */
class SmallReplica {
  durableLsn: Lsn = 0;
  repeats = 0;
  /** Takes frames and does not say so, as while it waits for its disk. */
  silent = false;
  readonly name: string;
  #incarnation = 1;
  #chain: Chain = CHAIN_START;
  #source: FrameSource | undefined;
  #waiting: { lsn: Lsn; resolve: () => void }[] = [];

  constructor(name: string) {
    this.name = name;
  }

  open(source: FrameSource): void {
    this.#source = source;
    source.open(
      {
        replica: this.name,
        groupId: GROUP_ID,
        durableLsn: this.durableLsn,
        resumeOffset: '',
        frameVersion: FRAME_VERSION,
        async *framesFrom() {},
      },
      { onFrame: (bytes) => this.#onFrame(bytes), onLost: () => undefined, onStatus: () => undefined },
    );
    this.#feedBack();
  }

  speak(): void {
    this.silent = false;
    this.#feedBack();
  }

  holds(lsn: Lsn): Promise<void> {
    if (this.durableLsn >= lsn) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ lsn, resolve }));
  }

  #onFrame(bytes: Uint8Array): void {
    const view = FrameView.open(bytes);
    view.verifyPayload();
    if (view.lastLsn <= this.durableLsn) this.repeats++;
    else {
      if (view.firstLsn > this.durableLsn + 1) throw new Error(`frame ${view.firstLsn} after ${this.durableLsn}`);
      if (!sameChain(view.chainAt(this.durableLsn), this.#chain)) throw new Error('another history');
      this.durableLsn = view.lastLsn;
      this.#chain = view.chainAfter;
    }
    this.#incarnation = view.incarnation.counter;
    this.#feedBack();
    for (const { lsn, resolve } of this.#waiting) if (lsn <= this.durableLsn) resolve();
    this.#waiting = this.#waiting.filter(({ lsn }) => lsn > this.durableLsn);
  }

  #feedBack(): void {
    if (this.silent) return;
    this.#source!.feedback({
      replica: this.name,
      groupId: GROUP_ID,
      epoch: 0,
      incarnation: this.#incarnation,
      durableLsn: this.durableLsn,
      chain: chainString(this.#chain),
      state: 'receiving',
      reason: '',
      missingFrom: 0,
      heartbeatMs: 0,
      resumeOffset: '',
    });
  }
}

test('two replicas over TCP: one away holds up neither the other nor the guest, and the journal keeps what it lacks', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-direct-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const journal = await Journal.open(host, {
    directory,
    groupId: GROUP_ID,
    groupName: 'pair',
    fileBytes: 256 * 1024,
    budgetBytes: 32 * 1024 * 1024,
    syncIntervalMs: 10,
  });
  const incarnation = await journal.begin();
  const group = { groupName: 'pair', groupId: GROUP_ID };
  const sites = await Promise.all(
    ['dr1', 'dr2'].map(async (name) => {
      const listener = new DirectListener(host.clock, { listener: new TcpListener('127.0.0.1', 0) });
      const port = Number((await listener.listen()).split(':')[1]);
      const dialer = new TcpDialer('127.0.0.1', port);
      const sink = new DirectSink(host, {
        replica: name,
        dialer,
        retryMinMs: 10,
        retryMaxMs: 50,
        windowBytes: 256 * 1024,
      });
      return { name, listener, sink, replica: new SmallReplica(name) };
    }),
  );
  const [one, two] = sites as [(typeof sites)[0], (typeof sites)[0]];
  const shipper = await Shipper.open(host, {
    directory,
    journal,
    marks: journal.marks,
    identity: { groupId: GROUP_ID, groupName: 'pair', epoch: journal.epoch, incarnation, frameVersion: FRAME_VERSION },
    sinks: sites.map(({ sink }) => sink),
    replicas: sites.map(({ name }) => ({ name, required: true })),
  });
  one.replica.open(one.listener.source(group));
  const write = async (count: number): Promise<Lsn> => {
    for (let i = 0; i < count; i++) {
      const sector = (i % 100) * 128;
      journal.append(RecordKind.write, { volume: 1, sector, sectors: 128, body: new Uint8Array(65_536).fill(i) });
    }
    await journal.sync();
    return journal.lastLsn;
  };
  const last = await write(100);
  await one.replica.holds(last);
  t.is(two.replica.durableLsn, 0);
  t.is(journal.marks.lsn('replicated'), 0);
  t.is(journal.marks.address('shipped'), 0);
  t.is(shipper.status().state, 'retrying');
  t.like(shipper.status().backlog, { records: null, seconds: null });

  two.replica.open(two.listener.source(group));
  await two.replica.holds(last);
  const released = new Promise<void>((resolve) => {
    const stop = journal.marks.onMove(() => {
      if (journal.marks.address('shipped') === 0) return;
      stop();
      resolve();
    });
  });
  await released;
  t.is(journal.marks.lsn('replicated'), last);
  t.is(journal.marks.lsn('accepted'), last);
  t.like(shipper.status(), { state: 'streaming', code: null, unregistered: [] });
  t.is(one.replica.repeats, 0);

  journal.recycleBelow(journal.marks.address('shipped'));
  const final = await write(20);
  await Promise.all([one.replica.holds(final), two.replica.holds(final)]);
  t.is(two.replica.repeats, 0);
  await shipper.close();
  await Promise.all(sites.map(({ listener }) => listener.close()));
  await journal.close();
});

async function until(holds: () => boolean, what: () => string): Promise<void> {
  for (const end = performance.now() + 30_000; !holds(); ) {
    if (performance.now() > end) throw new Error(what());
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function temporaryDirectory(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-direct-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A source and a real replica, each of which comes and goes; the replica listens on as long as the machine it is on runs. */
async function pair(t: ExecutionContext) {
  const replicaDirectory = temporaryDirectory(t);
  const openJournal = (directory: string): Promise<Journal> =>
    Journal.open(host, {
      directory,
      groupId: GROUP_ID,
      groupName: 'cut',
      fileBytes: 256 * 1024,
      budgetBytes: 32 * 1024 * 1024,
      syncIntervalMs: 5,
    });
  const listener = new DirectListener(host.clock, { listener: new TcpListener('127.0.0.1', 0) });
  const port = Number((await listener.listen()).split(':')[1]);
  const newSink = (): DirectSink =>
    new DirectSink(host, { replica: 'dr1', dialer: new TcpDialer('127.0.0.1', port), retryMinMs: 10, retryMaxMs: 50 });
  const ship = (journal: Journal, directory: string): Promise<Shipper> =>
    Shipper.open(host, {
      directory,
      journal,
      marks: journal.marks,
      identity: {
        groupId: GROUP_ID,
        groupName: 'cut',
        epoch: journal.epoch,
        incarnation: journal.incarnation!,
        frameVersion: FRAME_VERSION,
      },
      sinks: [newSink()],
      replicas: [{ name: 'dr1', required: true }],
    });
  const openReplica = async (): Promise<ReplicaGroup> => {
    const options = { ...REPLICA_DEFAULTS, directory: replicaDirectory, groupId: GROUP_ID, replica: 'dr1' };
    const group = await ReplicaGroup.open(host, options);
    group.start(listener.source({ groupName: 'cut', groupId: GROUP_ID }));
    return group;
  };
  return { openJournal, listener, newSink, ship, openReplica };
}

async function write(journal: Journal, count: number): Promise<Lsn> {
  for (let i = 0; i < count; i++) {
    journal.append(RecordKind.write, { volume: 1, sector: i, sectors: 1, body: new Uint8Array(512).fill(count) });
  }
  await journal.sync();
  return journal.lastLsn;
}

test('a source that was cut while nobody could be asked: the replica beyond it is never followed, both positions are told', async (t) => {
  const { openJournal, listener, newSink, ship, openReplica } = await pair(t);
  const whole = temporaryDirectory(t);
  const before = await openJournal(whole);
  await before.begin();
  await write(before, 20);
  const lost = temporaryDirectory(t);
  cpSync(whole, lost, { recursive: true });
  let replica = await openReplica();
  let shipper = await ship(before, whole);
  const held = await write(before, 80);
  await until(
    () => replica.headLsn === held,
    () => `the replica holds ${replica.headLsn}`,
  );
  await shipper.close();
  await before.close();
  await replica.close();

  const journal = await openJournal(lost);
  const settled = await settleFarSide(host, {
    journal,
    directory: lost,
    groupId: GROUP_ID,
    groupName: 'cut',
    sinks: [newSink()],
    timeoutMs: 200,
  });
  t.like(settled, { highestLsn: 0, answered: 0, restored: 0 });
  await journal.begin();
  const mine = journal.lastLsn;
  t.true(mine < held);
  replica = await openReplica();
  shipper = await ship(journal, lost);
  await until(
    () => shipper.status().state === 'needs-resync',
    () => shipper.status().reason,
  );
  t.regex(shipper.status().reason, new RegExp(`holds records up to ${held}, this journal only up to ${mine}`));
  await shipper.close();
  // The other history grows beyond the replica's end: still not the same one.
  await write(journal, 200);
  shipper = await ship(journal, lost);
  await until(
    () => shipper.status().state === 'diverged',
    () => shipper.status().reason,
  );
  t.is(replica.headLsn, held);
  t.is(journal.marks.address('shipped'), 0);
  await shipper.close();
  await replica.close();
  await listener.close();
  await journal.close();
});

test('what the journal lost of a run, and all that named it in the log, is given back by a replica that has heard of that run', async (t) => {
  const { openJournal, listener, newSink, ship, openReplica } = await pair(t);
  const directory = temporaryDirectory(t);
  const first = await openJournal(directory);
  await first.begin();
  await write(first, 20);
  await first.close();
  const second = await openJournal(directory);
  const { endAddress } = second;
  await second.begin();
  const replica = await openReplica();
  const shipper = await ship(second, directory);
  const { lastLsn } = second;
  await until(
    () => replica.headLsn === lastLsn,
    () => `the replica holds ${replica.headLsn}`,
  );
  await shipper.close();
  await second.close();
  const path = join(directory, journalFileName(0));
  writeFileSync(path, readFileSync(path).fill(0, endAddress));

  const journal = await openJournal(directory);
  t.is(journal.lastLsn, lastLsn, 'the stop proves it');
  t.is(journal.report.incarnation.counter, 1);
  const group = { groupId: GROUP_ID, groupName: 'cut' };
  const settled = await settleFarSide(host, { journal, directory, ...group, sinks: [newSink()], timeoutMs: 2000 });
  t.like(settled, { answered: 1, mended: 1, unmended: [] });
  t.is((await journal.begin(settled)).counter, 3);
  await replica.close();
  await listener.close();
  await journal.close();
});

test('a replica that has on its way what the journal gave up meanwhile goes on when it is durable there', async (t) => {
  const directory = temporaryDirectory(t);
  const fileBytes = 256 * 1024;
  const journal = await Journal.open(host, {
    directory,
    groupId: GROUP_ID,
    groupName: 'full',
    fileBytes,
    budgetBytes: 32 * 1024 * 1024,
    syncIntervalMs: 5,
  });
  const incarnation = await journal.begin();
  const listener = new DirectListener(host.clock, { listener: new TcpListener('127.0.0.1', 0) });
  const port = Number((await listener.listen()).split(':')[1]);
  const dialer = new FaultyDialer(new TcpDialer('127.0.0.1', port));
  const shipper = await Shipper.open(host, {
    directory,
    journal,
    marks: journal.marks,
    identity: { groupId: GROUP_ID, groupName: 'full', epoch: journal.epoch, incarnation, frameVersion: FRAME_VERSION },
    sinks: [new DirectSink(host, { replica: 'dr1', dialer, retryMinMs: 10, retryMaxMs: 50 })],
    replicas: [{ name: 'dr1', required: true }],
  });
  const replica = new SmallReplica('dr1');
  replica.open(listener.source({ groupName: 'full', groupId: GROUP_ID }));
  const write = async (count: number): Promise<Lsn> => {
    for (let i = 0; i < count; i++) {
      journal.append(RecordKind.write, { volume: 1, sector: i, sectors: 128, body: new Uint8Array(65_536).fill(i) });
    }
    await journal.sync();
    return journal.lastLsn;
  };
  const holds = (lsn: Lsn): Promise<void> =>
    until(
      () => replica.durableLsn >= lsn && shipper.status().replicatedLsn >= lsn,
      () => `${replica.durableLsn}: ${JSON.stringify(shipper.status())}`,
    );
  await holds(await write(1));
  replica.silent = true;
  const last = await write(20);
  await until(
    () => replica.durableLsn === last,
    () => `the replica has ${replica.durableLsn}`,
  );
  for (const file of [1, 2]) {
    await shipper.keepChainAt(file * fileBytes);
    journal.recycleBelow(file * fileBytes);
  }
  const { oldestLsn } = journal;
  t.true(oldestLsn > 2 && oldestLsn <= last, `${oldestLsn}`);
  dialer.cut();
  await until(
    () => shipper.status().state === 'needs-resync',
    () => shipper.status().reason,
  );
  t.regex(shipper.status().reason, new RegExp(`needs record \\d+, the oldest in this journal is ${oldestLsn}$`));
  replica.speak();
  await holds(last);
  await holds(await write(5));
  t.like(shipper.status(), { state: 'streaming', code: null });
  t.is(replica.repeats, 0);
  await shipper.close();
  await listener.close();
  await journal.close();
});
