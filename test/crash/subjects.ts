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
const SOURCE_STEPS = 60;
const REPLICA_RECORDS = 240;
const KILLED_AT = 0.4;

export function subjectOf(role: 'source' | 'replica', work: string): Subject {
  return role === 'source' ? sourceSubject() : replicaSubject(work);
}

function sourceSubject(): Subject {
  const workload = new Workload(SEED, SOURCE_STEPS);
  const program = (directory: string, witness: string): string[] => [
    file('source-program.ts'),
    directory,
    witness,
    String(SEED),
    String(SOURCE_STEPS),
  ];
  return {
    program,
    makeKilled: async (directory, witness) => {
      mkdirSync(directory);
      await runKilled([...program(directory, witness), String(Math.floor(SOURCE_STEPS * KILLED_AT))]);
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

function replicaSubject(work: string): Subject {
  const shipment = new Shipment(SEED, REPLICA_RECORDS);
  const frames = join(work, 'frames');
  shipment.save(frames);
  const program = (directory: string, witness: string): string[] => [
    file('replica-program.ts'),
    directory,
    witness,
    String(SEED),
    String(REPLICA_RECORDS),
    frames,
  ];
  return {
    program,
    makeKilled: async (directory, witness) => {
      mkdirSync(directory);
      await runKilled([...program(directory, witness), String(Math.floor(REPLICA_RECORDS * KILLED_AT))]);
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

async function runKilled(program: readonly string[]): Promise<void> {
  const { code, stderr } = await attempt(process.execPath, program);
  if (code !== null) throw new Error(`it should have been killed, and ended with ${code}: ${stderr}`);
}

function expectSame(some: readonly Buffer[], other: readonly Buffer[], message: string): void {
  for (const [index, bytes] of some.entries()) if (!bytes.equals(other[index] as Buffer)) throw new Error(message);
}

function file(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}
