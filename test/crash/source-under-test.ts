import { closeSync, existsSync, fsyncSync, ftruncateSync, openSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { FileBacking } from '../../daemon/backing/file-backing.ts';
import { Shipper } from '../../daemon/ship/shipper.ts';
import { ProtectedGroup } from '../../daemon/volume/protected-group.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { LocalMarks } from '../../journal/local-marks.ts';
import type { RecoveryReport } from '../../journal/recovery-report.ts';
import { HandClient } from '../volume/support/group-bench.ts';
import { KeepingSink, REPLICA_NAME } from './keeping-sink.ts';
import { readWitness, type Testimony, Witness } from './witness.ts';
import { type Step, VOLUME_BYTES, VOLUME_NAMES, type Workload } from './workload.ts';

export const GROUP_ID: string = '5a'.repeat(16);
export const JOURNAL_FILE_BYTES: number = 256 * 1024;
const ANSWER_WAIT_MS = 20_000;
const DRAIN_EVERY = 15;

export interface SourcePlace {
  /** Holds the journal and, unless `disks` is given, the raw disks. */
  readonly directory: string;
  readonly disks?: string;
  /** Outside of what is tested. */
  readonly witness: string;
}

/** The source's data path as the product runs it, under a workload: group, journal, disks, shipper. */
export class SourceUnderTest {
  readonly group: ProtectedGroup;
  readonly report: RecoveryReport;
  readonly #place: SourcePlace;
  readonly #workload: Workload;
  readonly #witness: Witness;
  readonly #shipper: Shipper;
  readonly #clients: readonly HandClient[];
  /** So many units are in the disks. */
  #next = 0;

  private constructor(
    place: SourcePlace,
    workload: Workload,
    witness: Witness,
    group: ProtectedGroup,
    shipper: Shipper,
  ) {
    this.#place = place;
    this.#workload = workload;
    this.#witness = witness;
    this.group = group;
    this.report = group.journal.report;
    this.#shipper = shipper;
    this.#clients = group.exports('local').map((one) => new HandClient(one));
  }

  /** Opens, recovers, and compares with the witness; `keeps`: what no accident of the tested kind may take. */
  static async open(
    place: SourcePlace,
    workload: Workload,
    keeps: 'acknowledged' | 'flushed',
    bootId?: string,
  ): Promise<SourceUnderTest> {
    const witness = new Witness(place.witness);
    const host = bootId === undefined ? realHost() : { ...realHost(), bootId };
    const told = readWitness(place.witness);
    const sink = (): KeepingSink => new KeepingSink(witness, told.farLsn, told.farChain);
    const volumes = VOLUME_NAMES.map((name) => ({ name, backing: disk(place, name) }));
    let group: ProtectedGroup;
    try {
      group = await ProtectedGroup.open(
        host,
        {
          journal: {
            directory: join(place.directory, 'journal'),
            groupId: GROUP_ID,
            groupName: 'crash',
            fileBytes: JOURNAL_FILE_BYTES,
            budgetBytes: 6 * JOURNAL_FILE_BYTES,
            syncIntervalMs: 25,
          },
          volumes,
          overlayBytesMax: 4 * 1024 * 1024,
          outOfRoom: 'block',
          afterPowerLoss: 'serve',
          destageWindowBytes: 256 * 1024,
          flushBytes: 256 * 1024,
          flushAgeMs: 60_000,
          heartbeatMs: 60_000,
          settle: () => sink().settle(),
        },
        new LocalMarks(),
      );
    } catch (error) {
      for (const { backing } of volumes) await backing.close();
      witness.close();
      throw error;
    }
    try {
      const { journal } = group;
      const { incarnation } = journal;
      if (incarnation === undefined) throw new Error('the journal has not begun');
      const shipper = await Shipper.open(host, {
        directory: join(place.directory, 'journal'),
        journal,
        marks: journal.marks,
        identity: {
          groupId: GROUP_ID,
          groupName: 'crash',
          epoch: journal.epoch,
          incarnation,
          frameVersion: FRAME_VERSION,
        },
        sinks: [sink()],
        replicas: [{ name: REPLICA_NAME, required: true }],
      });
      const opened = new SourceUnderTest(place, workload, witness, group, shipper);
      await opened.#compare(told, keeps);
      return opened;
    } catch (error) {
      await group.close().catch(ignoreOperatingError);
      witness.close();
      throw error;
    }
  }

  /** Units that are in the disks. */
  get kept(): number {
    return this.#next;
  }

  /** The disks as a guest reads them. */
  async content(): Promise<Buffer[]> {
    return Promise.all(this.#clients.map((client) => client.read(0, VOLUME_BYTES)));
  }

  /**
   * Submits the steps that follow what is there, up to (not including) step `end`. Throws the TidemarkError that a guest
   * saw; a group that failed is told the same way.
   */
  async run(end: number): Promise<void> {
    const from = this.#workload.stepBehind(this.#next);
    for (let index = from; index < Math.min(end, this.#workload.steps.length); index++) {
      const step = (this.#workload.steps[index] as Step).filter(({ number }) => number > this.#next);
      await this.#submit(step);
      const { state, reason } = this.group.status();
      if (state === 'failed') throw new TidemarkError('sync-failed', reason);
      if (index % DRAIN_EVERY === DRAIN_EVERY - 1) {
        await inTime(this.group.drain(), 'a drain');
        const { lsn } = await inTime(this.group.bookmark(`b${index}`, 'crash'), 'a bookmark');
        this.#witness.bookmark(lsn);
      }
      // timers, shipping and write-out have their turn
      await new Promise((resolve) => {
        setTimeout(resolve, 1);
      });
    }
  }

  /** After a poison: nothing may be answered with success any more. */
  async refusesAll(): Promise<boolean> {
    if (this.group.journal.poisonedBy === undefined) return true;
    const [client] = this.#clients;
    const write = { do: 'write', offset: 0, bytes: Buffer.alloc(512, 0xab), fua: true } as const;
    const answers = await inTime(Promise.all(client?.submit([write, { do: 'flush' }]) ?? []), 'an answer after poison');
    return answers.every((answer) => answer !== 'ok');
  }

  /** Clean stop, as the product does it. */
  async close(): Promise<void> {
    for (const { client } of this.#clients) client.detach();
    try {
      await inTime(this.#shipper.close(), 'closing the shipper');
    } finally {
      await inTime(this.group.close(), 'closing the group').finally(() => this.#witness.close());
    }
  }

  /** Everything written out: the raw disks must be what a guest reads. */
  async drainedDisks(): Promise<Buffer[]> {
    await inTime(this.group.drain(), 'a drain');
    return VOLUME_NAMES.map((name) => readFileSync(diskPath(this.#place, name)));
  }

  async #submit(step: Step): Promise<void> {
    const last = step.at(-1);
    if (last === undefined) return;
    const client = this.#clients[last.volume] as HandClient;
    await inTime(client.ready(), 'room for a window');
    this.#witness.issued(last.number);
    const requests = step.flatMap((unit) => unit.requests);
    const windows = step.length === 1 ? requests.map((request) => [request]) : [requests];
    const answers = windows.flatMap((window) => client.submit(window));
    const failures: string[] = [];
    for (const [index, unit] of step.entries()) {
      const answer = await inTime(answers[index] as Promise<string>, `the answer to ${unit.number}`);
      if (answer !== 'ok') failures.push(`${unit.number} ${answer}`);
      else if (failures.length === 0) {
        this.#witness.acknowledged(unit.number);
        if (unit.flushes) this.#witness.flushed(unit.number);
        this.#next = unit.number;
      }
    }
    if (failures.length > 0) throw new TidemarkError('device-failed', `units failed: ${failures.join(', ')}`);
  }

  async #compare(told: Testimony, keeps: 'acknowledged' | 'flushed'): Promise<void> {
    const floor = keeps === 'flushed' ? told.flushed : told.acknowledged;
    const { damage, lastLsn } = this.report;
    if (damage.length > 0) this.#witness.violation(`damage: ${JSON.stringify(damage)}`);
    if (lastLsn < told.farLsn) this.#witness.violation(`the far side holds ${told.farLsn}, the journal ${lastLsn}`);
    if (lastLsn < told.bookmarkLsn) {
      this.#witness.violation(`bookmark ${told.bookmarkLsn} was told, the journal ends at ${lastLsn}`);
    }
    const moment = this.#workload.momentOf(await this.content(), floor, told.issued);
    if (moment === undefined) {
      const any = this.#workload.momentOf(await this.content(), 0, this.#workload.units.length);
      const where = any === undefined ? 'never were so' : `are as after ${any}`;
      this.#witness.violation(`the disks ${where}; ${keeps} ${floor}, issued ${told.issued}`);
    }
    this.#next = moment ?? floor;
    this.#witness.kept(this.#next);
    // what recovery kept it has made durable before anything is answered
    this.#witness.flushed(this.#next);
  }
}

function diskPath(place: SourcePlace, name: string): string {
  return join(place.disks ?? place.directory, `${name}.raw`);
}

/** A disk that is taken for the same wherever a copy of it lies. */
function disk(place: SourcePlace, name: string): FileBacking {
  const path = diskPath(place, name);
  if (!existsSync(path) || statSync(path).size === 0) makeDisk(path);
  const backing = FileBacking.open(path);
  const identity = async (): ReturnType<FileBacking['identity']> => ({
    ...(await FileBacking.prototype.identity.call(backing)),
    node: '',
  });
  return Object.assign(backing, { identity });
}

/** As an operator does long before: name and size are durable. */
function makeDisk(path: string): void {
  for (const [name, flags] of [
    [path, 'a'],
    [dirname(path), 'r'],
  ] as const) {
    const fd = openSync(name, flags);
    if (name === path) ftruncateSync(fd, VOLUME_BYTES);
    fsyncSync(fd);
    closeSync(fd);
  }
}

/** Rejects when nothing comes: a hang is a failure like any other. */
export async function inTime<T>(promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come within ${ANSWER_WAIT_MS} ms`)), ANSWER_WAIT_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function ignoreOperatingError(error: unknown): void {
  if (!(error instanceof TidemarkError)) throw error;
}
