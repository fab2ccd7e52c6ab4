import test from 'ava';
import { TidemarkError } from '../../journal/base/errors.ts';
import { delay, type Host } from '../../journal/host/host.ts';
import { type DiskFaults, NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { NO_NETWORK_FAULTS, SimulatedNetwork } from '../doubles/simulated-network.ts';
import { Scheduler } from './scheduler.ts';

const MINUTE_MICROS = 60_000_000;

function machineOf(
  seed: number,
  faults: Partial<DiskFaults> = {},
): { scheduler: Scheduler; machine: SimulatedMachine } {
  const scheduler = new Scheduler(seed);
  return { scheduler, machine: new SimulatedMachine('a', scheduler, { ...NO_DISK_FAULTS, ...faults }, 1 << 20) };
}

/** Runs one asynchronous story to its end in simulated time. */
async function play<T>(scheduler: Scheduler, story: () => Promise<T>): Promise<T> {
  let outcome: { value: T } | { error: unknown } | undefined;
  story().then(
    (value) => {
      outcome = { value };
    },
    (error: unknown) => {
      outcome = { error };
    },
  );
  await scheduler.runUntil(() => outcome !== undefined, MINUTE_MICROS);
  if (outcome === undefined) throw new Error('the story did not end within a simulated minute');
  if ('error' in outcome) throw outcome.error;
  return outcome.value;
}

async function makeSynced(host: Host, path: string, bytes: Uint8Array): Promise<void> {
  host.disk.makeDirectory('/d');
  const file = host.disk.open(path, 'create');
  file.writeSync(bytes, 0, bytes.length, 0);
  await file.dataSync();
  await host.disk.syncDirectory('/d');
  await file.close();
}

function content(host: Host, path: string): Uint8Array {
  const file = host.disk.open(path, 'read');
  const bytes = new Uint8Array(file.size());
  file.readSync(bytes, 0, bytes.length, 0);
  return bytes;
}

test('a power loss keeps any subset of the unsynced sectors and every synced one', async (t) => {
  const seen = new Set<string>();
  for (let seed = 1; seed <= 60; seed++) {
    const { scheduler, machine } = machineOf(seed);
    const { host } = machine.start();
    await play(scheduler, () => makeSynced(host, '/d/f', new Uint8Array(2048).fill(1)));
    host.disk.open('/d/f', 'write').writeSync(new Uint8Array(1536).fill(2), 0, 1536, 512);
    machine.losePower();
    const found = content(machine.start().host, '/d/f');
    const sectors = [0, 512, 1024, 1536].map((at) => found[at]);
    t.is(sectors[0], 1);
    seen.add(sectors.join(''));
  }
  t.true(seen.has('1111') && seen.has('1222'), 'all of them and none of them');
  t.true(seen.size >= 6, `some subsets in between: ${[...seen].join(' ')}`);
});

test('a kill keeps the page cache', async (t) => {
  const { scheduler, machine } = machineOf(1);
  const { host } = machine.start();
  await play(scheduler, () => makeSynced(host, '/d/f', new Uint8Array(512).fill(1)));
  host.disk.open('/d/f', 'write').writeSync(new Uint8Array(512).fill(2), 0, 512, 0);
  machine.kill();
  t.is(content(machine.start().host, '/d/f')[0], 2);
});

test('a name vanishes with a power loss unless its directory was synced, whatever was synced of the file', async (t) => {
  let vanished = 0;
  for (let seed = 1; seed <= 20; seed++) {
    const { scheduler, machine } = machineOf(seed);
    const { host } = machine.start();
    await play(scheduler, async () => {
      await makeSynced(host, '/d/kept', new Uint8Array(512));
      const file = host.disk.open('/d/new', 'create');
      file.writeSync(new Uint8Array(512), 0, 512, 0);
      await file.dataSync();
      host.disk.unlink('/d/kept');
    });
    machine.losePower();
    const names = machine.start().host.disk.list('/d');
    if (!names.includes('new')) {
      vanished++;
      t.deepEqual(names, ['kept'], 'what came later than the lost name is lost too');
    }
  }
  t.true(vanished > 0 && vanished < 20);
});

test('a failed sync leaves pages that look clean: a second sync says yes and a power loss still brings the old bytes', async (t) => {
  const { scheduler, machine } = machineOf(1);
  const { host } = machine.start();
  await play(scheduler, () => makeSynced(host, '/d/f', new Uint8Array(512).fill(1)));
  const file = host.disk.open('/d/f', 'write');
  file.writeSync(new Uint8Array(512).fill(2), 0, 512, 0);
  machine.disk.faults = { ...NO_DISK_FAULTS, syncFails: 1 };
  const error = await t.throwsAsync(
    play(scheduler, () => file.dataSync()),
    { instanceOf: TidemarkError },
  );
  t.is((error as TidemarkError).code, 'sync-failed');
  machine.disk.faults = NO_DISK_FAULTS;
  await play(scheduler, () => file.dataSync());
  t.is(content(host, '/d/f')[0], 2, 'the cache lies');
  machine.losePower();
  t.is(content(machine.start().host, '/d/f')[0], 1);
});

test('what is written again after a failed sync and synced survives', async (t) => {
  const { scheduler, machine } = machineOf(1);
  const { host } = machine.start();
  await play(scheduler, () => makeSynced(host, '/d/f', new Uint8Array(512).fill(1)));
  const file = host.disk.open('/d/f', 'write');
  file.writeSync(new Uint8Array(512).fill(2), 0, 512, 0);
  machine.disk.faults = { ...NO_DISK_FAULTS, syncFails: 1 };
  await t.throwsAsync(play(scheduler, () => file.dataSync()));
  machine.disk.faults = NO_DISK_FAULTS;
  file.writeSync(new Uint8Array(512).fill(2), 0, 512, 0);
  await play(scheduler, () => file.dataSync());
  machine.losePower();
  t.is(content(machine.start().host, '/d/f')[0], 2);
});

test('a write during a sync is not covered by it', async (t) => {
  let lost = 0;
  for (let seed = 1; seed <= 20; seed++) {
    const { scheduler, machine } = machineOf(seed);
    const { host } = machine.start();
    await play(scheduler, () => makeSynced(host, '/d/f', new Uint8Array(512).fill(1)));
    const file = host.disk.open('/d/f', 'write');
    file.writeSync(new Uint8Array(512).fill(2), 0, 512, 0);
    await play(scheduler, async () => {
      const sync = file.dataSync();
      file.writeSync(new Uint8Array(512).fill(3), 0, 512, 0);
      await sync;
    });
    machine.losePower();
    const [byte] = content(machine.start().host, '/d/f');
    t.true(byte === 2 || byte === 3);
    if (byte === 2) lost++;
  }
  t.true(lost > 0);
});

test('a full disk takes part of a write and says no to the next', (t) => {
  const { machine } = machineOf(1);
  const { host } = machine.start();
  host.disk.makeDirectory('/d');
  const file = host.disk.open('/d/f', 'create');
  t.is(file.writeSync(new Uint8Array(1 << 20), 0, 1 << 20, 4096), (1 << 20) - 4096);
  const error = t.throws(() => file.writeSync(new Uint8Array(512), 0, 512, 1 << 20), { instanceOf: TidemarkError });
  t.is((error as TidemarkError).code, 'no-space');
});

test('a file is closed when what was queued on it has ended, and not used after', async (t) => {
  const { scheduler, machine } = machineOf(1);
  const { host } = machine.start();
  host.disk.makeDirectory('/d');
  const file = host.disk.open('/d/f', 'create');
  const order: string[] = [];
  await play(scheduler, async () => {
    const sync = file.dataSync().then(() => order.push('sync'));
    await file.close().then(() => order.push('close'));
    await sync;
  });
  t.deepEqual(order, ['sync', 'close']);
  t.throws(() => file.writeSync(new Uint8Array(512), 0, 512, 0), { message: /after close/ });
});

test('a killed process hears of nothing any more and its lock is free', async (t) => {
  const { scheduler, machine } = machineOf(1);
  const { host } = machine.start();
  host.disk.makeDirectory('/d');
  host.disk.lockDirectory('/d');
  t.throws(() => machine.disk.takeLock('/d', new SimulatedMachine('b', scheduler, NO_DISK_FAULTS, 0).start().process), {
    message: /in use/,
  });
  let heard = false;
  void delay(host.clock, 1).then(() => {
    heard = true;
  });
  machine.kill();
  await scheduler.runUntil(() => false, MINUTE_MICROS);
  t.false(heard);
  t.notThrows(() => machine.start().host.disk.lockDirectory('/d'));
});

test('two runs of one seed are one run, and another seed is another', async (t) => {
  const run = async (seed: number): Promise<string> => {
    const { scheduler, machine } = machineOf(seed, { syncFails: 0.2, writeShort: 0.2, stuck: 0.1 });
    const { host } = machine.start();
    host.disk.makeDirectory('/d');
    const file = host.disk.open('/d/f', 'create');
    await play(scheduler, async () => {
      for (let round = 0; round < 50; round++) {
        await file.write(host.random.bytes(512), 0, 512, 512 * host.random.below(20));
        await file.dataSync().catch(() => undefined);
      }
    });
    return scheduler.traceHash;
  };
  t.is(await run(7), await run(7));
  t.not(await run(7), await run(8));
});

test('the trace tells two runs apart by what was read, by a directory that was synced, and by what arrived', async (t) => {
  const { scheduler, machine } = machineOf(1);
  const { host, process } = machine.start();
  await play(scheduler, () => makeSynced(host, '/d/f', new Uint8Array(100).fill(1)));
  const file = host.disk.open('/d/f', 'read');
  const hashes = new Set([scheduler.traceHash]);
  const changed = (what: string): void => {
    const { size } = hashes;
    t.is(hashes.add(scheduler.traceHash).size, size + 1, what);
  };
  file.readSync(new Uint8Array(10), 0, 10, 0);
  changed('a read');
  host.disk.syncDirectoryNow('/d');
  changed('a directory');
  const network = new SimulatedNetwork(scheduler, NO_NETWORK_FAULTS);
  const listener = network.listener(process, 'b');
  let arrived = 0;
  await listener.listen((wire) => {
    wire.open({ onBytes: ({ length }) => (arrived += length), onDrain: () => undefined, onClose: () => undefined });
  });
  const wire = await play(scheduler, () => network.dialer(process, 'b').dial(1000));
  wire.send(new Uint8Array(3));
  changed('a send');
  await scheduler.runUntil(() => arrived === 3, MINUTE_MICROS);
  changed('an arrival');
});

test('sectors whose sync failed are known to be missing on the medium until they are written and synced again', async (t) => {
  const { scheduler, machine } = machineOf(1);
  const { host } = machine.start();
  await play(scheduler, () => makeSynced(host, '/d/f', new Uint8Array(4096)));
  const content = machine.disk.files.get('/d/f');
  const file = host.disk.open('/d/f', 'write');
  file.writeSync(new Uint8Array(1024).fill(1), 0, 1024, 512);
  machine.disk.faults = { ...NO_DISK_FAULTS, syncFails: 1 };
  t.throws(() => file.dataSyncSync());
  t.is(content?.unprovenSectors(0, 4096), 2);
  t.is(content?.unprovenSectors(0, 512), 0);
  t.is(content?.unprovenSectors(1024, 4096), 1);
  machine.disk.faults = NO_DISK_FAULTS;
  file.dataSyncSync();
  t.is(content?.unprovenSectors(0, 4096), 2, 'a sync alone proves nothing');
  file.writeSync(new Uint8Array(1024).fill(1), 0, 1024, 512);
  file.dataSyncSync();
  t.is(content?.unprovenSectors(0, 4096), 0);
});
