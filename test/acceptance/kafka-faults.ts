import type { KafkaCluster, KafkaNode } from '../servers/kafka-cluster.ts';
import type { Site } from '../servers/site.ts';
import type { WatchedLoad } from './watched-load.ts';

/** What a fault has to work on. */
export interface FaultGround {
  readonly cluster: KafkaCluster;
  readonly site: Site;
  readonly load: WatchedLoad;
  readonly topic: string;
}

export interface Fault {
  readonly name: string;
  /** Must have been seen in status before the end: the stream was away, and the source may not call that protecting. */
  readonly mustShow?: RegExp;
  /** Needs brokers whose disks can be filled: root. */
  readonly fillsDisks?: boolean;
  /** Does the fault and takes it away again. */
  run(ground: FaultGround): Promise<void>;
}

const FREEZE_MS = 20_000;
const PROXY_FAULT_MS = 12_000;
const BEHIND = /^source behind/;

export function seconds(count: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, count * 1000));
}

const followersOf = async ({ cluster, topic }: FaultGround): Promise<KafkaNode[]> => {
  const leader = await cluster.leaderOf(topic);
  return cluster.nodes.filter((node) => node !== leader);
};

/** The way to every broker is disturbed for a while. */
function onTheWay(name: string, disturb: (node: KafkaNode) => void, mustShow?: RegExp): Fault {
  return {
    name,
    ...(mustShow === undefined ? {} : { mustShow }),
    async run({ cluster }) {
      for (const node of cluster.nodes) disturb(node);
      await seconds(PROXY_FAULT_MS / 1000);
      for (const node of cluster.nodes) node.proxy.mend();
    },
  };
}

/** Between clients and brokers, whatever their number. */
export const PROXY_FAULTS: readonly Fault[] = [
  onTheWay('way delayed by 200 ms', ({ proxy }) => {
    proxy.delayMs = 200;
  }),
  onTheWay('way cut in the middle of messages', ({ proxy }) => {
    proxy.cutMidFrame = 0.03;
  }),
  onTheWay('way reset', ({ proxy }) => {
    proxy.reset = 0.03;
  }),
  onTheWay('requests and answers lost', ({ proxy }) => {
    proxy.requestLost = 0.05;
    proxy.responseLost = 0.05;
  }),
  onTheWay('way frozen', ({ proxy }) => proxy.freeze(), BEHIND),
  onTheWay('bits flipped on the way', ({ proxy }) => {
    proxy.bitFlip = 0.05;
  }),
];

/** Of any number of brokers. */
export const BROKER_FAULTS: readonly Fault[] = [
  {
    name: 'every broker killed and started again',
    mustShow: BEHIND,
    async run({ cluster }) {
      await Promise.all(cluster.nodes.map((node) => node.kill()));
      await seconds(8);
      await cluster.heal();
    },
  },
  {
    name: 'every broker frozen 20 s',
    mustShow: BEHIND,
    async run({ cluster }) {
      for (const node of cluster.nodes) node.freeze();
      await seconds(FREEZE_MS / 1000);
      await cluster.heal();
    },
  },
  {
    name: 'topic deleted and made again',
    async run({ cluster, topic }) {
      await cluster.deleteTopic(topic);
      // the daemons look at a topic's identity once a minute, or when it fails them
      await seconds(10);
    },
  },
  {
    name: 'records removed under a replica that stood still',
    async run({ cluster, site, load, topic }) {
      load.replicaAway(true);
      await seconds(1);
      process.kill(site.replica.pid, 'SIGSTOP');
      await seconds(8);
      await cluster.deleteRecords(topic);
      await seconds(2);
      process.kill(site.replica.pid, 'SIGCONT');
      load.replicaAway(false);
      await seconds(2);
    },
  },
  {
    name: 'records expired under a replica that was down',
    async run({ cluster, site, load, topic }) {
      load.replicaAway(true);
      await site.replica.stop();
      await seconds(6);
      // as an operator who sets a retention in bytes, and takes it back
      await cluster.configure(topic, 'segment.bytes', String(1024 * 1024));
      await cluster.configure(topic, 'retention.bytes', '1');
      await seconds(12);
      await cluster.configure(topic, 'retention.bytes', '-1');
      await cluster.configure(topic, 'segment.bytes', String(128 * 1024 * 1024));
      await site.replica.start();
      load.replicaAway(false);
    },
  },
];

/** Of three brokers. */
export const CLUSTER_FAULTS: readonly Fault[] = [
  {
    name: 'leader killed',
    async run({ cluster, topic }) {
      await (await cluster.leaderOf(topic)).kill();
      await seconds(12);
      await cluster.heal();
    },
  },
  {
    name: 'leader frozen 20 s',
    async run({ cluster, topic }) {
      const leader = await cluster.leaderOf(topic);
      leader.freeze();
      await seconds(FREEZE_MS / 1000);
      leader.thaw();
    },
  },
  {
    name: 'two of three brokers lost: no quorum, no in-sync majority',
    mustShow: BEHIND,
    async run(ground) {
      for (const node of await followersOf(ground)) await node.kill();
      await seconds(15);
      await ground.cluster.heal();
    },
  },
  {
    name: 'too few in sync by the topic itself',
    mustShow: BEHIND,
    async run(ground) {
      await ground.cluster.configure(ground.topic, 'min.insync.replicas', '3');
      const [follower] = await followersOf(ground);
      await follower?.kill();
      await seconds(15);
      await ground.cluster.heal();
      await ground.cluster.configure(ground.topic, 'min.insync.replicas', '2');
    },
  },
  {
    name: 'rolling restart',
    async run({ cluster, topic }) {
      for (const node of cluster.nodes) {
        await node.shutDown();
        node.launch();
        await node.ready();
        await cluster.inSync(topic, cluster.nodes.length);
      }
    },
  },
  {
    name: 'disk full at the leader',
    fillsDisks: true,
    async run({ cluster, topic }) {
      (await cluster.leaderOf(topic)).fillDisk();
      await seconds(15);
      await cluster.heal();
    },
  },
  {
    name: 'disks full at every broker',
    fillsDisks: true,
    mustShow: BEHIND,
    async run({ cluster }) {
      for (const node of cluster.nodes) node.fillDisk();
      await seconds(15);
      await cluster.heal();
    },
  },
];
