import type { SimulatedNetwork } from '../doubles/simulated-network.ts';
import type { ReplicaParts } from './replica-node.ts';
import type { SourceParts } from './source-parts.ts';

export interface Parts {
  source(network: SimulatedNetwork): SourceParts;
  readonly replica: ReplicaParts;
}

export const REAL_PARTS: Parts = {
  source: () => ({
    prepare: (host) => ({
      host,
      settle: undefined,
      ship: () => () => Promise.resolve(),
    }),
  }),
  replica: { host: (host) => host, source: (source) => source },
};
