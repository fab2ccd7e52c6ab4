import test from 'ava';
import type { LogAdmin } from '../../daemon/stream/kafka/log-ports.ts';
import { TAIL_FRAMES } from '../../daemon/stream/kafka/stream-tail.ts';
import { TopicTrimmer } from '../../daemon/stream/kafka/topic-trimmer.ts';
import { realHost } from '../../journal/host/real-host.ts';
import type { ReplicaFeedback } from '../../journal/stream.ts';

const TOPIC_ID = 'a'.repeat(32);
const END = 1000n + TAIL_FRAMES;

function feedback(replica: string, durableLsn: number, offset: number, topicId = TOPIC_ID): ReplicaFeedback {
  const resumeOffset = `${offset}@${topicId}`;
  return { replica, durableLsn, resumeOffset } as ReplicaFeedback;
}

test('a topic is deleted up to the slowest registered replica, as far as the journal allows, and not while one is silent', (t) => {
  const deleted: bigint[] = [];
  const admin = {
    truncateBefore: (_topic: string, offset: bigint) => {
      deleted.push(offset);
      return Promise.resolve();
    },
    reset: () => undefined,
    close: () => undefined,
  } as unknown as LogAdmin;
  const trimmer = new TopicTrimmer(realHost().clock, admin, 'topic', ['fast', 'slow']);
  trimmer.note(feedback('fast', 250, 250));
  trimmer.note(feedback('fast', 500, 500));
  trimmer.allow(500);
  t.is(trimmer.target(), undefined, 'nothing was acknowledged in this run');
  trimmer.acknowledged(END, TOPIC_ID);
  t.is(trimmer.target(), undefined, 'slow was not heard');
  trimmer.note(feedback('stranger', 1, 1));
  t.is(trimmer.target(), undefined, 'nobody speaks for another');
  trimmer.note(feedback('slow', 90, 90));
  t.is(trimmer.target(), 90n);
  trimmer.note(feedback('slow', 400, 400));
  t.is(trimmer.target(), 400n);
  trimmer.allow(300);
  t.is(trimmer.target(), 90n, 'the journal keeps what the replica has not proven');
  trimmer.allow(500);
  trimmer.note(feedback('slow', 50, 50));
  t.is(trimmer.target(), 50n, 'an acknowledgement that goes back counts');
  trimmer.note(feedback('slow', 400, 400, 'b'.repeat(32)));
  t.is(trimmer.target(), undefined, 'offsets of another topic say nothing');
  trimmer.note(feedback('slow', 5000, 5000));
  trimmer.note(feedback('fast', 5000, 5000));
  trimmer.allow(5000);
  t.is(trimmer.target(), 1000n, 'the newest frames stay for a source that has to settle');
  trimmer.close();
});
