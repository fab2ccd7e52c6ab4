import { channel } from '../../journal/base/channels.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { type Chain, chainString } from '../../journal/chain.ts';
import type { DamagedStretch, StretchAnchor } from '../../journal/damaged-stretch.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Journal, RestoredRecord } from '../../journal/journal.ts';
import type { Lsn } from '../../journal/position.ts';
import type { FrameSink, FrameSinkEvents } from '../../journal/stream.ts';
import { readAcknowledged } from './acknowledged.ts';
import { ChainCheckpoints } from './chain-checkpoints.ts';
import { chainAt } from './chain-walk.ts';
import { type GiveUpOptions, type GiveUpOutcome, giveUp } from './give-up.ts';
import { mendStretch } from './mend-stretch.ts';
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
  /** Places in the journal that somebody relies on. */
  readonly anchors?: readonly StretchAnchor[];
  /** Present: what an operator has given up. */
  readonly giveUp?: Pick<GiveUpOptions, 'word' | 'writtenOutTo' | 'seedAllAnew'> & {
    /** As configured now. */
    readonly replicas: readonly string[];
  };
}

export interface Settled {
  /** What the far side holds, for `Journal.begin`; 0 when nobody answered. */
  readonly highestLsn: Lsn;
  /** How many of the sinks answered: with none, a cut is accepted without having been compared (rule 4). */
  readonly answered: number;
  /** Records that were lost here and came back. */
  readonly restored: number;
  /** Damaged stretches that the start found and that read well again. */
  readonly mended: number;
  /** Those that nobody could give back, and why. */
  readonly unmended: readonly (Pick<DamagedStretch, 'fromLsn' | 'toLsn'> & { readonly reason: string })[];
  /** What became of an operator's word. */
  readonly givenUp?: GiveUpOutcome;
}

const mendedChannel = channel('tidemark:journal:mended');
const unmendedChannel = channel('tidemark:journal:unmended');

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
 * `divergence` when what the far side holds does not continue what is here. Records behind the end of this journal that
 * an earlier start of the source sent are no continuation: it was replaced by a start that this journal knows, so they
 * are passed over, as replicas do (rule 1).
 */
export async function settleFarSide(host: Host, options: SettleOptions): Promise<Settled> {
  const { journal, sinks, groupId, groupName, timeoutMs } = options;
  const { epoch } = journal.report;
  // who has heard of a later run that is lost here would not listen to an earlier one
  const incarnation = journal.begunBefore;
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
    const found = await mendFound(host, options);
    const given = await carryOut(host, options, { highestLsn, allAnswered: answered === sinks.length });
    const again = given === undefined ? undefined : await mendFound(host, options);
    const { unmended } = again ?? found;
    // without the end of the journal nobody can tell what continues it
    const whole = unmended.every(({ toLsn }) => toLsn < journal.lastLsn);
    const more = whole && ahead !== undefined && highestLsn > journal.lastLsn;
    const { restored, isLate } = more ? await restore(host, options, ahead!) : { restored: 0, isLate: false };
    return {
      highestLsn: isLate ? journal.lastLsn : highestLsn,
      answered,
      restored,
      mended: found.mended + (again?.mended ?? 0) + (given?.mended ?? 0),
      unmended,
      ...(given === undefined ? {} : { givenUp: given }),
    };
  } finally {
    await Promise.all(sinks.map((sink) => sink.close()));
  }
}

/** What recovery found damaged comes back first: the rest may continue it. */
async function mendFound(host: Host, options: SettleOptions): Promise<Pick<Settled, 'mended' | 'unmended'>> {
  const { journal, anchors = [], groupName: group } = options;
  const unmended: Settled['unmended'][number][] = [];
  let mended = 0;
  for (const { address } of journal.report.damage) {
    const checkpoints = await loadCheckpoints(host, options);
    const relied = checkpoints.list.map(({ lsn, address: at }) => ({ lsn: lsn + 1, address: at }));
    const stretch = journal.damageAt(address, [...relied, ...anchors]);
    if (stretch === undefined) continue;
    const { fromLsn, toLsn } = stretch;
    try {
      const bytes = await mendStretch(host, { ...options, checkpoints }, stretch);
      mendedChannel.publish({ group, fromLsn, toLsn, bytes });
      mended++;
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      unmendedChannel.publish({ group, fromLsn, toLsn, reason: error.message });
      unmended.push({ fromLsn, toLsn, reason: error.message });
    }
  }
  return { mended, unmended };
}

