import test from 'ava';
import { ResendRequests } from '../../daemon/stream/kafka/resend-requests.ts';
import { decideSeek } from '../../daemon/stream/kafka/seek-decision.ts';
import { type ReplicaFeedback } from '../../journal/stream.ts';

const CLOCK = { wallMicros: () => 0, monotonicMs: () => 0, after: () => ({ cancel: () => undefined }) };
const BOUNDS = { start: 0n, end: 100n, topicId: 'a'.repeat(32) };

function state(durableLsn: number, missingFrom = 0, replica = 'r'): ReplicaFeedback {
  return {
    replica,
    groupId: 'a'.repeat(32),
    epoch: 1,
    incarnation: 1,
    durableLsn,
    chain: '0'.repeat(16),
    state: 'receiving',
    reason: '',
    missingFrom,
    heartbeatMs: 0,
    resumeOffset: '',
  };
}

test('an old state that was taken for the newest is put right by the next: what every replica holds is not sent', (t) => {
  const requests = new ResendRequests(CLOCK, ['r']);
  t.is(requests.asks(state(2091), 2092), undefined);
  // The feedback topic lost its end, and this stands at its end now.
  t.is(requests.asks(state(221), 2092)?.fromLsn, 222);
  t.is(requests.asks(state(2091), 222)?.fromLsn, 2092);
  t.is(requests.asks(state(2091), 2092), undefined);
});

test('one replica that is ahead asks for nothing: the one behind still needs the frames', (t) => {
  const requests = new ResendRequests(CLOCK, ['r', 's']);
  t.is(requests.asks(state(500, 0, 'r'), 300), undefined);
  t.is(requests.asks(state(350, 0, 's'), 300)?.fromLsn, 351);
});

test('a request that took long is not asked for any more where every replica has it by now', (t) => {
  const input = { bounds: BOUNDS, tailLsn: 1400, lost: undefined, acceptedLsn: 363 };
  const requested = { fromLsn: 362, reason: 'replica r misses 362' };
  t.is(decideSeek({ ...input, requested, replicas: [state(1298)] }).fromLsn, 1299);
  t.is(decideSeek({ ...input, requested, replicas: [state(361, 362)] }).fromLsn, 362);
  t.is(decideSeek({ ...input, requested, replicas: [state(1298), undefined] }).fromLsn, 362);
});
