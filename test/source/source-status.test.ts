import test from 'ava';
import { type SourceFacts, sourceGroupReply } from '../../daemon/source/source-status.ts';

const UNKNOWN = { records: null, bytes: null, seconds: null };

/** Only what the reply is made of: 9999 is in the page cache, 7001 is durable. */
const FACTS = {
  config: { name: 'shop', journal: { directory: '/j' }, volumes: [], listen: { tcp: null }, stream: { kafka: null } },
  groupId: 'ab'.repeat(16),
  journal: { epoch: 1, incarnation: { counter: 3, nonce: '0'.repeat(16) }, oldestLsn: 1 },
  group: {
    state: 'protecting',
    headLsn: 9999,
    durableLsn: 7001,
    checkpointLsn: 6000,
    volumes: [],
    clientsHeldBack: 0,
    remoteHeld: false,
  },
  ship: {
    state: 'retrying',
    reason: 'nobody answers',
    code: 'stream-unavailable',
    replicas: [{ name: 'dr1', required: true, state: 'unknown', reason: '', lag: UNKNOWN, durableLsn: null }],
    backlog: UNKNOWN,
    unregistered: ['dr9'],
  },
  exports: new Map(),
  uriOf: () => '',
  listen: '/s',
  clients: 0,
  notes: [],
  counters: {},
} as unknown as SourceFacts;

test('no position above the durable one is told, only how many records are not durable yet', (t) => {
  const reply = sourceGroupReply(FACTS);
  t.like(reply.head, { durableLsn: 7001, unsyncedRecords: 2998, checkpointLsn: 6000 });
  t.false(JSON.stringify(reply).includes('9999'));
});

test('what nobody measured is unknown, never 0, and an unregistered reader is named', (t) => {
  const reply = sourceGroupReply(FACTS);
  t.deepEqual(reply.backlog, UNKNOWN);
  t.like(reply.replicas[0], { state: 'unknown', durableLsn: null, lag: UNKNOWN });
  t.regex(reply.notes.join('\n'), /dr9 reads the stream without being registered: nothing is kept for it/);
});
