import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import type { JournalDamage } from '../../daemon/ship/journal-mender.ts';
import type { ShipReplicaStatus } from '../../daemon/ship/ship-status.ts';
import { damageBehind, type GiveUpFacts, planGiveUp } from '../../daemon/source/give-up-plan.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { Journal } from '../../journal/journal.ts';
import { RecordKind } from '../../journal/record.ts';

const FILE_BYTES = 1024 * 1024;
const HELD: ShipReplicaStatus = {
  name: 'site-b',
  required: true,
  state: 'receiving',
  reason: '',
  durableLsn: 19,
  provenLsn: 19,
  lostFromLsn: null,
  lag: { records: 20, bytes: null, seconds: null },
  heardSecondsAgo: 1,
  stoodStillSeconds: 0,
};

test('giving up is refused, with the reason, while somebody may hold the records or the disks lack them', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-plan-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const options = { directory, groupId: 'ab'.repeat(16), groupName: 'shop', fileBytes: FILE_BYTES };
  const journal = await Journal.open(realHost(), { ...options, budgetBytes: 4 * FILE_BYTES, syncIntervalMs: 25 });
  await journal.begin();
  for (let index = 0; index < 40; index++) {
    const body = new Uint8Array(4096).fill(index + 1);
    journal.append(RecordKind.write, { volume: 1, sector: index * 8, sectors: 8, body });
    await journal.sync();
  }
  const addresses = [20, 30].map((lsn) => journal.addressOf(lsn));
  const path = join(directory, `journal-${'0'.repeat(16)}.tmj`);
  const bytes = readFileSync(path);
  for (const address of addresses) bytes.writeUInt8(bytes.readUInt8(address + 20) ^ 4, address + 20);
  writeFileSync(path, bytes);

  t.deepEqual(await damageBehind(realHost(), journal, addresses[0]!), addresses);
  const reason = 'the far side holds none of these records';
  const damage = [20, 30].map(
    (lsn, at): JournalDamage => ({ fromLsn: lsn, toLsn: lsn, address: addresses[at]!, reason, answers: [{ reason }] }),
  );
  const facts: GiveUpFacts = {
    journal,
    damage,
    replicas: [HELD],
    streams: [{ state: 'streaming', reason: '' }],
    streamNames: ['replica site-b'],
    writtenOutTo: journal.endAddress,
    volumes: ['root'],
    reason: 'Ada: gone',
  };
  const refused: readonly (readonly [Partial<GiveUpFacts>, string, RegExp])[] = [
    [{ damage: [] }, 'precondition-failed', /nothing to give up/],
    [{ writtenOutTo: addresses[1]! }, 'precondition-failed', /the disks lack records 30 to 30.*restore/],
    [{ streams: [{ state: 'retrying', reason: 'nobody there' }] }, 'stream-unavailable', /site-b .*nobody there/],
    [{ replicas: [{ ...HELD, durableLsn: null }] }, 'stream-unavailable', /site-b .*is not heard/],
    [{ replicas: [{ ...HELD, heardSecondsAgo: 60 }] }, 'stream-unavailable', /site-b .*is not heard/],
    [
      { replicas: [HELD, { ...HELD, name: 'site-c', required: false, durableLsn: 25 }] },
      'precondition-failed',
      /site-c has acknowledged records up to 25.*of 20 to 20.*fresh replica/,
    ],
  ];
  for (const [change, code, message] of refused) {
    t.throws(() => planGiveUp({ ...facts, ...change }), { code, message } as { message: RegExp });
  }
  const { word, reply } = planGiveUp(facts);
  t.deepEqual(word, {
    reason: 'Ada: gone',
    stretches: [
      { fromLsn: 20, toLsn: 20, address: addresses[0]! },
      { fromLsn: 30, toLsn: 30, address: addresses[1]! },
    ],
  });
  t.like(reply.lost[0], { fromLsn: 20, toLsn: 20, answers: [{ name: 'replica site-b', answer: reason }] });
  t.true(reply.lost.every(({ afterTime, beforeTime }) => afterTime !== null && beforeTime !== null));
  t.regex(
    reply.steps.join('\n'),
    /records 20 to 20 are lost.*points up to LSN 19 stay.*seeded anew.*root.*Ada: gone.*restart/s,
  );
  await journal.close();
});
