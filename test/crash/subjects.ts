import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { attempt } from '../servers/child.ts';
import { ReplicaUnderTest, replicaOptions, Shipment } from './replica-under-test.ts';
import { SourceUnderTest } from './source-under-test.ts';
import { readWitness } from './witness.ts';
import { Workload } from './workload.ts';

/** What a reference run is made of, for one role. */
export interface Subject {
  /** Arguments of node. */
  program(directory: string, witness: string): string[];
  /** The directory as a kill in the middle of a run left it. */
  makeKilled(directory: string, witness: string): Promise<void>;
  /** Starts without faults, checks, goes on to the end, checks again; what is wrong goes into the witness. */
  checkAfter(directory: string, witness: string, keeps: 'acknowledged' | 'flushed'): Promise<void>;
}

const SEED = 1;
const KILLED_AT = 0.4;

/** Length of a run: a source's in steps of its workload, a replica's in records. */
export interface RunLength {
  readonly source: number;
  readonly replica: number;
}

/** Long enough for every kind of storage call, short enough to fail each of them. */
const EVERY_CALL: RunLength = { source: 60, replica: 240 };

/** `work`: a directory outside of what is tested. */
export function subjectOf(role: 'source' | 'replica', work: string, length: RunLength = EVERY_CALL): Subject {
  return role === 'source' ? sourceSubject(length.source) : replicaSubject(work, length.replica);
}

function sourceSubject(steps: number): Subject {
  const workload = new Workload(SEED, steps);
  const program = (directory: string, witness: string): string[] => [
    file('source-program.ts'),
    directory,
    witness,
    String(SEED),
    String(steps),
  ];
  return {
    program,
    makeKilled: async (directory, witness) => {
      mkdirSync(directory);
      await runKilled([...program(directory, witness), String(Math.floor(steps * KILLED_AT))], witness);
    },
    checkAfter: async (directory, witness, keeps) => {
      const place = { directory, witness };
      const source = await SourceUnderTest.open(place, workload, keeps);
      expectSame(await source.drainedDisks(), await source.content(), 'the raw disks are not what a guest reads');
      await source.run(workload.steps.length);
      await source.close();
      const again = await SourceUnderTest.open(place, workload, 'acknowledged');
      if (!again.report.cleanStop) throw new Error('a clean stop was not known as one');
      await again.close();
    },
  };
}

function replicaSubject(work: string, records: number): Subject {
  const shipment = new Shipment(SEED, records);
  const frames = join(work, 'frames');
  shipment.save(frames);
  const program = (directory: string, witness: string): string[] => [
    file('replica-program.ts'),
    directory,
    witness,
    String(SEED),
    String(records),
    frames,
  ];
  return {
    program,
    makeKilled: async (directory, witness) => {
      mkdirSync(directory);
      await runKilled([...program(directory, witness), String(Math.floor(records * KILLED_AT))], witness);
    },
    checkAfter: async (directory, witness) => {
      const replica = await ReplicaUnderTest.open(replicaOptions(directory), shipment, witness);
      await replica.check();
      await replica.receive(shipment.history.lastLsn);
      await replica.retain();
      await replica.check();
      await replica.close();
      const again = await ReplicaUnderTest.open(replicaOptions(directory), shipment, witness);
      await again.check();
      await again.close();
      const { farLsn } = readWitness(witness);
      if (farLsn !== shipment.history.lastLsn) throw new Error(`acknowledged up to ${farLsn} in the end`);
    },
  };
}

async function runKilled(program: readonly string[], witness: string): Promise<void> {
  const { code, stderr } = await attempt(process.execPath, program);
  if (code === null) return;
  const { errors, violations } = readWitness(witness);
  throw new Error(`it should have been killed, ended with ${code}: ${[...violations, ...errors, stderr].join('; ')}`);
}

function expectSame(some: readonly Buffer[], other: readonly Buffer[], message: string): void {
  for (const [index, bytes] of some.entries()) if (!bytes.equals(other[index] as Buffer)) throw new Error(message);
}

function file(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}
