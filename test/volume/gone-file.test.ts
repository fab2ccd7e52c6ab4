import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { ChainCheckpoints } from '../../daemon/ship/chain-checkpoints.ts';
import { journalFrames } from '../../daemon/ship/journal-frames.ts';
import { settleFarSide } from '../../daemon/ship/settle.ts';
import { anchorsOf, readCheckpoint } from '../../daemon/volume/checkpoint.ts';
import type { GroupOptions } from '../../daemon/volume/group-options.ts';
import type { ProtectedGroup } from '../../daemon/volume/protected-group.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import { realHost } from '../../journal/host/real-host.ts';
import type { Journal } from '../../journal/journal.ts';
import { MemorySink } from '../ship/memory-sink.ts';
import { GroupBench, HandClient, MIB, pattern } from './support/group-bench.ts';

/* A file of the journal that is gone whole and that the disks need: put back where somebody holds its records. */

const WRITES = 10;
const LAZY: Partial<GroupOptions> = {
  flushAgeMs: 600_000,
  flushBytes: 64 * MIB,
  destageWindowBytes: 32 * MIB,
  overlayBytesMax: 32 * MIB,
};

interface Killed {
  readonly bench: GroupBench;
  readonly frames: readonly Uint8Array[];
  readonly lastLsn: number;
  /** Of the file with the checkpoint. */
  readonly needed: number;
}

function options(bench: GroupBench, change: Partial<GroupOptions> = {}): GroupOptions {
  return bench.options([{ name: 'a', backing: bench.backing('a.raw') }], { ...LAZY, ...change });
}

/** A group whose disk lacks what the journal holds, killed; and what a replica of it would hold. */
async function killed(t: ExecutionContext, writtenOut: boolean): Promise<Killed> {
  const bench = new GroupBench();
  t.teardown(() => bench.remove());
  bench.disk('a.raw', 16 * MIB);
  if (writtenOut) {
    const before = await bench.open(options(bench, { flushAgeMs: 20, flushBytes: MIB, destageWindowBytes: MIB }));
    const client = new HandClient(before.exports('local')[0]!);
    for (let at = 0; at < WRITES; at++) {
      await client.ready();
      t.is(await client.write(at * MIB, pattern(MIB, 100 + at)), 'ok');
    }
    while ((readCheckpoint(realHost(), bench.place)?.checkpoint.lsn ?? 0) < before.journal.lastLsn)
      await setTimeout(10);
    await before.close();
  }
  const group = await bench.open(options(bench));
  const client = new HandClient(group.exports('local')[0]!);
  for (let at = 0; at < WRITES; at++) {
    await client.ready();
    t.is(await client.write(at * MIB, pattern(MIB, at)), 'ok');
  }
  t.is(await client.flush(), 'ok');
  const { journal } = group;
  const identity = {
    groupId: bench.groupId,
    groupName: 'bench',
    epoch: journal.epoch,
    incarnation: journal.incarnation!,
    frameVersion: FRAME_VERSION,
  };
  const frames: Uint8Array[] = [];
  for await (const frame of journalFrames(journal, new ChainCheckpoints([], 2 * MIB), identity, 1)) frames.push(frame);
  const copy = bench.copy();
  t.teardown(() => copy.remove());
  const { lastLsn } = journal;
  await group.close();
  const needed = Math.floor((readCheckpoint(realHost(), copy.place)?.checkpoint.address ?? 0) / (2 * MIB));
  return { bench: copy, frames, lastLsn, needed };
}

function pathOf(bench: GroupBench, sequence: number): string {
  return join(bench.journalDirectory, `journal-${sequence.toString(16).padStart(16, '0')}.tmj`);
}

/** Opens with a far side that holds these frames; what the settling said is pushed to `said`. */
async function openWith(killed: Killed, frames: readonly Uint8Array[], said: string[] = []): Promise<ProtectedGroup> {
  const { bench, lastLsn } = killed;
  const settle = async (journal: Journal): Promise<{ highestLsn: number }> => {
    const sink = new MemorySink();
    sink.farLsn = frames.length === 0 ? 0 : lastLsn;
    sink.farFrames = [...frames];
    const writtenOut = readCheckpoint(realHost(), bench.place);
    const settled = await settleFarSide(realHost(), {
      journal,
      directory: bench.journalDirectory,
      groupId: bench.groupId,
      groupName: 'bench',
      sinks: [sink],
      timeoutMs: 5_000,
      anchors: writtenOut === undefined ? [] : anchorsOf(writtenOut),
    });
    for (const { reason } of settled.unmended) said.push(reason);
    return { highestLsn: settled.highestLsn };
  };
  const all = options(bench, { settle });
  try {
    return await bench.open(all);
  } catch (error) {
    for (const { backing } of all.volumes) await backing.close();
    throw error;
  }
}

async function assertWhole(t: ExecutionContext, group: ProtectedGroup): Promise<void> {
  const client = new HandClient(group.exports('local')[0]!);
  for (let at = 0; at < WRITES; at++) t.true((await client.read(at * MIB, MIB)).equals(pattern(MIB, at)), `${at}`);
}

const GONE: Readonly<Record<string, { writtenOut: boolean; gone: readonly number[] }>> = {
  'the first one': { writtenOut: false, gone: [0] },
  'one in the middle': { writtenOut: false, gone: [1] },
  'two beside one another': { writtenOut: false, gone: [1, 2] },
  'all but the newest': { writtenOut: false, gone: [0, 1, 2, 3, 4] },
  'the one in which the disks go on': { writtenOut: true, gone: [0] },
  'the one behind it': { writtenOut: true, gone: [1] },
};

for (const [what, { writtenOut, gone }] of Object.entries(GONE)) {
  test(`a journal file that is gone and that the disks need is put back from the far side: ${what}`, async (t) => {
    const state = await killed(t, writtenOut);
    const { bench, frames, needed } = state;
    if (writtenOut) {
      t.true(needed > 2, `the disks go on in file ${needed}`);
      for (let sequence = 0; sequence < needed; sequence++) rmSync(pathOf(bench, sequence), { force: true });
    }
    const paths = gone.map((sequence) => pathOf(bench, needed + sequence));
    for (const path of paths) {
      t.true(existsSync(path), path);
      rmSync(path);
    }
    t.true(readdirSync(bench.journalDirectory).some((name) => name.endsWith('.tmj')));
    const group = await openWith(state, frames);
    await assertWhole(t, group);
    const killedAgain = bench.copy();
    t.teardown(() => killedAgain.remove());
    await group.close();
    const again = await killedAgain.open(options(killedAgain));
    t.deepEqual(again.journal.report.damage, []);
    await assertWhole(t, again);
    await again.close();
  });
}

test('a journal file that the disks need and that nobody has: refused at every start, until somebody has it', async (t) => {
  const state = await killed(t, false);
  rmSync(pathOf(state.bench, 1));
  for (const start of ['first', 'second']) {
    const said: string[] = [];
    const lost = {
      code: 'journal-damaged',
      message: /cannot be read, and the backings do not hold them: the file is gone/,
    };
    await t.throwsAsync(openWith(state, [], said), lost, start);
    t.is(said.length, 1, start);
  }
  const others = await killed(t, false);
  await t.throwsAsync(openWith(state, others.frames), { code: 'journal-damaged' }, 'another history');
  const group = await openWith(state, state.frames);
  await assertWhole(t, group);
  await group.close();
});
