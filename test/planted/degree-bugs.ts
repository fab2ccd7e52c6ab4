import { LOCAL_POLICY } from '../../daemon/synchrony/degree-policy.ts';
import type { PlantedBug } from './planted-bug.ts';
import { both, type OptionBias, striking } from './striking.ts';

const GROUP = 'test/synchrony/degree-group.test.ts';
const MACHINE = 'test/synchrony/degree-machine.test.ts';

/** Guests that wait for the replica, most of the time, and a replica that is cut off for longer than that is waited for. */
const inSync: OptionBias = (options) => ({
  ...options,
  activeMicros: 12_000_000,
  nemesisMicros: 3_000_000,
  network: { ...options.network, latencyMicrosMax: 5_000, cuts: 0 },
  degree: {
    policy: { ...LOCAL_POLICY, ack: 'replica', stallAfterMs: 800 },
    changes: false,
    heartbeatMs: 50,
  },
});

/** Bugs in what answers wait for beyond the host, and in what a replica makes of it. */
export const DEGREE_BUGS: readonly PlantedBug[] = [
  {
    name: 'an answer does not wait for the replica',
    rules: [],
    invariant: 'P6',
    changes: [
      {
        file: 'daemon/synchrony/ack-gate.ts',
        find: '    } else if (lsn <= this.#positionLsn) {',
        replace: '    } else if (lsn <= this.#positionLsn + 3) {',
      },
    ],
    noticedBy: { simulation: both(striking('cut-network'), inSync) },
    quick: true,
  },
  {
    name: 'a flush waits for its own volume’s last answer only, not for what stands before it',
    rules: [],
    invariant: 'P6',
    changes: [
      {
        file: 'daemon/volume/volume-client.ts',
        find: '    const coversLsn = volume.gate.newestLsn;',
        replace: '    const coversLsn = volume.gate.answeredLsn;',
      },
    ],
    noticedBy: { simulation: both(striking('cut-network'), inSync) },
  },
  {
    name: 'the stream’s word counts as the replica’s',
    rules: [],
    invariant: 'P6',
    changes: [
      {
        file: 'daemon/ship/shipper.ts',
        find: "ack === 'stream' ? this.#acceptedLsn : registry.replicatedLsn",
        replace: "ack === 'local' ? 0 : this.#acceptedLsn",
      },
    ],
    noticedBy: { simulation: both(striking('kill-replica', 'cut-network'), inSync) },
  },
  {
    name: 'a source goes on alone before the leases of its replicas are over',
    rules: [],
    invariant: 'P6',
    changes: [
      {
        file: 'daemon/synchrony/degree-machine.ts',
        find: '  if (nowMs < leasedUntilMs) return undefined;\n',
        replace: '',
      },
      {
        file: 'daemon/synchrony/degree-machine.ts',
        find: 'nowMs - standing.movedMs < policy.stallAfterMs)',
        replace: 'nowMs - standing.movedMs < policy.stallAfterMs / 2)',
      },
    ],
    noticedBy: { simulation: both(striking('partition', 'partition-one-way'), inSync) },
  },
  {
    name: 'a replica trusts a lease for ever',
    rules: [],
    invariant: 'P6',
    changes: [
      {
        file: 'replica/receive/promise-of-source.ts',
        find: '    if (sureForMs > 0) return',
        replace: '    if (sureForMs > -100_000) return',
      },
    ],
    noticedBy: { simulation: both(striking('partition', 'partition-one-way'), inSync) },
  },
  {
    name: 'a promise is believed before the record that makes it is durable',
    rules: [1],
    invariant: 'P6',
    changes: [
      {
        file: 'replica/receive/promise-of-source.ts',
        find: '    if (durableLsn < degree.lsn)',
        replace: '    if (durableLsn < 0)',
      },
    ],
    noticedBy: {
      test: 'test/replica/promise.test.ts',
      title: 'a promise counts from when the record that makes it is durable',
    },
  },
  {
    name: 'a lease counts from when it came',
    rules: [],
    invariant: 'P6',
    changes: [
      {
        file: 'replica/receive/promise-of-source.ts',
        find: 'lease.leaseMs * (1 - DRIFT) - elapsedMs',
        replace: 'lease.leaseMs * (1 + 50 * DRIFT) - elapsedMs',
      },
    ],
    noticedBy: {
      test: 'test/replica/promise.test.ts',
      title:
        'a replica claims that nothing is missing while a lease that names a state of its run lasts, less the drift of two clocks, and no longer',
    },
  },
  {
    name: 'answers go without the replica before the record that says so is durable',
    rules: [],
    invariant: 'P6',
    changes: [
      {
        file: 'daemon/synchrony/degree-keeper.ts',
        find: '    if (isResumed) this.#enter(change, lsn);\n    await this.#parts.journal.sync();\n    if (!isResumed) this.#enter(change, lsn);',
        replace: '    this.#enter(change, lsn);\n    await this.#parts.journal.sync();',
      },
    ],
    noticedBy: { simulation: both(striking('cut-network', 'kill-replica'), inSync) },
  },
  {
    name: 'the record of the promise comes before answers wait',
    rules: [],
    invariant: 'P6',
    changes: [
      {
        file: 'daemon/synchrony/degree-keeper.ts',
        find: '    if (isResumed) this.#enter(change, lsn);\n    await this.#parts.journal.sync();\n    if (!isResumed) this.#enter(change, lsn);',
        replace: '    await this.#parts.journal.sync();\n    this.#enter(change, lsn);',
      },
    ],
    noticedBy: { simulation: both(striking('cut-network', 'kill-replica'), inSync) },
  },
  {
    name: 'a start forgets that replicas rely on the run before',
    rules: [],
    invariant: 'P6',
    changes: [
      {
        file: 'daemon/synchrony/degree-file.ts',
        find: "    state: fields.oneOf('state', DEGREE_STATES),",
        replace: "    state: fields.oneOf('state', DEGREE_STATES) === 'off' ? 'off' : 'degraded',",
      },
    ],
    noticedBy: {
      test: GROUP,
      title:
        'after a restart who was in sync is waited for again, and nobody is answered without it before a lease of the run before is over',
    },
  },
  {
    name: 'a far side that comes back for a moment is relied on at once',
    rules: [],
    invariant: 'P6',
    changes: [
      {
        file: 'daemon/synchrony/degree-machine.ts',
        find: 'Math.min(UNBLOCK_MS, resumeMs) : resumeMs)) {',
        replace: 'Math.min(UNBLOCK_MS, resumeMs) : 0)) {',
      },
    ],
    noticedBy: {
      test: MACHINE,
      title:
        'a far side is relied on again only after it has kept up all the time of the hysteresis, and then the promise holds from there',
    },
  },
  {
    name: 'a replica that is not required is waited for',
    rules: [],
    invariant: 'P6',
    changes: [
      {
        file: 'daemon/ship/replica-registry.ts',
        find: '    return this.#least(this.replicas.filter(({ required }) => required));',
        replace: '    return this.#least(this.replicas);',
      },
    ],
    noticedBy: {
      test: GROUP,
      title: 'over a real shipper: a flush waits for the word of the replica',
    },
  },
];
