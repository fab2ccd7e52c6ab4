import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import type { DiskFaults } from '../doubles/simulated-disk.ts';
import { LATE_MICROS_MAX } from '../doubles/simulated-kafka.ts';
import { BitRot, type RottenBatch } from './bit-rot.ts';
import type { GiveUpOptions, WordFaults } from './give-up-options.ts';
import { GROUP_ID, TOPIC } from './names.ts';
import { isWordGiven, type RunningSource, sayGiveUp, standingOf } from './operator.ts';
import type { SeededRandom } from './seeded-random.ts';
import { type Invariant, must } from './violation.ts';
import type { World } from './world.ts';

/** As journal/FORMAT.md has them. */
const BATCH_MAGIC = 0x31424d54;
const BATCH_HEADER_BYTES = 64;
const REPAIRED = 0x4000_0000;

const POLL_MICROS = 40_000;
const START_POLL_MICROS = 500;
/** The product asks again every five seconds; a seed waits for a replica that takes it. */
const PATIENCE_MICROS = 400_000_000;
/** One that was not heard for so long is away. */
const SILENT_MICROS = 35_000_000;
const RECORDS_MAX = 60;
const BATCHES_MAX = 4;
/** Of the journal's budget, with what nobody gets meanwhile. */
const USED_MAX = 0.3;
/** What late requests have stirred up settles. */
const CALM_MICROS = 60_000_000;
const WORD_TRIES = 60;
const POINTS_LOOKED_AT = 12;
const LAST_WRITES = 8;
const NUDGE_MICROS = 5_000_000;
const NUDGES_MAX = 40;
const WRITES: ReadonlySet<number> = new Set([RecordKind.write, RecordKind.zero, RecordKind.trim]);

/**
 * Records that only the source's journal has rot there; the source stands still and says so; an operator gives them up;
 * the next start carries that out, also when it is killed, and a new seed makes points again. Begins when everything of
 * the run is well, and leaves it so.
 */
export class GiveUpStory {
  readonly #world: World;
  readonly #options: GiveUpOptions;
  readonly #random: SeededRandom;
  readonly #rot: BitRot;
  #round = 0;

  constructor(world: World, options: GiveUpOptions, random: SeededRandom) {
    this.#world = world;
    this.#options = options;
    this.#random = random;
    this.#rot = new BitRot(world, random);
    world.model.history.lost.isHeld = (lsn) =>
      lsn <= world.replica.durableLsn || this.#inTopic().some(({ fromLsn, toLsn }) => fromLsn <= lsn && lsn <= toLsn);
  }

