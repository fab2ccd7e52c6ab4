import type { ShipStatus } from '../../../daemon/ship/ship-status.ts';
import type { Lsn } from '../../../journal/position.ts';
import type { ReceiverStatus } from '../../../replica/receive/receiver-parts.ts';
import type { KafkaFaults, SimulatedKafka } from '../../doubles/simulated-kafka.ts';
import { FEEDBACK_TOPIC, REPLICA, TOPIC } from '../names.ts';
import type { KafkaAction } from '../stream-options.ts';

/** What both ends say at one moment; undefined where one is down. */
export interface BothEnds {
  readonly ship: ShipStatus | undefined;
  readonly receiver: ReceiverStatus | undefined;
}

type Fault = KafkaAction | Exclude<keyof KafkaFaults, 'latencyMicrosMax'>;

/**
 * Everything that was done to the topics of a run, by its kind. When all of it is over, each kind must have left nothing
 * behind that does not show: it is healed, or one end says in its status what is wrong.
 */
export class TopicFaults {
  readonly #kafka: SimulatedKafka;
  /** Fault and the topic it struck. */
  readonly #struck: Set<string> = new Set();

  constructor(kafka: SimulatedKafka, faults: KafkaFaults) {
    this.#kafka = kafka;
    for (const fault of ['lostRequests', 'lostAnswers', 'lateSends'] as const) {
      if (faults[fault] > 0) for (const topic of [TOPIC, FEEDBACK_TOPIC]) this.struck(fault, topic);
    }
  }

  struck(fault: Fault, topic: string): void {
    this.#struck.add(`${fault} ${topic}`);
  }

  /** The kinds that are neither healed nor named, each with why; `goal`: what both sides must have told one another. */
  open({ ship, receiver }: BothEnds, goal: Lsn, replica: string = REPLICA.name): string[] {
    if (ship === undefined || receiver === undefined) return this.#struck.size === 0 ? [] : ['one end is down'];
    const told = ship.replicas.find(({ name }) => name === replica)?.durableLsn ?? 0;
    const sending = ship.state === 'streaming' ? '' : `the source is ${ship.state}: ${ship.reason}`;
    const reading = receiver.stream?.state === 'streaming' ? '' : `the replica is ${receiver.stream?.state}`;
    const taking = receiver.state === 'receiving' ? '' : `the replica is ${receiver.state}: ${receiver.reason}`;
    const waiting = receiver.missingFrom === 0 ? receiver.lost : `the replica waits for LSN ${receiver.missingFrom}`;
    const there = this.#kafka.bounds(TOPIC) === undefined ? 'the topic is not there' : '';
    const back = this.#kafka.bounds(FEEDBACK_TOPIC) === undefined ? 'the feedback topic is not there' : '';
    const heard = told >= goal ? '' : `the source knows of LSN ${told} at the replica, which holds ${goal}`;
    const wrong: Record<Fault, readonly string[]> = {
      down: [sending, reading],
      freeze: [sending, reading],
      lostRequests: [sending, reading],
      lostAnswers: [sending, reading],
      lateSends: [sending, reading, taking],
      'lose-end': [sending, waiting],
      expire: [sending, waiting],
      delete: [sending, waiting, there],
      repeat: [taking],
      rubbish: [taking, waiting],
      foreign: [taking, sending],
    };
    return [...this.#struck].sort().flatMap((kind) => {
      const [fault, topic] = kind.split(' ') as [Fault, string];
      const found = topic === FEEDBACK_TOPIC ? [sending, back, heard] : wrong[fault];
      const reasons = found.filter((why) => why !== '');
      return reasons.length === 0 ? [] : [`${kind}: ${reasons.join('; ')}`];
    });
  }
}
