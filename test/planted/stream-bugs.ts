import type { PlantedBug } from './planted-bug.ts';
import { both, fewJournalFiles, overKafka, striking } from './striking.ts';

const SHIPPER = 'test/ship/shipper.test.ts';
/** A replica over Kafka that misses frames is not heard. */
const ASKS_AGAIN: NonNullable<PlantedBug['masked']> = {
  by: 'the replica, which asks again for what it misses',
  changes: [
    {
      file: 'daemon/stream/kafka/resend-requests.ts',
      find: '    if (missingFrom === 0 || missingFrom >= nextLsn) {',
      replace: '    if (missingFrom >= 0) {',
    },
  ],
};

/** Bugs between source and replica: shipping, settling, streams, feedback, what is trimmed when. */
export const STREAM_BUGS: readonly PlantedBug[] = [
  {
    name: 'a start does not ask what the far side holds',
    rules: [4],
    invariant: 'R4',
    changes: [
      {
        file: 'daemon/ship/settle.ts',
        find: 'if (answer.value.highestLsn <= highestLsn) continue;',
        replace: 'if (answer.value.highestLsn >= highestLsn) continue;',
      },
    ],
    noticedBy: {
      test: SHIPPER,
      title: 'before a new incarnation the far side is asked, and what was lost here comes back',
    },
  },
  {
    name: 'what the far side gives back is taken though it does not continue what is here',
    rules: [4, 26],
    invariant: 'P2',
    changes: [
      {
        file: 'daemon/ship/settle.ts',
        find: 'chainString(view.chainAt(headLsn)) !== chainString(ours)',
        replace: "chainString(view.chainAt(headLsn)) === ''",
      },
    ],
    noticedBy: {
      test: SHIPPER,
      title: 'what the far side holds is not taken over when it does not continue what is here',
    },
  },
  {
    name: 'a replica that is beyond the source is followed',
    rules: [4],
    invariant: 'R5',
    changes: [
      {
        file: 'daemon/ship/shipper.ts',
        find: '    if (registered && feedback.durableLsn > durableLsn) {',
        replace: '    if (registered && feedback.durableLsn < 0) {',
      },
      {
        file: 'daemon/ship/lane.ts',
        find: '    if (fromLsn > durableLsn + 1) {',
        replace: '    if (fromLsn < 0) {',
      },
    ],
    noticedBy: { test: SHIPPER, title: 'a replica that holds more than the journal is never followed' },
  },
  {
    name: 'a source that was replaced goes on sending',
    rules: [1],
    invariant: 'R5',
    changes: [
      {
        file: 'daemon/ship/shipper.ts',
        find: 'if (registered && feedback.epoch === epoch && feedback.incarnation > incarnation.counter) {',
        replace: 'if (registered && feedback.epoch === epoch && feedback.incarnation < 0) {',
      },
    ],
    noticedBy: {
      test: SHIPPER,
      title: 'unregistered readers are reported, newer epochs and incarnations stop the source',
    },
  },
  {
    name: 'the journal is trimmed behind the backings, whatever the replica has',
    rules: [22],
    invariant: 'P3',
    changes: [
      {
        file: 'daemon/volume/group-retention.ts',
        find: "this.#journal.recycleBelow(Math.min(this.#marks.address('checkpoint'), this.#shippedOrGivenUp));",
        replace: "this.#journal.recycleBelow(Math.max(this.#marks.address('checkpoint'), this.#shippedOrGivenUp));",
      },
    ],
    noticedBy: { simulation: both(striking('partition'), fewJournalFiles) },
  },
  {
    name: 'the journal is trimmed behind the fastest replica',
    rules: [22],
    invariant: 'P3',
    changes: [
      {
        file: 'daemon/ship/replica-registry.ts',
        find: 'return replicas.reduce((least, { provenLsn }) => Math.min(least, provenLsn), Number.MAX_SAFE_INTEGER);',
        replace: 'return replicas.reduce((least, { provenLsn }) => Math.max(least, provenLsn), 0);',
      },
    ],
    noticedBy: {
      test: 'test/ship/direct-replicas.test.ts',
      title:
        'two replicas over TCP: one away holds up neither the other nor the guest, and the journal keeps what it lacks',
    },
  },
  {
    name: 'journal files are used again before their chain is written down',
    rules: [17],
    invariant: 'P3',
    changes: [
      {
        file: 'daemon/ship/release.ts',
        find: '      await saveShipState(this.#host.disk, this.#directory, this.#group.id, this.#checkpoints.list);',
        replace:
          '      if (this.#closed) await saveShipState(this.#host.disk, this.#directory, this.#group.id, this.#checkpoints.list);',
      },
    ],
    noticedBy: { simulation: both(striking('kill-source'), fewJournalFiles) },
  },
  {
    name: 'an acknowledgement never goes back',
    rules: [20],
    invariant: 'P3',
    changes: [
      {
        file: 'daemon/ship/replica-registry.ts',
        find: '      replica.provenLsn = Math.min(replica.provenLsn, feedback.durableLsn);\n',
        replace: '',
      },
    ],
    noticedBy: { test: SHIPPER, title: 'what a replica lost is not released, however much it had acknowledged before' },
  },
  {
    name: 'a replica that lost data is no alarm',
    rules: [20],
    invariant: 'P3',
    changes: [
      {
        file: 'daemon/ship/replica-registry.ts',
        find: '      replica.lostFromLsn = Math.max(replica.lostFromLsn, before);\n',
        replace: '',
      },
    ],
    noticedBy: {
      test: SHIPPER,
      title: 'a replica that holds less than it acknowledged is an alarm until it has everything again',
    },
  },
  {
    name: 'an old state in the feedback topic is told as the present one',
    rules: [20],
    invariant: 'P5',
    changes: [
      {
        file: 'daemon/stream/kafka/feedback-reader.ts',
        find: '        if (feedback !== undefined) this.#fresh.set(feedback.replica, feedback);',
        replace: '        if (feedback !== undefined) this.#onFeedback(feedback);',
      },
    ],
    noticedBy: {
      test: 'test/kafka/feedback-reader.test.ts',
      title: 'an old state in the topic is never told: the topic is read to its end first',
    },
  },
  {
    name: 'a topic is deleted up to the fastest replica',
    rules: [21],
    invariant: 'P4',
    changes: [
      {
        file: 'daemon/stream/kafka/topic-trimmer.ts',
        find: '      if (note.offset < target) target = note.offset;',
        replace: '      target = note.offset;',
      },
    ],
    noticedBy: {
      test: 'test/kafka/topic-trimmer.test.ts',
      title:
        'a topic is deleted up to the slowest registered replica, as far as the journal allows, and not while one is silent',
    },
  },
  {
    name: 'a topic is deleted while a replica is silent',
    rules: [21],
    invariant: 'P4',
    changes: [
      {
        file: 'daemon/stream/kafka/topic-trimmer.ts',
        find: '      if (note === undefined || note.topicId !== this.#acknowledged.topicId) return undefined;',
        replace: '      if (note === undefined || note.topicId !== this.#acknowledged.topicId) continue;',
      },
    ],
    noticedBy: {
      test: 'test/kafka/topic-trimmer.test.ts',
      title:
        'a topic is deleted up to the slowest registered replica, as far as the journal allows, and not while one is silent',
    },
  },
  {
    name: 'a topic that lost its end is read on',
    rules: [19],
    invariant: 'P4',
    changes: [
      {
        file: 'daemon/stream/kafka/seek-decision.ts',
        find: '  if (input.lost !== undefined) {',
        replace: "  if (input.lost === '') {",
      },
      {
        file: 'daemon/stream/kafka/seek-decision.ts',
        find: '    if (needed !== undefined && needed.fromLsn < fromLsn) ({ fromLsn, reason } = needed);',
        replace: '    if (needed !== undefined && needed.fromLsn < 0) ({ fromLsn, reason } = needed);',
      },
      {
        file: 'daemon/stream/kafka/seek-decision.ts',
        find: '  let fromLsn = Math.max(input.tailLsn, lowest) + 1;',
        replace: '  let fromLsn = Math.max(input.tailLsn, lowest, input.acceptedLsn) + 1;',
      },
    ],
    noticedBy: { simulation: both(striking('kill-replica'), overKafka('lose-end')) },
    masked: ASKS_AGAIN,
  },
  {
    name: 'a failed produce counts as done',
    rules: [19],
    invariant: 'P3',
    changes: [
      {
        file: 'daemon/stream/kafka/frame-sender.ts',
        find: '        this.fail(error);\n      },',
        replace: `        if (error.next !== 'retry') this.fail(error);
        else for (const done of this.#window.acknowledge(frame, 0n)) this.#onPrefix(done.lastLsn, done.offset);
        this.#wake();
      },`,
      },
    ],
    noticedBy: { simulation: both(striking('kill-replica'), overKafka()) },
    masked: {
      by: 'the replica, which asks again, and the offsets of the topic, which went back',
      changes: [
        ...ASKS_AGAIN.changes,
        {
          file: 'daemon/stream/kafka/kafka-sink.ts',
          find: '    if (offset <= acknowledged.offset) {',
          replace: '    if (offset < 0n) {',
        },
      ],
    },
  },
  {
    name: 'an acknowledgement above a missing one counts',
    rules: [19],
    invariant: 'P3',
    changes: [
      {
        file: 'daemon/stream/kafka/send-window.ts',
        find: "    assert(entry !== undefined, 'an acknowledged frame is in the window');\n    entry.acknowledged = offset;",
        replace:
          '    if (entry === undefined) return [];\n    for (const one of this.#frames.slice(0, this.#frames.indexOf(entry) + 1)) one.acknowledged ??= offset;',
      },
      {
        file: 'daemon/stream/kafka/send-window.ts',
        find: '    return complete;',
        replace: "    assert(complete.length > 0, 'all up to here count');\n    return complete.slice(-1);",
      },
    ],
    noticedBy: { simulation: both(striking('kill-replica'), overKafka()) },
    masked: ASKS_AGAIN,
  },
  {
    name: 'a topic that was made again is read on',
    rules: [19],
    invariant: 'P4',
    changes: [
      {
        file: 'daemon/stream/kafka/kafka-source.ts',
        find: "  if (bounds.topicId !== position.topicId) return 'was deleted and made again';\n",
        replace: '',
      },
    ],
    noticedBy: { simulation: both(striking('kill-replica'), overKafka('delete')) },
    masked: ASKS_AGAIN,
  },
  {
    name: 'the journal is trimmed behind what the stream took',
    rules: [20, 22],
    invariant: 'V2',
    changes: [
      {
        file: 'daemon/ship/shipper.ts',
        find: 'this.#release.upTo(this.#registry.keptFor(replicated, oldestLsn));',
        replace:
          'this.#release.upTo(this.#lanes.reduce((most, { acceptedLsn }) => Math.max(most, acceptedLsn), Math.min(replicated, oldestLsn)));',
      },
    ],
    noticedBy: { simulation: both(both(striking('kill-replica', 'fill-replica'), fewJournalFiles), overKafka()) },
  },
  {
    name: 'a replica of an older format is sent newer frames',
    rules: [23],
    invariant: 'H5',
    changes: [
      {
        file: 'daemon/stream/direct/direct-source.ts',
        find: 'if (hello.protocol !== DIRECT_PROTOCOL || hello.frameVersion > frameVersion) {',
        replace: 'if (hello.protocol !== DIRECT_PROTOCOL) {',
      },
    ],
    noticedBy: {
      test: 'test/stream/direct.test.ts',
      title: 'unknown groups, other replicas, newer formats and stale sources are told so by code',
    },
    masked: {
      by: 'the other end, which looks at the answer itself',
      changes: [
        {
          file: 'daemon/stream/direct/direct-sink.ts',
          find: 'if (welcome.protocol !== DIRECT_PROTOCOL || welcome.frameVersion < this.#identity!.frameVersion) {',
          replace: 'if (welcome.protocol !== DIRECT_PROTOCOL) {',
        },
      ],
    },
  },
  {
    name: 'the lag in seconds is told as none',
    rules: [7],
    invariant: 'P7',
    changes: [
      {
        file: 'daemon/ship/heartbeat-times.ts',
        find: 'Math.max(0, nowMs - beat.monotonicMs) / 1000;',
        replace: 'Math.min(0, nowMs - beat.monotonicMs) / 1000;',
      },
    ],
    noticedBy: {
      test: SHIPPER,
      title: 'lag in seconds is the age of the newest heartbeat at the replica, unknown before there is one',
    },
  },
  {
    name: 'something in the data path is not decided by the seams',
    rules: [27],
    invariant: 'P1',
    changes: [
      {
        file: 'journal/journal-writer.ts',
        find: 'this.#host.clock.after(this.#options.syncIntervalMs, () => {',
        replace: 'this.#host.clock.after(this.#options.syncIntervalMs * (0.5 + Math.random()), () => {',
      },
    ],
    noticedBy: { test: 'test/simulation/simulation.test.ts', title: 'one seed is one run' },
  },
];
