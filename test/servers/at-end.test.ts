import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import test from 'ava';

const CHILD = path.join(import.meta.dirname, 'child.ts');
const PROGRAM = `
import { Child } from ${JSON.stringify(CHILD)};
const child = new Child('server', 'sleep', ['1000']);
process.stdout.write(String(child.process.pid) + '\\n');
setInterval(() => undefined, 1000);
`;

/** A process that runs a server as the tests do, and the server's pid. */
async function withServer(): Promise<{ runner: ChildProcess; pid: number }> {
  const args = ['--input-type=module', '--eval', PROGRAM];
  const runner = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] });
  const [line] = (await once(runner.stdout!, 'data')) as [Buffer];
  return { runner, pid: Number(line.toString()) };
}

function runs(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

async function gone(pid: number): Promise<boolean> {
  for (let attempt = 0; attempt < 200 && runs(pid); attempt++) await setTimeout(50);
  return !runs(pid);
}

const ENDS: Readonly<Record<string, (runner: ChildProcess) => void>> = {
  'by the signal with which its time is over': (runner) => runner.kill('SIGTERM'),
  'by Ctrl-C': (runner) => runner.kill('SIGINT'),
  'because whoever ran it is gone': (runner) => runner.disconnect(),
};

for (const [how, end] of Object.entries(ENDS)) {
  test(`a test file that ends ${how} leaves no server behind`, async (t) => {
    const { runner, pid } = await withServer();
    t.true(runs(pid));
    end(runner);
    t.true(await gone(pid));
    runner.kill('SIGKILL');
  });
}
