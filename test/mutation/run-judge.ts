import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { PATCHES_VARIABLE, type PatchedFile, PROJECT } from '../planted/patch-loader.ts';
import type { JudgeEvent, JudgeTask, MeasuredUnit } from './unit.ts';

const JUDGE = fileURLToPath(new URL('judge.ts', import.meta.url));
const PRELOAD = new URL('serial-preload.ts', import.meta.url).href;

/** How a judge ended. `index` is the unit it was at; `clean`: every unit passed. */
export interface Outcome {
  readonly how: 'clean' | 'test' | 'violation' | 'load' | 'crash' | 'stuck' | 'spinning' | 'memory';
  readonly index: number;
  readonly message: string;
  readonly measured: readonly MeasuredUnit[];
}

/** What the unit at this index may take; more is an endless loop. */
export type CpuLimitMs = (index: number) => number;

/** Without any work for so long a process will not go on: no test of ours waits longer for anything. */
const IDLE_MS = 15_000;
const RSS_BYTES_MAX = 2 * 1024 ** 3;
const LOOK_EVERY_MS = 250;
/** Of /proc/PID/stat. */
const TICK_MS = 10;

/**
 * A judge in a process of its own, with `patches` in place of the product's files. Limits are processor time, so that a
 * machine that is busy with other things takes nobody for hanging; a process that waits for nothing is told by its own
 * idleness. The directory for temporary files goes away with it.
 */
export async function runJudge(task: JudgeTask, patches: readonly PatchedFile[], limit: CpuLimitMs): Promise<Outcome> {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-mutation-'));
  try {
    const path = join(directory, 'task.json');
    writeFileSync(path, JSON.stringify(task));
    const temporary = join(directory, 'tmp');
    mkdirSync(temporary);
    const nodeOptions = ['--disable-warning=ExperimentalWarning', '--max-old-space-size=1024', `--import=${PRELOAD}`];
    const child = spawn(process.execPath, [...nodeOptions, JUDGE, path], {
      cwd: PROJECT,
      env: { ...process.env, TMPDIR: temporary, [PATCHES_VARIABLE]: JSON.stringify(patches) },
      stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    });
    return await follow(child, limit);
  } finally {
    rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
  }
}

async function follow(child: ChildProcess, limit: CpuLimitMs): Promise<Outcome> {
  const measured: MeasuredUnit[] = [];
  let index = 0;
  let said: Pick<Outcome, 'how' | 'message'> | undefined;
  let errors = '';
  let atBegin = 0;
  let seen = { cpuMs: 0, at: performance.now() };

  (child.stderr as Readable).on('data', (data: Buffer) => {
    errors = (errors + data.toString()).slice(-2000);
  });
  const lines = createInterface({ input: child.stdio[3] as Readable });
  lines.on('line', (line) => {
    const told = JSON.parse(line) as JudgeEvent;
    if (told.event === 'begin') {
      index = told.index;
      atBegin = usage(child)?.cpuMs ?? 0;
    } else if (told.event === 'measured') measured.push(told.unit);
    else if (told.event === 'failed') said ??= { how: told.how, message: told.message };
    else said ??= { how: 'clean', message: '' };
  });

  const watch = setInterval(() => {
    const now = usage(child);
    if (now === undefined || said !== undefined) return;
    const at = performance.now();
    if (now.cpuMs - seen.cpuMs > TICK_MS || !now.waiting) seen = { cpuMs: now.cpuMs, at };
    if (now.cpuMs - atBegin > limit(index))
      said = { how: 'spinning', message: `${now.cpuMs - atBegin} ms of processor` };
    else if (now.rssBytes > RSS_BYTES_MAX) said = { how: 'memory', message: `${now.rssBytes} bytes` };
    else if (at - seen.at > IDLE_MS) said = { how: 'stuck', message: `idle for ${IDLE_MS} ms` };
    else return;
    child.kill('SIGKILL');
  }, LOOK_EVERY_MS);

  const closed = new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', () => resolve());
  });
  await closed;
  clearInterval(watch);
  said ??= { how: 'crash', message: `ended with ${child.exitCode ?? child.signalCode}: ${errors}` };
  return { ...said, index, measured };
}

interface Usage {
  readonly cpuMs: number;
  readonly rssBytes: number;
  /** It sleeps: neither runs nor waits for a processor or a disk. */
  readonly waiting: boolean;
}

/** From /proc; undefined when the process has ended. */
function usage(child: ChildProcess): Usage | undefined {
  try {
    const stat = readFileSync(`/proc/${child.pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [user, system, pages] = [fields[11], fields[12], fields[21]].map(Number) as [number, number, number];
    return { cpuMs: (user + system) * TICK_MS, rssBytes: pages * 4096, waiting: fields[0] === 'S' };
  } catch {
    return undefined;
  }
}
