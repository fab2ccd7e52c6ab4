import { TidemarkError } from '../../journal/base/errors.ts';
import { chainString } from '../../journal/chain.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Journal, RestoredRecord } from '../../journal/journal.ts';
import type { Lsn } from '../../journal/position.ts';
import type { FrameSink, FrameSinkEvents } from '../../journal/stream.ts';
import { ChainCheckpoints } from './chain-checkpoints.ts';
import { chainAt } from './chain-walk.ts';
import { isUnreadable, loadShipState } from './ship-state.ts';

export interface SettleOptions {
  /** Opened, not begun. */
  readonly journal: Journal;
  readonly directory: string;
  readonly groupId: string;
  readonly groupName: string;
  /** Not opened yet; closed when this resolves. The shipper gets others. */
  readonly sinks: readonly FrameSink[];
  /** How long the far side may take to answer, and to send each frame. */
  readonly timeoutMs: number;
}

export interface Settled {
  /** What the far side holds, for `Journal.begin`; 0 when nobody answered. */
  readonly highestLsn: Lsn;
  /** How many of the sinks answered: with none, a cut is accepted without having been compared (rule 4). */
  readonly answered: number;
  /** Records that were lost here and came back. */
  readonly restored: number;
}

const NOTHING: FrameSinkEvents = {
  onSeek: () => undefined,
  onReady: () => undefined,
  onAccepted: () => undefined,
  onFeedback: () => undefined,
  onStatus: () => undefined,
};

/**
 * Before a source begins a new incarnation: asks every stream what it holds, and where that is more than the journal
 * has, fetches the difference, so that no LSN is ever given to two records (DESIGN rule 4, invariant R4). Rejects with
 * `divergence` when what the far side holds does not continue what is here.
 */
export async function settleFarSide(host: Host, options: SettleOptions): Promise<Settled> {
  const { journal, sinks, groupId, groupName, timeoutMs } = options;
  const { epoch, incarnation } = journal.report;
  for (const sink of sinks) sink.open({ groupId, groupName, epoch, incarnation, frameVersion: FRAME_VERSION }, NOTHING);
  try {
    const answers = await Promise.allSettled(sinks.map((sink) => sink.settle(timeoutMs)));
    let highestLsn: Lsn = 0;
    let answered = 0;
    let ahead: FrameSink | undefined;
    for (const [index, answer] of answers.entries()) {
      if (answer.status === 'rejected') {
        if (!(answer.reason instanceof TidemarkError)) throw answer.reason;
        continue;
      }
      answered++;
      if (answer.value.highestLsn <= highestLsn) continue;
      highestLsn = answer.value.highestLsn;
      ahead = sinks[index];
    }
    const restored = ahead !== undefined && highestLsn > journal.lastLsn ? await restore(host, options, ahead) : 0;
    return { highestLsn, answered, restored };
  } finally {
    await Promise.all(sinks.map((sink) => sink.close()));
  }
}

async function restore(host: Host, options: SettleOptions, sink: FrameSink): Promise<number> {
  const { journal, directory, groupId, timeoutMs } = options;
  const headLsn = journal.lastLsn;
  const checkpoints = new ChainCheckpoints(
    await loadShipState(host.disk, directory, groupId).catch((error: unknown) => {
      if (!isUnreadable(error)) throw error;
      return [];
    }),
  );
  const ours = await chainAt(journal, checkpoints, headLsn, journal.marks.address('durable'));
  const abort = new AbortController();
  let timer = host.clock.after(timeoutMs, () => abort.abort());
  try {
    for await (const bytes of sink.fetch(headLsn + 1, abort.signal)) {
      timer.cancel();
      const view = FrameView.open(bytes);
      checkFrame(view, groupId, journal.lastLsn);
      if (view.lastLsn <= journal.lastLsn) continue;
      const first = view.firstLsn <= headLsn + 1;
      if (first && ours !== undefined && chainString(view.chainAt(headLsn)) !== chainString(ours)) {
        throw new TidemarkError(
          'divergence',
          `what the far side holds does not continue record ${headLsn} as it is here`,
        );
      }
      view.verifyPayload();
      journal.restoreRecords(recordsBehind(view, journal.lastLsn));
      timer = host.clock.after(timeoutMs, () => abort.abort());
    }
  } finally {
    timer.cancel();
  }
  return journal.lastLsn - headLsn;
}

function checkFrame(view: FrameView, groupId: string, lastLsn: Lsn): void {
  if (view.groupId !== groupId) {
    throw new TidemarkError('frame-foreign', `a frame of group ${view.groupId} came for group ${groupId}`);
  }
  if (view.firstLsn > lastLsn + 1) {
    throw new TidemarkError('gap', `the far side sent record ${view.firstLsn} after ${lastLsn}`);
  }
}

function recordsBehind(view: FrameView, lsn: Lsn): RestoredRecord[] {
  const records: RestoredRecord[] = [];
  view.forEach((record, index) => {
    if (record.lsn <= lsn) return;
    const { kind, flags, volume, sector, sectors, requestId, time } = record;
    records.push({
      lsn: record.lsn,
      kind,
      flags,
      volume,
      sector,
      sectors,
      requestId,
      time,
      payload: view.payloadOf(index),
    });
  });
  return records;
}
