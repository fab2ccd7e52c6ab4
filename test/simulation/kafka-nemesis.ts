import { CHAIN_START } from '../../journal/chain.ts';
import { FrameSealer, SEALER_DEFAULTS } from '../../journal/frame-sealer.ts';
import { RecordKind } from '../../journal/record.ts';
import { NO_KAFKA_FAULTS, type SimulatedKafka } from '../doubles/simulated-kafka.ts';
import { FEEDBACK_TOPIC, TOPIC } from './names.ts';
import type { SeededRandom } from './seeded-random.ts';
import type { KafkaAction, KafkaOptions } from './stream-options.ts';

const OUTAGE_MICROS_MAX = 12_000_000;
const LOST_RECORDS_MAX = 20;

/** Does to the topics what brokers and strangers may do. What the journal still holds must reach the replica after all. */
export class KafkaNemesis {
  readonly #kafka: SimulatedKafka;
  readonly #options: KafkaOptions;
  readonly #random: SeededRandom;
  readonly #foreign: Uint8Array = foreignFrame();
  #ended = false;

  /** Told of every fault and the topic it hits. */
  readonly #struck: (action: KafkaAction, topic: string) => void;

  constructor(
    kafka: SimulatedKafka,
    options: KafkaOptions,
    random: SeededRandom,
    struck: (action: KafkaAction, topic: string) => void,
  ) {
    this.#struck = struck;
    this.#kafka = kafka;
    this.#options = options;
    this.#random = random;
  }

  begin(): void {
    const { actions, actionMicros } = this.#options;
    if (actions.length === 0) return;
    this.#kafka.scheduler.after(this.#random.between(1, 2 * actionMicros), () => {
      if (this.#ended) return;
      this.#strike(this.#random.pick(actions), this.#random.chance(0.75) ? TOPIC : FEEDBACK_TOPIC);
      this.begin();
    });
  }

  end(): void {
    this.#ended = true;
    this.#kafka.down = false;
    this.#kafka.frozen = false;
    this.#kafka.faults = NO_KAFKA_FAULTS;
  }

  /** What an operator does about a topic in which only somebody else's frames are left: it is made anew. */
  giveTopicBack(): void {
    this.#kafka.delete(TOPIC);
  }

  #strike(action: KafkaAction, topic: string): void {
    const kafka = this.#kafka;
    const random = this.#random;
    const bounds = kafka.bounds(topic);
    if (bounds === undefined) return;
    const count = Number(bounds.end - bounds.start);
    kafka.scheduler.trace(`kafka ${action} ${topic}`);
    this.#struck(action, topic);
    switch (action) {
      case 'down':
        kafka.down = true;
        this.#later(() => {
          if (!this.#ended) kafka.down = false;
        });
        break;
      case 'freeze':
        kafka.frozen = true;
        this.#later(() => {
          if (!this.#ended) kafka.frozen = false;
        });
        break;
      case 'lose-end':
        kafka.loseEnd(topic, random.between(1, LOST_RECORDS_MAX));
        break;
      case 'expire':
        kafka.expireBefore(topic, bounds.start + BigInt(random.below(count + 1)));
        break;
      case 'delete':
        kafka.delete(topic);
        break;
      case 'repeat':
        kafka.inject(topic, (records) => (records.length === 0 ? undefined : random.pick(records)));
        break;
      case 'rubbish':
        kafka.inject(topic, (records) => {
          if (records.length === 0 || random.chance(0.5)) return { key: '', value: random.bytes(random.below(200)) };
          const { key, value } = random.pick(records);
          const damaged = value.slice(0, random.chance(0.5) ? value.length : random.below(value.length + 1));
          if (damaged.length > 0) damaged[random.below(damaged.length)]! ^= 1 << random.below(8);
          return { key, value: damaged };
        });
        break;
      case 'foreign':
        kafka.inject(topic, () => ({ key: 'somebody/else', value: this.#foreign }));
        break;
    }
  }

  #later(run: () => void): void {
    this.#kafka.scheduler.after(this.#random.between(1000, OUTAGE_MICROS_MAX), run);
  }
}

/** A whole frame of a group that is none of ours. */
function foreignFrame(): Uint8Array {
  const identity = {
    groupId: 'f'.repeat(32),
    groupName: 'foreign',
    epoch: 1,
    incarnation: { counter: 9, nonce: '9'.repeat(16) },
    frameVersion: 1,
  };
  const sealer = new FrameSealer(identity, { ...SEALER_DEFAULTS, compress: false });
  sealer.begin(1, CHAIN_START);
  const payload = new Uint8Array(512).fill(0x66);
  sealer.add({
    lsn: 1,
    kind: RecordKind.write,
    flags: 0,
    volume: 1,
    sector: 0,
    sectors: 1,
    requestId: 0,
    time: 1,
    payload,
  });
  return sealer.seal(1).bytes;
}