  async play(): Promise<void> {
    const { stream } = this.#world.options;
    // a word of a replica that is dead by then would make it look alive
    if (stream.kind === 'kafka' && stream.faults.lateSends > 0) await this.#pause(LATE_MICROS_MAX);
    for (this.#round = 1; this.#round <= this.#options.rounds; this.#round++) {
      for (let waited = 0; waited < CALM_MICROS && !this.#isCalm(); waited += POLL_MICROS)
        await this.#pause(POLL_MICROS);
      if (!this.#isCalm()) return;
      await this.#gap();
      await this.#until('G6', 'requests of guests are answered', () => this.#isIdle());
    }
  }

  async #gap(): Promise<void> {
    const { refused } = this.#options;
    if (refused.includes('nothing-lost')) await this.#refused('precondition-failed', /nothing to give up/);
    if (refused.includes('held')) await this.#refuseHeld();
    const rotten = await this.#lose();
    if (rotten.length === 0) return;
    if (this.#isUnreachable(rotten)) {
      await this.#refuseUnreachable();
      return;
    }
    if (!(await this.#standsStill(rotten))) return;
    await this.#guestsWrite(10);
    if (refused.includes('away')) await this.#refuseAway();
    const isGiven = refused.includes('disks-lack') && (await this.#refuseNeeded()) === 'given';
    if (refused.includes('dry-run') && !isGiven) await this.#askOnly(rotten);
    if (!isGiven) await this.#give(rotten);
    if (this.#options.waits) await this.#wordWaits();
    if (this.#options.arrivesAfterAll) await this.#arrives(rotten);
    else await this.#carryOut(rotten);
    await this.#guestsWrite(RECORDS_MAX);
    await this.#level();
    await this.#checkPoints();
  }

  /** Everybody has everything, and nothing is in doubt. */
  #isCalm(): boolean {
    const { model, source } = this.#world;
    const isWhole = source.group?.status().state === 'protecting' && source.shippingStopped === '';
    return isWhole && model.history.gaps().length === 0 && (source.running?.shipper.damage.length ?? 1) === 0;
  }

  /** Guests write what nobody but the journal gets, all of it is written out, and some of it rots. */
  async #lose(): Promise<readonly RottenBatch[]> {
    const world = this.#world;
    const { nobodyBy, rots, ends } = this.#options;
    await this.#level();
    if (nobodyBy === 'replica-down' || nobodyBy === 'topic-expires') await this.#replicaDown();
    if (nobodyBy === 'cut-off') await this.#cutOff();
    if (nobodyBy === 'brokers-down') world.kafka.down = true;
    await this.#guestsWrite(this.#random.between(8, RECORDS_MAX));
    await this.#writtenOut();
    const { stretches, beginsHeld } = this.#options;
    const rotten = this.#rot.pick(world.replica.durableLsn, { stretches, batchesMax: BATCHES_MAX, beginsHeld });
    if (rots === 'down') await this.#crash(ends === 'losePower' ? 'losePower' : 'kill');
    if (nobodyBy === 'topic-expires') this.#expireTopic();
    this.#rot.turn(rotten);
    await this.#pause(this.#random.between(1, 1_000_000));
    if (nobodyBy === 'topic-expires') await this.#expireWhatComesLate();
    this.#comeBack();
    return rotten;
  }

  /** Over Kafka the topic gives records back, not the replica: it may have lost some that the replica holds. */
  #isUnreachable(rotten: readonly RottenBatch[]): boolean {
    const { replica, options } = this.#world;
    if (!this.#options.beginsHeld || options.stream.kind !== 'kafka') return false;
    const inTopic = this.#inTopic();
    for (let lsn = Math.min(...rotten.map(({ fromLsn }) => fromLsn)); lsn <= replica.durableLsn; lsn++) {
      if (!inTopic.some(({ fromLsn, toLsn }) => fromLsn <= lsn && lsn <= toLsn)) return true;
    }
    return false;
  }

  #expireTopic(): void {
    const { kafka } = this.#world;
    const bounds = kafka.bounds(TOPIC);
    if (bounds !== undefined) kafka.expireBefore(TOPIC, bounds.end);
  }

  /**
   * The newest frames may have been on their way. A topic that holds them and not those before would keep the word
   * waiting until an operator deletes them: it says only how far it goes (DURABILITY.md, residual risks).
   */
  async #expireWhatComesLate(): Promise<void> {
    const { stream } = this.#world.options;
    if (stream.kind !== 'kafka') return;
    await this.#pause(2 * stream.faults.latencyMicrosMax);
    if (stream.faults.lateSends > 0) await this.#pause(LATE_MICROS_MAX);
    this.#expireTopic();
  }

  #comeBack(): void {
    const world = this.#world;
    world.network.blocked = 'none';
    world.kafka.down = false;
    world.heldDown.delete('replica');
    if (!world.replica.machine.running) world.startSoon('replica');
  }

  /** Until the source knows of it: what it sends before arrives when the network is whole again. */
  async #cutOff(): Promise<void> {
    const { network, source } = this.#world;
    network.blocked = 'both';
    network.cutAll();
    const knows = (): boolean => source.running?.shipper.streams.every(({ state }) => state !== 'streaming') !== false;
    await this.#until('L1', 'the source knows that it is cut off', knows);
  }

