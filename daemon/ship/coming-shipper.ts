import { TidemarkError } from '../../journal/base/errors.ts';
import type { JournalAddress } from '../../journal/position.ts';
import type { ChainCheckpoint } from './chain-checkpoints.ts';
import type { Shipper } from './shipper.ts';

/**
 * The shipper of a group that runs already. A start may find the journal so full that history has to be given up before
 * there is a shipper: giving up waits for it, for what is overwritten first cannot be asked for its chain any more.
 */
export class ComingShipper {
  readonly #outcome = Promise.withResolvers<Shipper | undefined>();
  #shipper: Shipper | undefined;

  /** Undefined until it is open. */
  get shipper(): Shipper | undefined {
    return this.#shipper;
  }

  opened(shipper: Shipper): void {
    this.#shipper = shipper;
    this.#outcome.resolve(shipper);
  }

  /** None will come: to be called before the group is closed, which waits for what is giving up. */
  failed(): void {
    this.#outcome.resolve(undefined);
  }

  /** For `GroupOptions.beforeGivingUp`. Rejects with `shutting-down` when no shipper comes: then nothing is given up. */
  async keepChainAt(end: JournalAddress): Promise<ChainCheckpoint | undefined> {
    const shipper = await this.#outcome.promise;
    if (shipper === undefined) throw new TidemarkError('shutting-down', 'shipping could not be started');
    return shipper.keepChainAt(end);
  }
}
