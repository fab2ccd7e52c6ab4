import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { attempt } from '../servers/child.ts';
import { type CallPoint, STORAGE_CALLS, storageCalls } from './storage-calls.ts';
import { type Subject, subjectOf } from './subjects.ts';
import { readWitness } from './witness.ts';

export type Role = 'source' | 'replica';
export type Fault = 'kill' | 'eio' | 'enospc';

export interface EveryCallResult {
  /** Storage calls of the reference run. */
  readonly calls: number;
  /** Points of it, all shares together. */
  readonly points: number;
  readonly run: number;
  /** Points at which the run came by less often than the reference run did. */
  readonly missed: number;
  /** Runs in which somebody saw the error. */
  readonly noticed: number;
  readonly violations: readonly string[];
}

export interface Share {
  readonly index: number;
  readonly of: number;
}

const INJECTIONS: Record<Fault, string> = { kill: 'signal=SIGKILL', eio: 'error=EIO', enospc: 'error=ENOSPC' };
const LANES = 2;
const RUN_MS_MAX = 120_000;
const TRIES_MORE = 3;

/**
 * Kills, or fails, every storage call of a reference run in turn, each in a run of its own that begins with the recovery
 * of a killed one; then starts again without faults and checks what was promised.
 */
export async function everyCall(
  role: Role,
  fault: Fault,
  share: Share = { index: 0, of: 1 },
  onPoint: (text: string) => void = () => {},
): Promise<EveryCallResult> {
  const work = mkdtempSync(join(tmpdir(), 'tidemark-calls-'));
  try {
    const subject = subjectOf(role, work);
    const killed = join(work, 'killed');
    mkdirSync(killed);
    await subject.makeKilled(join(killed, 'd'), join(killed, 'witness'));
    const { points, calls } = await reference(work, subject);
    const mine = points.filter((_, index) => index % share.of === share.index % share.of);
    const violations: string[] = [];
    let next = 0;
    let missed = 0;
    let noticed = 0;
    const lane = async (number: number): Promise<void> => {
      const place = join(work, `lane-${number}`);
      for (let point = mine[next++]; point !== undefined; point = mine[next++]) {
        let found = await onePoint(work, place, subject, point, fault);
        // timers decide how often some calls are made
        for (let again = 0; again < TRIES_MORE && !found.reached && found.violations.length === 0; again++) {
          found = await onePoint(work, place, subject, point, fault);
        }
        if (!found.reached) missed++;
        if (found.noticed) noticed++;
        const name = `${role} ${fault} ${point.call} ${point.path} #${point.nth}`;
        for (const text of found.violations) violations.push(`${name}: ${text}`);
        onPoint(`${name}${found.reached ? '' : ' (not reached)'} ${found.violations.join('; ')}`);
      }
    };
    await Promise.all(Array.from({ length: LANES }, (_, number) => lane(number)));
    return { calls, points: points.length, run: mine.length, missed, noticed, violations };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

async function reference(work: string, subject: Subject): Promise<{ points: CallPoint[]; calls: number }> {
  const place = join(work, 'reference');
  cpSync(join(work, 'killed'), place, { recursive: true });
  const trace = join(place, 'trace');
  const directory = join(place, 'd');
  const command = ['-f', '-qq', '-y', '-o', trace, '-e', `trace=${STORAGE_CALLS.join(',')}`];
  const { code, stderr } = await strace(work, command, subject.program(directory, join(place, 'witness')));
  const { finished, violations } = readWitness(join(place, 'witness'));
  if (code !== 0 || !finished || violations.length > 0) {
    throw new Error(`the reference run failed with ${code}: ${violations.join('; ')}\n${stderr}`);
  }
  return storageCalls(trace, directory);
}

interface Finding {
  readonly reached: boolean;
  readonly noticed: boolean;
  readonly violations: readonly string[];
}

async function onePoint(
  work: string,
  place: string,
  subject: Subject,
  point: CallPoint,
  fault: Fault,
): Promise<Finding> {
  rmSync(place, { recursive: true, force: true });
  cpSync(join(work, 'killed'), place, { recursive: true });
  const trace = join(place, 'trace');
  const directory = join(place, 'd');
  const witness = join(place, 'witness');
  const inject = `inject=${point.call}:${INJECTIONS[fault]}:when=${point.nth}`;
  const args = ['-f', '-qq', '-o', trace, '-P', join(directory, point.path), '-e', `trace=${point.call}`, '-e', inject];
  const { code, stderr } = await strace(work, args, subject.program(directory, witness));
  const before = readWitness(witness);
  const traced = existsSync(trace) ? readFileSync(trace, 'latin1') : '';
  const reached = fault === 'kill' ? traced.includes('killed by SIGKILL') : traced.includes('(INJECTED)');
  const violations = [...before.violations];
  if (!before.finished && (fault !== 'kill' || !reached)) violations.push(`it ended with ${code}: ${stderr}`);
  const seen = before.violations.length;
  try {
    await subject.checkAfter(directory, witness, fault === 'kill' ? 'acknowledged' : 'flushed');
  } catch (error) {
    violations.push(`afterwards: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  }
  violations.push(...readWitness(witness).violations.slice(seen));
  return { reached, noticed: before.errors.length > 0, violations };
}

async function strace(
  work: string,
  args: readonly string[],
  program: readonly string[],
): Promise<{ code: number | null; stderr: string }> {
  const seconds = String(RUN_MS_MAX / 1000);
  const command = ['--signal=KILL', seconds, 'strace', ...args, process.execPath, ...program];
  return attempt('timeout', command, { UV_THREADPOOL_SIZE: '1', NODE_COMPILE_CACHE: join(work, 'compiled') });
}