/** The operator's word comes last: what anybody can give back is back by then. */
async function carryOut(
  host: Host,
  options: SettleOptions,
  far: { readonly highestLsn: Lsn; readonly allAnswered: boolean },
): Promise<GiveUpOutcome | undefined> {
  const { giveUp: order, directory, groupId } = options;
  if (order === undefined) return undefined;
  const { replicas, ...word } = order;
  const told = readAcknowledged(host, { directory, groupId }).filter(({ name }) => replicas.includes(name));
  const heldLsn = Math.max(far.highestLsn, ...told.map(({ acknowledgedLsn }) => acknowledgedLsn));
  const { allAnswered } = far;
  const anchors = options.anchors ?? [];
  const load = () => loadCheckpoints(host, options);
  return giveUp(host, { ...options, ...word, anchors, allAnswered, heldLsn, loadCheckpoints: load });
}

async function loadCheckpoints(host: Host, { directory, groupId, journal }: SettleOptions): Promise<ChainCheckpoints> {
  const list = await loadShipState(host.disk, directory, groupId).catch((error: unknown) => {
    if (!isUnreadable(error)) throw error;
    return [];
  });
  return new ChainCheckpoints(list, journal.fileBytes);
}

async function restore(
  host: Host,
  options: SettleOptions,
  sink: FrameSink,
): Promise<{ restored: number; isLate: boolean }> {
  const { journal, groupId, timeoutMs } = options;
  const headLsn = journal.lastLsn;
  const checkpoints = await loadCheckpoints(host, options);
  const ours = await ownChain(journal, checkpoints, headLsn);
  const abort = new AbortController();
  let isLate = false;
  let timer = host.clock.after(timeoutMs, () => abort.abort());
  try {
    for await (const bytes of sink.fetch(headLsn + 1, abort.signal)) {
      timer.cancel();
      const view = FrameView.open(bytes);
      checkGroup(view, groupId);
      if (view.lastLsn > journal.lastLsn && isReplaced(view, journal)) {
        isLate = true;
        timer = host.clock.after(timeoutMs, () => abort.abort());
        continue;
      }
      checkPlace(view, journal.lastLsn);
      if (view.lastLsn <= journal.lastLsn) continue;
      const first = view.firstLsn <= headLsn + 1;
      // no start gives an LSN twice (R5): what the start sealed that wrote our end continues it
      if (first && ours === 'unreadable' && !isOfOurStart(view, journal)) return { restored: 0, isLate };
      if (
        first &&
        ours !== undefined &&
        ours !== 'unreadable' &&
        chainString(view.chainAt(headLsn)) !== chainString(ours)
      ) {
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
  return { restored: journal.lastLsn - headLsn, isLate };
}

/** The chain at the end of this journal; undefined: nothing leads there; or what leads there cannot be read. */
async function ownChain(
  journal: Journal,
  checkpoints: ChainCheckpoints,
  headLsn: Lsn,
): Promise<Chain | undefined | 'unreadable'> {
  try {
    return await chainAt(journal, checkpoints, headLsn, journal.marks.address('durable'));
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    return 'unreadable';
  }
}

function isOfOurStart(view: FrameView, { report }: Journal): boolean {
  const { counter, nonce } = report.incarnation;
  return view.incarnation.counter === counter && view.incarnation.nonce === nonce;
}

/** Sealed by a start before the one that wrote the end of this journal. */
function isReplaced(view: FrameView, { report }: Journal): boolean {
  const { epoch, incarnation } = report;
  return view.epoch < epoch || (view.epoch === epoch && view.incarnation.counter < incarnation.counter);
}

function checkGroup(view: FrameView, groupId: string): void {
  if (view.groupId !== groupId) {
    throw new TidemarkError('frame-foreign', `a frame of group ${view.groupId} came for group ${groupId}`);
  }
}

function checkPlace(view: FrameView, lastLsn: Lsn): void {
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
