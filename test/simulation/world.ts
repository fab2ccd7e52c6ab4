import type { DegreePolicy } from '../../daemon/synchrony/degree-policy.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { NO_KAFKA_FAULTS, SimulatedKafka } from '../doubles/simulated-kafka.ts';
import { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { NO_NETWORK_FAULTS, SimulatedNetwork } from '../doubles/simulated-network.ts';
import { Autopsy } from './checkers/autopsy.ts';
import { TopicFaults } from './checkers/topic-faults.ts';
import { DegreeFileNemesis } from './degree-file-nemesis.ts';
import { ALONE, drawPolicy } from './degree-options.ts';
import { checkAtEnd } from './end-check.ts';
import { FarPromises } from './far-promises.ts';
import { drawGiveUp, giveUpRandom } from './give-up-options.ts';
import { GiveUpStory } from './give-up-story.ts';
import { History } from './history.ts';
import { tendImage } from './image-operator.ts';
import { ImageStory } from './image-story.ts';
import { KafkaNemesis } from './kafka-nemesis.ts';
import { lateRandom, withLate } from './late-options.ts';
import { type NodeName, REPLICA, SECOND } from './names.ts';
import { Nemesis } from './nemesis.ts';
import { NO_SEAMS, type Seams } from './parts.ts';
import { ReplicaLife } from './replica-life.ts';
import { ReplicaNode } from './replica-node.ts';
import { drawOptions, type RunOptions } from './run-options.ts';
import { Scheduler } from './scheduler.ts';
import { SourceModel } from './source-model.ts';
import { SourceNode } from './source-node.ts';
import { StampNemesis } from './stamp-nemesis.ts';
import { Streams } from './streams.ts';
import { must, Violation } from './violation.ts';

const DISK_BYTES = 256 * 1024 * 1024;
const RESTART_MICROS_MAX = 400_000;
/** A replica asks for frames again with a patience that doubles. */
const CATCH_UP_MICROS = 900_000_000;
/** The far side is asked again every ten seconds; then the group opens anew. */
const HEAL_MICROS = 60_000_000;
/** Both ends of a topic try again after half a minute at most, and a replica repeats itself once a minute. */
const ACCOUNT_MICROS = 180_000_000;
const END_CHECK_MICROS = 600_000_000;
const STORY_MICROS = 7_200_000_000;
/** Starts in a row that want a person, for one reason and with the other side there: nothing will come of the next. */
const REFUSED_STARTS_MAX = 50;

/** What happened in a run, up to where all had come right; what is tried on copies of its disks does not count. */
interface RunCounts {
  readonly events: number;
  readonly simulatedMicros: number;
  readonly crashes: number;
  readonly records: number;
  readonly acknowledged: number;
  readonly views: number;
  readonly traceHash: string;
}

export interface RunReport extends RunCounts {
  readonly seed: number;
  readonly violation: Error | undefined;
  readonly options: RunOptions;
}

/**
 * One run: a source with its guests, a replica, the network between them and somebody who breaks things, all decided by
 * one seed. First load and faults, then all faults end and everything must come right by itself.
 */
export class World {
  readonly scheduler: Scheduler;
  readonly options: RunOptions;
  readonly network: SimulatedNetwork;
  readonly model: SourceModel;
  readonly source: SourceNode;
  /** The first, and often the only one. */
  readonly replica: ReplicaNode;
  readonly replicas: readonly ReplicaNode[];
  readonly far: FarPromises;
  readonly kafka: SimulatedKafka;
  readonly #seed: number;
  readonly #nemesis: Nemesis;
  readonly #kafkaNemesis: KafkaNemesis | undefined;
  #stampNemeses: readonly StampNemesis[] = [];
  readonly #degreeFileNemesis: DegreeFileNemesis | undefined;
  readonly #topicFaults: TopicFaults | undefined;
  readonly #replicaLives: readonly ReplicaLife[];
  readonly #autopsy: Autopsy;
  #failure: Error | undefined;
  /** Nobody starts it for now. */
  readonly heldDown: Set<NodeName> = new Set();
  #loaded = true;
  #healedMicros: number | undefined;
  /** Most of the time nothing happens, for simulated minutes. */
  #isTelling = false;
  #idleUntilMicros = 0;
  #lastStartError = '';
  #refusedStarts = 0;
  crashes = 0;

  constructor(seed: number, seams: Seams = NO_SEAMS, change: (options: RunOptions) => RunOptions = (same) => same) {
    this.#seed = seed;
    const scheduler = new Scheduler(seed);
    this.scheduler = scheduler;
    const drawn = drawOptions(scheduler.random.fork());
    const giveUp = drawGiveUp(seed, drawn);
    // a guest that waits for a replica which is away would keep the story from its end
    const whole: RunOptions = giveUp === undefined ? drawn : { ...drawn, giveUp, degree: ALONE, apply: 'off' };
    this.options = change(withLate(seed, whole));
    const { options } = this;
    this.network = new SimulatedNetwork(scheduler, options.network);
    const sizes = new Map(options.volumes.map(({ id, sectors }) => [id, sectors]));
    this.model = new SourceModel(new History(sizes), (what, ...numbers) => scheduler.trace(what, ...numbers));
    const sourceMachine = new SimulatedMachine('source', scheduler, options.sourceDisk, DISK_BYTES);
    const replicaMachine = new SimulatedMachine('replica', scheduler, options.replicaDisk, DISK_BYTES);
    const { network, model } = this;
    const { stream } = options;
    const kafka = new SimulatedKafka(scheduler, stream.kind === 'kafka' ? stream.faults : NO_KAFKA_FAULTS);
    this.kafka = kafka;
    const places = options.second === undefined ? [REPLICA] : [REPLICA, { ...SECOND, ...options.second }];
    const streams = new Streams(stream, network, kafka, places);
    this.source = new SourceNode(sourceMachine, options, model, scheduler.random.fork(), streams, seams);
    this.replica = new ReplicaNode(replicaMachine, REPLICA, options, model, streams, seams);
    const others = places.slice(1).map((place) => {
      const machine = new SimulatedMachine('second', scheduler, options.replicaDisk, DISK_BYTES);
      return new ReplicaNode(machine, place, options, model, streams, seams);
    });
    this.replicas = [this.replica, ...others];
    const required = this.replicas.filter(({ place }) => place.required);
    this.far = new FarPromises({
      degree: (upToLsn) => {
        model.keepUp();
        return model.history.degree(upToLsn);
      },
      sourceDurableLsn: () => this.source.durableLsn,
      replicaDurableLsn: () => Math.min(...required.map(({ durableEverLsn }) => durableEverLsn)),
      replicaAppliedLsn: () => Math.min(...required.map(({ standby }) => standby.toldLsn)),
      claims: () => this.replicas.map(({ group, durableLsn }) => ({ claim: group?.rpoClaim, durableLsn })),
    });
    model.onAnswered = (lsn, durable): void => this.far.answered(lsn, durable);
    model.onRecovered = (lsn): void => this.far.recovered(lsn);
    this.#replicaLives = this.replicas.map((replica) => {
      return new ReplicaLife(replica, options.life, model, scheduler, scheduler.random.fork());
    });
    this.#autopsy = new Autopsy(seed, options, this.source.appended);
    this.#nemesis = new Nemesis(this, scheduler.random.fork());
    if (stream.kind === 'kafka') {
      this.#topicFaults = new TopicFaults(kafka, stream.faults);
      const struck = this.#topicFaults.struck.bind(this.#topicFaults);
      this.#kafkaNemesis = new KafkaNemesis(kafka, stream, scheduler.random.fork(), struck);
    }
    if (options.image?.changes === true) {
      for (const replica of this.replicas) {
        const random = scheduler.random.fork();
        replica.drawsApply = () => random.pick(['off', 'async', 'sync']);
      }
    }
    const { dies } = options.image ?? {};
    if (dies !== undefined && dies.times > 0) {
      this.#stampNemeses = this.names.slice(1).map((name) => {
        return new StampNemesis(this, name, scheduler.random.fork(), dies.share, dies.times);
      });
    }
    if (options.degreeFile !== undefined) {
      this.#degreeFileNemesis = new DegreeFileNemesis(this, scheduler.random.fork(), options.degreeFile.share);
    }
  }

  /** Of every machine there is. */
  get names(): readonly NodeName[] {
    return this.replicas.length > 1 ? ['source', 'replica', 'second'] : ['source', 'replica'];
  }

  node(name: NodeName): SourceNode | ReplicaNode {
    if (name === 'source') return this.source;
    const replica = this.replicas[name === 'replica' ? 0 : 1];
    if (replica === undefined) throw new Error(`there is no ${name}`);
    return replica;
  }

  /** Runs to the end or to the first broken promise. */
  async run(): Promise<RunReport> {
    const before = process.listeners('unhandledRejection');
    process.removeAllListeners('unhandledRejection');
    process.on('unhandledRejection', (reason) => this.fail(reason));
    let counts: RunCounts | undefined;
    try {
      await this.#story();
      counts = this.#counts();
      await this.#finish(this.#accountForTopics());
      await this.#autopsy.perform();
    } catch (error) {
      this.fail(error);
    } finally {
      process.removeAllListeners('unhandledRejection');
      for (const listener of before) process.on('unhandledRejection', listener);
    }
    return { seed: this.#seed, violation: this.#failure, ...(counts ?? this.#counts()), options: this.options };
  }

  #counts(): RunCounts {
    return {
      events: this.scheduler.events,
      simulatedMicros: this.scheduler.nowMicros,
      crashes: this.crashes,
      records: this.model.history.lastLsn,
      acknowledged: this.model.acknowledged,
      views: this.replica.viewsChecked,
      traceHash: this.scheduler.traceHash,
    };
  }

  /** The first thing that went wrong ends the run. */
  fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    if (error instanceof Violation) this.#failure = error;
    else this.#failure = new Violation('X1', error instanceof Error ? (error.stack ?? error.message) : String(error));
  }

  /** No guest does anything for so long. */
  idle(micros: number): void {
    this.#idleUntilMicros = this.scheduler.nowMicros + micros;
  }

  /** A crash, and some time later a start. */
  crash(name: NodeName, how: 'kill' | 'losePower'): void {
    const node = this.node(name);
    if (!node.machine.running) return;
    this.crashes++;
    this.scheduler.trace(`${how} ${name}`);
    node[how]();
    if (name === 'source' && !this.#isTelling) this.#autopsy.consider(this.source.machine);
    this.model.borders.add(this.model.history.lastLsn);
    this.startSoon(name);
  }

  /** Ends a process that has said it is finished. In an event of its own: what it does at this moment it still does. */
  restart(name: NodeName): void {
    const node = this.node(name);
    const { machine } = node;
    const which = machine.process;
    this.scheduler.after(0, () => {
      if (machine.process !== which) return;
      node.kill();
      this.startSoon(name);
    });
  }

  startSoon(name: NodeName): void {
    const node = this.node(name);
    this.scheduler.after(this.scheduler.random.below(RESTART_MICROS_MAX), () => {
      if (node.machine.running || this.heldDown.has(name)) return;
      this.#watch(
        node.start().catch((error: unknown) => {
          if (!(error instanceof TidemarkError)) throw error;
          this.#noteRefusal(name, error);
          this.restart(name);
        }),
      );
    });
  }

  /** Faults are over and starts still end the same way: counted as long as nobody else can help. */
  #noteRefusal(name: NodeName, error: TidemarkError): void {
    const before = this.#lastStartError;
    this.#lastStartError = `${name}: ${error.code}: ${error.message}`;
    const others = name === 'source' ? this.replicas : [this.source];
    const isThere = others.every(({ group }) => group !== undefined);
    const final = !this.#loaded && ['ask-operator', 'stop'].includes(error.next) && isThere;
    this.#refusedStarts = final && before === this.#lastStartError ? this.#refusedStarts + 1 : 0;
  }

  /** What a promise of the simulator itself rejects with ends the run. */
  watch(promise: Promise<unknown>): void {
    this.#watch(promise);
  }

  #watch(promise: Promise<unknown>): void {
    promise.catch((error: unknown) => this.fail(error));
  }

  async #story(): Promise<void> {
    for (const name of this.names) this.startSoon(name);
    this.#every(this.options.actMicros, () => this.#act());
    this.#every(300_000, () => this.#lookAfter());
    this.#nemesis.begin();
    this.#kafkaNemesis?.begin();
    await this.#until(() => false, this.options.activeMicros);
    this.#heal();
    const up = (): boolean => {
      const { group } = this.source;
      const standing = group?.status().state ?? 'failed';
      const whole = standing !== 'failed' && standing !== 'seeding' && !this.source.life.someAway;
      return whole && this.replicas.every((replica) => replica.group !== undefined);
    };
    await this.#until(() => up() || this.#refusedStarts >= REFUSED_STARTS_MAX, CATCH_UP_MICROS);
    const isUp = up();
    this.#demand(isUp, 'L1', () => `not up again: ${this.#lastStartError}`);
    const isIdle = await this.#until(() => this.source.clients.every(({ busy }) => busy === 0), CATCH_UP_MICROS);
    this.#demand(isIdle, 'L1', () => 'requests of guests are not answered');
    this.model.catchUp();
    await this.#catchUp();
    for (const replica of this.replicas) await this.#finish(this.#checkHealed(replica));
    const { giveUp } = this.options;
    if (giveUp !== undefined && !this.#isNamed()) {
      this.#isTelling = true;
      await this.#finish(new GiveUpStory(this, giveUp, giveUpRandom(this.#seed)).play(), STORY_MICROS);
      this.#isTelling = false;
      this.model.catchUp();
      await this.#catchUp();
      await this.#finish(this.#checkHealed(this.replica));
    }
    await this.#takeImages();
    for (const replica of this.replicas) await this.#finish(this.#checkImage(replica));
    await this.#finish(checkAtEnd(this));
  }

  async #takeImages(): Promise<void> {
    const { image } = this.options;
    const isLevel = this.replicas.every((replica) => !this.#isNamed(replica) && !replica.rotten);
    if (image === undefined || image.taken === 0 || !isLevel) return;
    const random = lateRandom(this.#seed).fork();
    const name = this.replicas.length > 1 && random.chance(0.5) ? 'second' : 'replica';
    await this.#finish(new ImageStory(this, name, random).play(image.taken), STORY_MICROS);
    this.model.catchUp();
    await this.#catchUp();
    for (const replica of this.replicas) await this.#finish(this.#checkHealed(replica));
  }

  /** The standby image has come to the head, and is that. Damage nobody can put back keeps it where it is, and is named. */
  async #checkImage(replica: ReplicaNode): Promise<void> {
    if (this.options.apply === 'off') return;
    if (replica.apply !== this.options.apply) {
      replica.drawsApply = undefined;
      await replica.stop();
      this.restart(replica === this.replica ? 'replica' : 'second');
    }
    const goal = replica.group?.headLsn ?? replica.durableLsn;
    for (const until = this.scheduler.nowMicros + HEAL_MICROS; ; ) {
      const standby = (await replica.group?.status())?.standby;
      const isThere = (standby?.appliedLsn ?? 0) >= goal && standby?.state === 'settled';
      if (isThere && standby !== undefined) {
        this.model.catchUp();
        replica.standby.checkAt(standby.appliedLsn, !replica.rotten);
        return;
      }
      const isOver = this.scheduler.nowMicros >= until;
      if (isOver && replica.rotten && /^(frame|journal)-damaged: /.test(standby?.reason ?? '')) return;
      must('L1', !isOver, () => `the image does not follow: ${JSON.stringify(standby)}`);
      await new Promise<void>((resolve) => {
        this.scheduler.after(20_000, resolve);
      });
    }
  }

  async #catchUp(): Promise<void> {
    const goal = this.model.history.lastLsn;
    for (const replica of this.replicas) {
      const level = (): boolean => (replica.group?.headLsn ?? 0) >= goal;
      const reached = await this.#until(() => level() || this.#isNamed(replica), CATCH_UP_MICROS);
      const why = reached ? '' : JSON.stringify((await this.#finish(replica.group?.status()))?.receiver);
      const { name } = replica.place;
      this.#demand(
        reached,
        'P3',
        () =>
          `replica ${name} has LSN ${replica.group?.headLsn} of ${goal}: ${why} ${JSON.stringify(this.source.ship)}`,
      );
    }
    const { degree } = this.options;
    const isSomeNamed = (): boolean => this.#required.some((replica) => this.#isNamed(replica));
    const kept = (): boolean => this.source.group?.status().degree.holds !== false || isSomeNamed();
    const isKept =
      (await this.#until(kept, HEAL_MICROS)) ||
      (await this.#isImageStuck()) ||
      (await this.#until(kept, CATCH_UP_MICROS));
    this.#demand(isKept, 'L1', () => `ack ${degree.policy.ack} does not hold again: ${this.source.degree}`);
  }

  get #required(): readonly ReplicaNode[] {
    return this.replicas.filter(({ place }) => place.required);
  }

  /** The promise waits for an image that damaged history keeps where it is. */
  async #isImageStuck(): Promise<boolean> {
    const waits = this.source.group?.status().degree.configured.ack === 'applied';
    for (const replica of this.#required) {
      const status = await this.#finish(replica.group?.status());
      if (waits && replica.rotten && (status?.damage.length ?? 0) > 0) return true;
    }
    return false;
  }

  /**
   * Damage is put back, and indexed by the next start. Over direct the source is asked, which still has it or not; what a
   * topic still has is not known here, so that it is waited for and no more.
   */
  async #checkHealed(replica: ReplicaNode): Promise<void> {
    const isDirect = this.options.stream.kind === 'direct';
    for (const until = this.scheduler.nowMicros + HEAL_MICROS; ; ) {
      const oldestLsn = isDirect ? (this.source.group?.journal.oldestLsn ?? 0) : 0;
      const status = await replica.group?.status();
      const waiting = status?.damage.filter(
        (one) => 'records' in one && one.toLsn - Number(one.records) + 1 >= oldestLsn,
      );
      const reopens = (await replica.stoppedBecause()) !== '';
      if (waiting?.length === 0 && !reopens) return;
      const isOver = this.scheduler.nowMicros >= until;
      if (isOver && !isDirect && !reopens && status !== undefined) return;
      must('R8', !isOver, () => {
        const reasons = waiting?.map((one) => ({ ...one, refusal: status?.refusalOf(one.fromLsn) }));
        return `damage stays although the journal begins at ${oldestLsn}: ${JSON.stringify(reasons)}`;
      });
      await new Promise<void>((resolve) => {
        this.scheduler.after(1_000_000, resolve);
      });
    }
  }

  /** What was done to the topics is healed, also what nobody waited for before, or one end names it. */
  async #accountForTopics(): Promise<void> {
    for (const replica of this.replicas) await this.#accountFor(replica);
  }

  async #accountFor(replica: ReplicaNode): Promise<void> {
    const faults = this.#topicFaults;
    if (faults === undefined) return;
    const goal = replica.durableLsn;
    for (const until = this.scheduler.nowMicros + ACCOUNT_MICROS; !this.#isNamed(replica); ) {
      const receiver = (await replica.group?.status())?.receiver;
      const open = faults.open({ ship: this.source.ship, receiver }, goal, replica.place.name);
      if (open.length === 0) return;
      must('P4', this.scheduler.nowMicros < until, () => `neither healed nor named: ${open.join(', ')}`);
      await new Promise<void>((resolve) => {
        this.scheduler.after(1_000_000, resolve);
      });
    }
  }

  /** The journal gave up what a replica needs, and says so (rules 13 and 22); for one that is not required it keeps nothing. */
  #isNamed(replica: ReplicaNode = this.replica): boolean {
    const { group } = this.source;
    const headLsn = replica.group?.headLsn ?? 0;
    if (group === undefined || group.journal.oldestLsn <= headLsn + 1) return false;
    if (!replica.place.required && this.source.shippingStopped === 'needs-resync') return true;
    if (group.status().givenUp === undefined) return false;
    this.model.catchUp();
    const announced = this.model.history.gaps().some(({ fromLsn, toLsn }) => fromLsn <= headLsn + 1 && headLsn < toLsn);
    return announced && this.source.shippingStopped === 'needs-resync';
  }

  /** Runs the world until a promise of the simulator is settled. */
  async #finish<T>(promise: Promise<T> | undefined, micros = END_CHECK_MICROS): Promise<T | undefined> {
    let settled = false;
    let value: T | undefined;
    this.#watch(
      (promise ?? Promise.resolve(undefined)).then((result) => {
        settled = true;
        value = result;
      }),
    );
    const ended = await this.#until(() => settled, micros);
    this.#demand(ended, 'L1', () => 'a check did not come to an end');
    return value;
  }

  #demand(holds: boolean, invariant: 'L1' | 'P3', message: () => string): void {
    if (!holds && this.#failure === undefined) throw new Violation(invariant, message());
    if (this.#failure !== undefined) throw this.#failure;
  }

  #until(done: () => boolean, micros: number): Promise<boolean> {
    return this.scheduler.runUntil(() => {
      if (this.model.violation !== undefined) this.fail(this.model.violation);
      return this.#failure !== undefined || done();
    }, micros);
  }

  #every(micros: number, action: () => void): void {
    this.scheduler.after(this.scheduler.random.between(1, 2 * micros), () => {
      action();
      this.#every(micros, action);
    });
  }

  #act(): void {
    if (this.scheduler.nowMicros < this.#idleUntilMicros) return;
    if (!this.#loaded) for (const client of this.source.clients) if (client.unfinished) client.act();
    if (!this.#loaded) return;
    for (const client of this.source.clients) if (this.scheduler.random.chance(0.5)) client.act();
  }

  /** What systemd and the operator do, and now and then a look at the replica. */
  #lookAfter(): void {
    const { random } = this.scheduler;
    if (this.source.mustRestart) this.crash('source', 'kill');
    if (this.#kafkaNemesis !== undefined && this.source.shippingStopped === 'frame-foreign') {
      this.#kafkaNemesis.giveTopicBack();
      this.crash('source', 'kill');
    }
    this.source.admitMore();
    if (this.#loaded && random.chance(0.2)) this.#watch(this.source.bookmark(`b${this.scheduler.nowMicros}`));
    if (this.#loaded) this.#watch(this.source.lookAfter());
    if (this.source.life.someAway && this.source.group !== undefined && (random.chance(0.1) || !this.#loaded)) {
      this.source.life.takeBack();
      this.#watch(this.source.stop().then(() => this.restart('source')));
    }
    for (const replica of this.replicas) replica.note();
    this.far.checkClaim();
    this.#changeDegree();
    const healedMicros = this.#healedMicros;
    const isStill = healedMicros !== undefined && this.scheduler.nowMicros >= healedMicros + HEAL_MICROS;
    for (const replica of this.replicas) {
      if (isStill && this.options.apply !== 'off') this.#watch(tendImage(this.source, replica));
      replica.checkTold(this.source.replicaTold(replica.place.name));
    }
    this.#checkTrim();
    this.source.checkRoom();
    this.source.checkIdle(this.scheduler.nowMicros);
    for (const life of this.#replicaLives) if (this.#loaded) this.#watch(life.act());
    for (const [index, replica] of this.replicas.entries()) this.#lookAt(replica, index === 0 ? 'replica' : 'second');
  }

  #lookAt(replica: ReplicaNode, name: NodeName): void {
    const { random } = this.scheduler;
    const { group } = replica;
    if (group === undefined) return;
    this.#watch(
      replica.stoppedBecause().then((reason) => {
        if (reason !== '' && replica.group === group) this.restart(name);
      }),
    );
    if (this.#isTelling && random.chance(0.85)) return;
    if (group.headLsn > group.floorLsn) {
      this.#watch(replica.checkView(random.between(group.floorLsn, group.headLsn)));
      if (random.chance(0.3)) this.#watch(replica.checkHeldView(random.between(group.floorLsn, group.headLsn)));
    }
  }

  /** An operator wants another degree, now and then. */
  #changeDegree(): void {
    const { degree, life } = this.options;
    const { group } = this.source;
    const { random } = this.scheduler;
    if (!this.#loaded || !degree.changes || group === undefined || !random.chance(0.1)) return;
    const drawnPolicy = drawPolicy(random, life.outOfRoom === 'block');
    const isSteady = this.options.apply === 'sync' && this.options.image?.changes !== true;
    const hasImage = isSteady || drawnPolicy.ack !== 'applied';
    const wanted: DegreePolicy = hasImage ? drawnPolicy : { ...drawnPolicy, ack: 'replica' };
    this.#watch(
      group.degree.change(wanted, random.chance(0.2)).catch((error: unknown) => {
        if (!(error instanceof TidemarkError)) throw error;
      }),
    );
  }

  /** The journal keeps what the replica does not hold, unless it was told to give history up (rule 22). */
  #checkTrim(): void {
    const journal = this.source.group?.journal;
    if (journal === undefined || this.options.life.outOfRoom !== 'block') return;
    const durableLsn = Math.min(...this.#required.map((replica) => replica.durableEverLsn));
    const { oldestLsn } = journal;
    must(
      'V2',
      oldestLsn <= durableLsn + 1,
      () => `the journal begins at ${oldestLsn}, the replica holds ${durableLsn}`,
    );
  }

  #heal(): void {
    this.#nemesis.end();
    this.#kafkaNemesis?.end();
    this.#degreeFileNemesis?.end();
    for (const one of this.#stampNemeses) one.end();
    this.#loaded = false;
    this.#healedMicros = this.scheduler.nowMicros;
    this.network.blocked = 'none';
    this.network.faults = NO_NETWORK_FAULTS;
    if (this.replicas.length > 1) for (const { place } of this.replicas) this.network.block(place.address, 'none');
    this.kafka.cutOff.clear();
    for (const { machine } of [this.source, ...this.replicas]) {
      machine.disk.faults = { ...NO_DISK_FAULTS, latencyMicrosMax: 100 };
      machine.disk.capacityBytes = machine.disk.sizeBytes;
    }
  }
}
