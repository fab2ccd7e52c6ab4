import type { KafkaFaults } from '../doubles/simulated-kafka.ts';
import type { SeededRandom } from './seeded-random.ts';

/** What brokers, and others who may write to a topic, do to it. Each hits the frames' or the feedback topic. */
const KAFKA_ACTIONS = ['down', 'freeze', 'lose-end', 'expire', 'delete', 'repeat', 'rubbish', 'foreign'] as const;
export type KafkaAction = (typeof KAFKA_ACTIONS)[number];

export interface KafkaOptions {
  readonly kind: 'kafka';
  readonly faults: KafkaFaults;
  readonly actions: readonly KafkaAction[];
  /** Mean time between two of them. */
  readonly actionMicros: number;
  /** The sender's window, so that a run of a few seconds fills it. */
  readonly windowBytes: number;
  /** Of one read of the replica. */
  readonly readBytes: number;
}

/** How frames go from the source to its replicas in a run. */
export type StreamOptions = { readonly kind: 'direct' } | KafkaOptions;

export const DIRECT: StreamOptions = { kind: 'direct' };

export function drawStream(random: SeededRandom): StreamOptions {
  if (random.chance(0.5)) return DIRECT;
  const maybe = (value: number): number => (random.chance(0.5) ? value : 0);
  return {
    kind: 'kafka',
    faults: {
      latencyMicrosMax: random.pick([500, 5000, 50_000]),
      lostRequests: maybe(random.pick([0.01, 0.1])),
      lostAnswers: maybe(random.pick([0.01, 0.1])),
      lateSends: maybe(random.pick([0.005, 0.05])),
    },
    actions: KAFKA_ACTIONS.filter(() => random.chance(0.4)),
    actionMicros: random.pick([300_000, 1_000_000, 3_000_000]),
    windowBytes: random.pick([32, 256, 4096]) * 1024,
    readBytes: random.pick([1, 64, 8192]) * 1024,
  };
}
