import { KafkaLog } from '../../daemon/stream/kafka/kafka-log.ts';
import { KafkaSource } from '../../daemon/stream/kafka/kafka-source.ts';
import { damageOnBothSides, GROUP_ID } from '../repair/both-sides.ts';
import { giveUpLostRecords } from '../repair/lost-records.ts';
import { KafkaTests } from './kafka-tests.ts';
import { newGroup } from './stream-ends.ts';

const kafka = new KafkaTests({});

kafka.run(
  'over Kafka: damage at the replica and at the source is put back from the topic, and both go on',
  async (t) => {
    const site = kafka.newSite(kafka.broker.address, { ...newGroup(), groupId: GROUP_ID });
    const log = new KafkaLog(kafka.broker.client({ connectTimeoutMs: 2_000 }));
    await damageOnBothSides(t, {
      sink: () => kafka.newSink(site),
      source: () => {
        const source = new KafkaSource(kafka.host, log, { ...site, checkIntervalMs: 500 });
        kafka.atEnd(() => source.close());
        return source;
      },
    });
  },
);

kafka.run(
  'over Kafka: of records that rotted at the source the topic gives back what it has, the rest is given up, and history goes on',
  async (t) => {
    const site = kafka.newSite(kafka.broker.address, { ...newGroup(), groupId: GROUP_ID });
    const log = new KafkaLog(kafka.broker.client({ connectTimeoutMs: 2_000 }));
    const source = (): KafkaSource => {
      const made = new KafkaSource(kafka.host, log, { ...site, checkIntervalMs: 500 });
      kafka.atEnd(() => made.close());
      return made;
    };
    await giveUpLostRecords(t, { sink: () => kafka.newSink(site), source }, true);
  },
);
