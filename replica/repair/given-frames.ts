import { TidemarkError } from '../../journal/base/errors.ts';
import { type Chain, sameChain } from '../../journal/chain.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { Clock } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import type { FrameSource } from '../../journal/stream.ts';

const FETCH_TIMEOUT_MS = 10_000;

/**
 * Frames from the far side, the first of which holds `firstLsn`: whole, each continuing the one before in LSN and chain.
 * Whether they are the records that stood here is the caller's to prove. Throws `frame-foreign`, `frame-damaged`, `gap`,
 * `divergence`, what the far side refuses with, and `stream-unavailable` when none comes within ten seconds.
 */
export async function* givenFrames(
  clock: Clock,
  source: FrameSource,
  groupId: string,
  firstLsn: Lsn,
): AsyncGenerator<FrameView> {
  const abort = new AbortController();
  let timer = clock.after(FETCH_TIMEOUT_MS, () => abort.abort());
  let next = firstLsn;
  let chain: Chain | undefined;
  try {
    for await (const bytes of source.fetch!(firstLsn, abort.signal)) {
      timer.cancel();
      const view = FrameView.open(bytes);
      if (view.groupId !== groupId) throw new TidemarkError('frame-foreign', `a frame of group ${view.groupId} came`);
      if (view.firstLsn > next) throw new TidemarkError('gap', `LSN ${view.firstLsn} came instead of ${next}`);
      view.verifyPayload();
      if (view.lastLsn >= next) {
        if (chain !== undefined && !sameChain(chain, view.chainAt(next - 1))) {
          throw new TidemarkError('divergence', `LSN ${next} does not continue what came before it`);
        }
        yield view;
        chain = view.chainAfter;
        next = view.lastLsn + 1;
      }
      timer = clock.after(FETCH_TIMEOUT_MS, () => abort.abort());
    }
  } finally {
    timer.cancel();
  }
}
