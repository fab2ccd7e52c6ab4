import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { type ExecutionContext } from 'ava';
import { examineGuests } from '../../daemon/doctor/guests.ts';
import { DeviceExport } from '../../daemon/nbd/device-export.ts';
import { MemoryDevice } from '../doubles/memory-device.ts';
import { startServer, type TestServer } from '../nbd/support.ts';
import { atEnd } from '../servers/at-end.ts';
import { testUnless } from '../setup/test-unless.ts';

const QEMU = 'qemu-system-x86_64';

function missing(): string | undefined {
  if (!existsSync('/proc/self/cmdline')) return 'no /proc';
  return spawnSync(QEMU, ['-version']).status === 0 ? undefined : `no ${QEMU} in PATH`;
}

/** A QEMU without a machine that has the server's disk open; resolves with its pid once it is connected. */
async function startQemu(t: ExecutionContext, server: TestServer, name: string, extra: string): Promise<number> {
  const blockdev = `driver=nbd,node-name=disk,server.type=unix,server.path=${server.socketPath},export=root${extra}`;
  const args = ['-name', name, '-machine', 'none', '-display', 'none', '-S', '-blockdev', blockdev];
  const before = server.server.clients().length;
  const child = spawn(QEMU, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const stay = atEnd(() => child.kill('SIGKILL'));
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  t.teardown(async () => {
    stay();
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  });
  const endAt = performance.now() + 20_000;
  while (server.server.clients().length === before) {
    if (child.exitCode !== null || performance.now() > endAt) throw new Error(`${name} did not connect: ${said}`);
    await delay(20);
  }
  return child.pid as number;
}

const withQemu = testUnless(missing());

withQemu('of two running QEMUs the one without reconnect-delay is named, with what to do', async (t) => {
  const server = await startServer({ exports: [new DeviceExport(new MemoryDevice(1024 * 1024), { name: 'root' })] });
  t.teardown(() => server.stop());
  const bare = await startQemu(t, server, 'bare', '');
  const patient = await startQemu(t, server, 'patient', ',reconnect-delay=300,open-timeout=60');
  // Other guests of this host are none of this test's business.
  const found = await examineGuests();
  const of = (pid: number) => found.filter(({ subject }) => subject.includes(`(pid ${pid})`));
  t.is(of(bare).length, 1, JSON.stringify(found));
  t.like(of(bare)[0], { verdict: 'problem', subject: `QEMU bare (pid ${bare})` });
  t.true(of(bare)[0]?.message.includes(server.socketPath));
  t.regex(of(bare)[0]?.advice ?? '', /-blockdev driver=nbd,.*reconnect-delay=300/);
  t.is(of(patient).length, 1);
  t.like(of(patient)[0], { verdict: 'ok', message: `${server.socketPath} with reconnect-delay=300` });
});