  /** In an event of its own: what a process does at this moment it still does. */
  #replicaDown(): Promise<void> {
    const { heldDown, replica } = this.#world;
    return this.#event(() => {
      heldDown.add('replica');
      replica.kill();
    });
  }

  #crash(how: 'kill' | 'losePower'): Promise<void> {
    return this.#event(() => this.#world.crash('source', how));
  }

  #event(action: () => void): Promise<void> {
    return new Promise((resolve) => {
      this.#world.scheduler.after(0, () => {
        action();
        resolve();
      });
    });
  }

  /** The replica gets what stands before the first, and nothing behind it, however long it waits; the damage has a name. */
  async #standsStill(rotten: readonly RottenBatch[]): Promise<boolean> {
    const world = this.#world;
    const firstLost = (): Lsn => this.#lostOf(rotten)[0] ?? 0;
    const names = (): boolean => {
      const damage = world.source.running?.shipper.damage ?? [];
      const first = firstLost();
      return (
        first === 0 ||
        damage.some(({ answers, fromLsn, toLsn }) => fromLsn <= first && first <= toLsn && answers.length > 0)
      );
    };
    await this.#until('G2', `records from ${firstLost()} on are named`, names);
    const first = firstLost();
    if (first === 0) {
      // it was on its way when the other side went away
      this.#rot.turnBack();
      return false;
    }
    await this.#pause(this.#random.between(1, 8_000_000));
    await this.#until('G2', 'the source is up', () => world.source.running !== undefined);
    world.replica.note();
    const { durableLsn } = world.replica;
    must('G2', durableLsn < first, () => `the replica has LSN ${durableLsn}, nobody has ${first}`);
    for (const { fromLsn, toLsn } of world.source.running?.shipper.damage ?? []) {
      const outside = [fromLsn, toLsn].some((lsn) => !rotten.some((one) => one.fromLsn <= lsn && lsn <= one.toLsn));
      must('G2', !outside, () => `${fromLsn} to ${toLsn} are named, of which not all has rotted`);
    }
    return true;
  }

  /** What rotted and nobody holds, in order. */
  #lostOf(rotten: readonly RottenBatch[]): Lsn[] {
    const all = rotten.flatMap(({ fromLsn, toLsn }) => range(fromLsn, toLsn));
    const held = this.#inTopic();
    const { durableLsn } = this.#world.replica;
    const isHeld = (lsn: Lsn): boolean => held.some(({ fromLsn, toLsn }) => fromLsn <= lsn && lsn <= toLsn);
    return all.filter((lsn) => lsn > durableLsn && !isHeld(lsn)).sort((a, b) => a - b);
  }

  /** Of what the replica holds something rots: it comes back, or is refused with the holder's name; given up it is not. */
  async #refuseHeld(): Promise<void> {
    const world = this.#world;
    await this.#level();
    await this.#writtenOut();
    const [rotten] = this.#rot.pickHeld(world.replica.durableLsn);
    const running = world.source.running;
    if (rotten === undefined || running === undefined) return;
    this.#rot.turn([rotten]);
    running.shipper.mendAt(rotten.from);
    await this.#refused('precondition-failed', /nothing to give up|has acknowledged records/);
    this.#rot.turnBack();
    const isWell = (): boolean => world.source.running?.shipper.damage.length === 0;
    await this.#until('G5', 'what somebody holds is put back', isWell);
  }

  /** Over Kafka a replica is not asked: what it alone holds is not given up. The bits turn back. */
  async #refuseUnreachable(): Promise<void> {
    const { source } = this.#world;
    const isNamed = (): boolean => source.running?.shipper.damage.some(({ answers }) => answers.length > 0) === true;
    await this.#until('G2', 'what cannot be read is named', isNamed);
    const { shipper } = await this.#connected();
    // shipping that goes on right behind what is held has no need to look at it
    const { durableLsn } = this.#world.replica;
    if (shipper.damage.some(({ fromLsn }) => fromLsn <= durableLsn)) {
      await this.#refused('precondition-failed', /has acknowledged records/);
    }
    this.#rot.turnBack();
    await this.#level();
  }

  async #refuseAway(): Promise<void> {
    if (this.#options.nobodyBy === 'cut-off') await this.#cutOff();
    else await this.#replicaDown();
    await this.#pause(SILENT_MICROS);
    await this.#refused('stream-unavailable', /may hold the records and is not/);
    this.#comeBack();
  }

  /**
   * Something rots that no disk has yet: the guests' own data would be lost. The bit turns back, and the source starts anew.
   * `given`: the disks got it while the word was asked for, so that it stands for what they do not need.
   */
  async #refuseNeeded(): Promise<'given' | undefined> {
    const world = this.#world;
    await this.#connected();
    await this.#guestsWrite(6);
    const { running } = world.source;
    if (running === undefined) return undefined;
    const { group } = running;
    const isDurable = (): boolean => group.status().durableLsn >= world.model.history.lastLsn;
    await this.#until('G5', 'it is durable', () => world.source.group !== group || isDurable());
    if (world.source.group !== group) return undefined;
    const [newest] = this.#rot.pickNeeded(group.writtenOut.checkpoint.address);
    if (newest === undefined) return undefined;
    this.#rot.turn([newest]);
    const before = standingOf(running.host);
    const why = await outcomeOf(sayGiveUp(running, this.#reason, false));
    if (world.source.group === group && group.writtenOut.checkpoint.address <= newest.from) {
      must('G5', hasCode(why, 'precondition-failed'), () => `given up though the disks lack ${newest.fromLsn}`);
      const named = (why as TidemarkError).message;
      must('G5', /the disks lack records/.test(named), () => `refused for another reason: ${named}`);
      must('G5', before === standingOf(running.host), () => 'a refused word changed something');
    }
    this.#rot.turnBack(newest);
    if (!(why instanceof Error)) {
      world.model.history.lost.given(why.word.stretches, why.word.reason);
      return 'given';
    }
    await this.#crash('kill');
    await this.#connected();
    return undefined;
  }

  async #askOnly(rotten: readonly RottenBatch[]): Promise<void> {
    const before = this.#standing();
    await this.#word(rotten, true);
    must('G5', before === this.#standing(), () => 'a question changed something');
  }

  async #give(rotten: readonly RottenBatch[]): Promise<void> {
    await this.#word(rotten, false);
    must('G6', isWordGiven(this.#observed()), () => 'the word is not on the disk');
  }

  /** As often as an operator tries who is told that somebody is not there yet. */
  async #word(rotten: readonly RottenBatch[], dryRun: boolean): Promise<void> {
    const { lost } = this.#world.model.history;
    let refusal = '';
    for (let count = 0; count < WORD_TRIES; count++) {
      const running = await this.#connected();
      const outcome = await outcomeOf(sayGiveUp(running, this.#reason, dryRun));
      if (!(outcome instanceof Error)) {
        const { word, reply } = outcome;
        const expected = this.#lostOf(rotten).join();
        const told = reply.lost.flatMap(({ fromLsn, toLsn }) => range(fromLsn, toLsn)).sort((a, b) => a - b);
        must('G1', told.join() === expected, () => `${told.join()} would be given up, nobody holds ${expected}`);
        if (!dryRun) lost.given(word.stretches, word.reason);
        return;
      }
      refusal = outcome.message;
      // it is asked for still, or was found damaged elsewhere and not here yet
      const { code, message } = outcome;
      const isForNow = code === 'stream-unavailable' || /nothing to give up/.test(message);
      must('G6', isForNow, () => `nobody holds the records, and the word is refused: ${message}`);
      await this.#pause(1_000_000);
    }
    must('G6', false, () => `everybody is there, and the word is refused: ${refusal}`);
  }

  /** Somebody cannot be asked when the source starts. */
  async #wordWaits(): Promise<void> {
    const world = this.#world;
    if (this.#options.nobodyBy === 'brokers-down' || this.#options.nobodyBy === 'topic-expires')
      world.kafka.down = true;
    else await this.#replicaDown();
    await this.#expectWaiting();
    this.#comeBack();
    await this.#connected();
  }

  async #expectWaiting(): Promise<void> {
    const world = this.#world;
    const before = this.#standing();
    const lost = world.model.history.lost.count;
    await this.#endSource(this.#options.ends);
    await this.#until('G5', 'the source is up', () => world.source.running !== undefined);
    must('G5', world.source.wordWaits !== '', () => 'somebody could not be asked, and the word did not wait');
    must('G5', before === this.#standing(), () => `a word that waits changed ${before} to ${this.#standing()}`);
    must('G5', lost === world.model.history.lost.count, () => 'a word that waits gave something up');
  }

  /** It was the cable: all records arrive. When they rot then, the word may not count any more. */
  async #arrives(rotten: readonly RottenBatch[]): Promise<void> {
    const world = this.#world;
    const { lost } = world.model.history;
    const before = lost.count;
    const volumes = this.#volumes();
    await this.#until('G5', 'the source is up', () => world.source.running !== undefined);
    this.#rot.turnBack();
    await this.#level();
    await this.#writtenOut();
    await this.#crash(this.#options.ends === 'losePower' ? 'losePower' : 'kill');
    if (this.#options.nobodyBy === 'topic-expires') this.#expireTopic();
    this.#rot.turn(this.#rot.stillThere(rotten));
    await this.#until('G5', 'the source is up', () => world.source.running !== undefined);
    if (isWordGiven(this.#observed())) {
      must('G5', world.source.wordWaits !== '', () => 'the word was neither carried out nor does it wait');
      await this.#crash('kill');
      this.#rot.turnBack();
      await this.#until('G5', 'the source is up', () => world.source.running !== undefined);
    }
    must('G5', !isWordGiven(this.#observed()), () => 'everything is there, and the word stands still');
    must('G5', lost.count === before, () => 'what had arrived was given up');
    must('G5', volumes === this.#volumes(), () => 'what had arrived is seeded anew');
    lost.withdrawn();
  }

  /** Restarts until the word is gone; some of the starts die. */
  async #carryOut(rotten: readonly RottenBatch[]): Promise<void> {
    const world = this.#world;
    const { lost } = world.model.history;
    const before = lost.count;
    const expected = this.#lostOf(rotten);
    await this.#connected();
    await this.#guestsWrite(this.#random.below(20));
    // the disks are behind what the journal has
    for (let count = 0; count < LAST_WRITES; count++) for (const client of world.source.clients) client.act();
    await this.#endSource(this.#options.ends);
    const ends = this.#options.faults === undefined ? Promise.resolve() : this.#fails(this.#options.faults);
    for (const { how, micros, after } of this.#options.crashes) {
      await this.#until('G6', 'a start', () => world.source.machine.running, START_POLL_MICROS);
      if (after === 'repair') await this.#repairs();
      await this.#pause(micros);
      if (!world.source.machine.running) continue;
      const isDone = lost.count > before || this.#isSeedOrdered();
      must('G6', isDone || isWordGiven(this.#observed()), () => 'no word, and no new seed');
      await this.#crash(how);
    }
    for (let count = 0; ; count++) {
      await this.#until('G6', 'the source is up', () => world.source.running !== undefined);
      if (!isWordGiven(this.#observed())) break;
      await ends;
      must('G6', count < 5, () => `the word is not carried out: ${world.source.wordWaits}`);
      await this.#connected();
      await this.#endSource('stop');
    }
    await ends;
    const found = lost.all().slice(-expected.length).join();
    must('G1', found === expected.join() && lost.count === before + expected.length, () => {
      return `LOST are ${lost.all().join()}, given up was ${expected.join()}`;
    });
    const isSeeded = (): boolean => world.source.group?.status().state === 'protecting';
    await this.#until('G6', 'the new seed has ended', isSeeded);
  }

  /** Disks that fail now and then, or have no room; resolves when that is over. */
  async #fails({ micros, full, replica, ...rates }: WordFaults): Promise<void> {
    const world = this.#world;
    const { disk } = world.source.machine;
    const disks = replica ? [disk, world.replica.machine.disk] : [disk];
    const before = disks.map(({ faults }) => faults);
    for (const one of disks) one.faults = { ...one.faults, ...rates };
    if (full) disk.capacityBytes = disk.usedBytes();
    await this.#pause(micros);
    for (const [index, one] of disks.entries()) one.faults = before[index] as DiskFaults;
    disk.capacityBytes = disk.sizeBytes;
  }

  /** The first write of a batch in the place of another one; the source is up at last. */
  async #repairs(): Promise<void> {
    const { source } = this.#world;
    const { disk } = source.machine;
    const before = disk.onWrite;
    const repaired = new Promise<void>((resolve) => {
      disk.onWrite = (path, bytes): void => {
        before(path, bytes);
        if (isRepairedBatch(path, bytes)) resolve();
      };
    });
    await Promise.race([repaired, this.#until('G6', 'the source is up', () => source.running !== undefined)]);
    disk.onWrite = before;
  }

  /** At the replica, from before the first gap to behind the last seed. */
  async #checkPoints(): Promise<void> {
    const { model, replica } = this.#world;
    const { history } = model;
    const [first] = history.lost.all();
    if (first === undefined || replica.group === undefined || replica.rotten) return;
    const seededLsn = history.newestControl(RecordKind.seedEnd);
    must('G4', seededLsn > first, () => `records from ${first} on are lost, and no seed has ended behind them`);
    must('G4', replica.isSeeded(seededLsn), () => `the seed ended at ${seededLsn}, and no point is expected`);
    must('G3', !replica.isSeeded(first), () => `a point is expected at ${first}`);
    const looked = new Set([first - 1, first, seededLsn - 1, seededLsn, seededLsn + 1]);
    for (let count = 0; count < POINTS_LOOKED_AT; count++) looked.add(this.#random.between(first, seededLsn));
    for (const lsn of looked) {
      const { group } = replica;
      if (group === undefined || lsn < group.floorLsn || lsn > group.headLsn) continue;
      if (replica.isSeeded(lsn)) {
        await replica.checkView(lsn);
        continue;
      }
      let why: unknown;
      try {
        const view = group.openView({ lsn, owner: 'gap', scratchBytesMax: 0 });
        await group.views.close(view.id);
      } catch (error) {
        why = error;
      }
      must(
        'G3',
        hasCode(why, 'precondition-failed'),
        () => `LSN ${lsn} behind the gap at ${first} is shown: ${String(why)}`,
      );
      const { message } = why as Error;
      must('G3', /gap|seeding/.test(message), () => `LSN ${lsn} is refused without the gap's name: ${message}`);
    }
  }

  get #reason(): string {
    return `Ada, round ${this.#round}: nobody has them`;
  }

  /** A word that must be refused with this, and changes nothing. */
  async #refused(code: 'precondition-failed' | 'stream-unavailable', message: RegExp): Promise<void> {
    const { running } = this.#world.source;
    if (running === undefined) return;
    const before = this.#standing();
    const lost = this.#world.model.history.lost.count;
    const why = await outcomeOf(sayGiveUp(running, this.#reason, false));
    if (this.#world.source.group !== running.group) return;
    must('G5', why instanceof TidemarkError, () => {
      return `a word was taken that must be refused: ${JSON.stringify(running.shipper.status().replicas)}`;
    });
    // a stream that just finds its way again is a reason, too
    const isAsExpected = why.code === 'stream-unavailable' || (why.code === code && message.test(why.message));
    must('G5', isAsExpected, () => `refused with ${why.code}: ${why.message}`);
    must('G5', before === this.#standing(), () => `a refused word changed ${before} to ${this.#standing()}`);
    must('G5', lost === this.#world.model.history.lost.count, () => 'a refused word gave something up');
  }

  async #endSource(how: GiveUpOptions['ends']): Promise<void> {
    const world = this.#world;
    if (how !== 'stop') {
      await this.#crash(how);
      return;
    }
    const { process } = world.source.machine;
    world.watch(world.source.stop().then(() => world.restart('source')));
    await this.#until('L1', 'the source stops', () => world.source.machine.process !== process || !process?.alive);
  }

  /** Everybody is there and was heard. */
  async #connected(): Promise<RunningSource> {
    const { source, replica } = this.#world;
    const heard = (): boolean => {
      const [one] = source.running?.shipper.status().replicas ?? [];
      const isThere = source.running?.shipper.streams.every(({ state }) => state === 'streaming') === true;
      return isThere && replica.group !== undefined && typeof one?.durableLsn === 'number';
    };
    await this.#until('L1', 'source and replica hear one another', heard);
    return source.running as RunningSource;
  }

  async #level(): Promise<void> {
    const { model, replica, source } = this.#world;
    await this.#until('L1', 'the source is up', () => source.running !== undefined);
    model.catchUp();
    const goal = model.history.lastLsn;
    await this.#until('P3', `the replica has LSN ${goal}`, () => (replica.group?.headLsn ?? 0) >= goal);
  }

  /** In the disks, and witnessed by a header behind it: neither a kill nor a power loss takes it for a torn tail. */
  async #writtenOut(): Promise<void> {
    const { model, source } = this.#world;
    model.catchUp();
    let goal = model.history.lastLsn;
    // where nothing is written nothing is written out
    while (goal > 0 && !WRITES.has(model.history.record(goal)?.kind ?? 0)) goal--;
    const isDone = (): boolean => {
      model.catchUp();
      const checkpointLsn = source.group?.status().checkpointLsn ?? 0;
      return checkpointLsn >= goal && (model.follower?.witnessedLsn ?? 0) >= goal;
    };
    for (let nudged = 0; !isDone(); nudged++) {
      must('L1', nudged < NUDGES_MAX, () => `LSN ${goal} is not written out: ${source.group?.status().checkpointLsn}`);
      // what a start has replayed is noted with the next write
      if (nudged > 0) await this.#guestsWrite(3);
      for (let waited = 0; waited < NUDGE_MICROS && !isDone(); waited += POLL_MICROS) await this.#pause(POLL_MICROS);
    }
  }

  /** About so many records, in a time that guests take, and a flush at last. */
  async #guestsWrite(records: number): Promise<void> {
    const { model, options, source } = this.#world;
    model.catchUp();
    const goal = model.history.lastLsn + records;
    for (let count = 0; count < 2 * records && model.history.lastLsn < goal; count++) {
      const journal = source.group?.journal;
      if (journal === undefined || journal.usedBytes > USED_MAX * (journal.usedBytes + journal.freeBytes)) break;
      for (const client of source.clients) if (this.#random.chance(0.5)) client.act();
      await this.#pause(Math.min(options.actMicros, 4000));
    }
    await this.#until('L1', 'requests of guests are answered', () => this.#isIdle());
    for (const client of source.clients) client.flush();
    await this.#until('L1', 'requests of guests are answered', () => this.#isIdle());
    model.catchUp();
  }

  #isIdle(): boolean {
    return this.#world.source.clients.every(({ busy }) => busy === 0);
  }

  #observed(): RunningSource['host'] {
    return this.#world.source.machine.observe();
  }

  #standing(): string {
    return standingOf(this.#observed());
  }

  #volumes(): string {
    return JSON.stringify((JSON.parse(this.#standing()) as { volumes: unknown }).volumes);
  }

  #isSeedOrdered(): boolean {
    const { volumes } = JSON.parse(this.#standing()) as { volumes: { reseedFromLsn?: Lsn }[] };
    return volumes.every(({ reseedFromLsn }) => reseedFromLsn !== undefined);
  }

  /** Records that frames in the topic have. */
  #inTopic(): { readonly fromLsn: Lsn; readonly toLsn: Lsn }[] {
    const found: { readonly fromLsn: Lsn; readonly toLsn: Lsn }[] = [];
    this.#world.kafka.inject(TOPIC, (records) => {
      for (const { value } of records) {
        try {
          const { firstLsn, groupId, lastLsn } = FrameView.open(value);
          if (groupId === GROUP_ID) found.push({ fromLsn: firstLsn, toLsn: lastLsn });
        } catch (error) {
          if (!(error instanceof TidemarkError)) throw error;
        }
      }
      return undefined;
    });
    return found;
  }

  #pause(micros: number): Promise<void> {
    return new Promise((resolve) => {
      this.#world.scheduler.after(micros, resolve);
    });
  }

  async #until(invariant: Invariant, what: string, isSo: () => boolean, pollMicros = POLL_MICROS): Promise<void> {
    const { scheduler, source } = this.#world;
    const end = scheduler.nowMicros + PATIENCE_MICROS;
    while (!isSo()) {
      must(invariant, scheduler.nowMicros < end, () => {
        const { running } = source;
        const damage = JSON.stringify(running?.shipper.damage);
        const { state, reason } = running?.group.status() ?? { state: 'down', reason: '' };
        return `it never comes to this: ${what}; ${state} ${reason} ${running?.shipper.status().reason} ${damage}`;
      });
      await this.#pause(pollMicros);
    }
  }
}

/** A batch of the journal that says it stands where another one stood. */
function isRepairedBatch(path: string, bytes: Uint8Array): boolean {
  if (bytes.length < BATCH_HEADER_BYTES || !path.endsWith('.tmj')) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return view.getUint32(0, true) === BATCH_MAGIC && (view.getUint32(48, true) & REPAIRED) !== 0;
}

function range(from: Lsn, to: Lsn): Lsn[] {
  return Array.from({ length: Math.max(0, to - from + 1) }, (_, index) => from + index);
}

async function outcomeOf<T>(saying: Promise<T>): Promise<T | TidemarkError> {
  try {
    return await saying;
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    return error;
  }
}
