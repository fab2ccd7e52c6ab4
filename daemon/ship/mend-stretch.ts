import { TidemarkError } from '../../journal/base/errors.ts';
import { CHAIN_START, type Chain, sameChain } from '../../journal/chain.ts';
import { type DamagedStretch, recordEntry } from '../../journal/damaged-stretch.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Journal } from '../../journal/journal.ts';
import type { Lsn } from '../../journal/position.ts';
import type { FrameSink } from '../../journal/stream.ts';
import type { StretchWriter } from '../../journal/stretch-writer.ts';
import type { ChainCheckpoints } from './chain-checkpoints.ts';
import { chainAt } from './chain-walk.ts';

export interface MendOptions {
  readonly journal: Journal;
  readonly groupId: string;
  /** Open and connected; asked one after the other. */
  readonly sinks: readonly FrameSink[];
  readonly checkpoints: ChainCheckpoints;
  /** How long the far side may take for each frame. */
  readonly timeoutMs: number;
  /** Told of each of the sinks, by its place in the list, why it could not help. */
  readonly onRefused?: (sink: number, why: TidemarkError) => void;
}

/**
 * Puts the records of a stretch back that a replica or the topic still holds. All of them are fetched and proven first
 * and written afterwards: a repair has a direction only by proof (DESIGN rule 26). Resolves with the journal bytes that
 * were written. Rejects with why the last one asked could not help; then nothing has changed.
 */
export async function mendStretch(host: Host, options: MendOptions, stretch: DamagedStretch): Promise<number> {
  const { journal, sinks } = options;
  if (stretch.toLsn < stretch.fromLsn) return write(journal, stretch, []);
  let refusal = new TidemarkError('stream-unavailable', 'there is nobody to ask');
  for (const [place, sink] of sinks.entries()) {
    try {
      const proven = await proveRecords(host, options, sink, stretch);
      return await write(journal, stretch, readAgain(host, options, sink, stretch, proven));
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      refusal = error;
      options.onRefused?.(place, error);
    }
  }
  throw refusal;
}

async function write(
  journal: Journal,
  stretch: DamagedStretch,
  frames: AsyncIterable<FrameView> | Iterable<FrameView>,
): Promise<number> {
  const writer = await journal.mend(stretch);
  try {
    for await (const view of frames) addRecords(writer, view, stretch);
    return await writer.finish();
  } finally {
    await writer.close();
  }
}

/** Puts the records of a frame back that lie in the stretch. It may begin before what the frame before it has brought. */
export function addRecords(
  writer: StretchWriter,
  view: FrameView,
  { fromLsn, toLsn }: Pick<DamagedStretch, 'fromLsn' | 'toLsn'>,
): void {
  view.forEach((record, index) => {
    if (record.lsn < Math.max(fromLsn, writer.nextLsn) || record.lsn > toLsn) return;
    const { kind, flags, volume, sector, sectors, requestId, time, lsn } = record;
    const payload = view.payloadOf(index);
    writer.add({ lsn, kind, flags, volume, sector, sectors, requestId, time, payload, epoch: view.epoch });
  });
}

/** Chain values at the ends of the frames that were proven. */
export type Proven = ReadonlyMap<Lsn, Chain>;

/**
 * Reads the records of a stretch up to `toLsn` (all of it when left out) once and compares them with all that can still
 * be read here. Throws `divergence`, `gap`, `trimmed` (details: heldLsn, as far as the far side gave them) ...
 */
export async function proveRecords(
  host: Host,
  options: MendOptions,
  sink: FrameSink,
  stretch: DamagedStretch,
  toLsn: Lsn = stretch.toLsn,
): Promise<Proven> {
  const { fromLsn, before, incarnation } = stretch;
  const after = toLsn === stretch.toLsn ? stretch.after : undefined;
  const ours = await chainBefore(options, stretch);
  const first = ours === undefined && before !== undefined ? fromLsn - 1 : fromLsn;
  // the chain behind the stretch proves every record in it
  const known = options.checkpoints.list.find(({ lsn }) => lsn >= toLsn);
  const behind = toLsn === stretch.toLsn || known?.lsn === toLsn ? known : undefined;
  const last = Math.max(after === undefined ? toLsn : toLsn + 1, behind?.lsn ?? 0);
  const chains = new Map<Lsn, Chain>();
  let witnesses = 0;
  const compare = (what: string, same: boolean): void => {
    if (!same) throw new TidemarkError('divergence', `the far side has another ${what} than this journal`);
    witnesses++;
  };
  let covered = first - 1;
  for await (const view of fetchFrames(host, options, sink, { fromLsn: first, toLsn: last, incarnation })) {
    if (ours !== undefined && view.firstLsn <= fromLsn && view.lastLsn >= fromLsn) {
      compare(`history up to record ${fromLsn - 1}`, sameChain(view.chainAt(fromLsn - 1), ours));
    }
    if (before !== undefined && holds(view, fromLsn - 1)) {
      compare(
        `record ${fromLsn - 1}`,
        before.every((byte, at) => entryAt(view, fromLsn - 1)[at] === byte),
      );
    }
    if (after !== undefined && holds(view, toLsn + 1)) {
      compare(
        `record ${toLsn + 1}`,
        after.every((byte, at) => entryAt(view, toLsn + 1)[at] === byte),
      );
    }
    if (behind !== undefined && holds(view, behind.lsn)) {
      compare(`history up to record ${behind.lsn}`, sameChain(view.chainAt(behind.lsn), behind.chain));
    }
    checkHeader(stretch, view);
    chains.set(view.lastLsn, view.chainAfter);
    covered = view.lastLsn;
  }
  if (covered < fromLsn) throw new TidemarkError('trimmed', 'the far side holds none of these records');
  if (covered < toLsn) {
    throw new TidemarkError('trimmed', `the far side holds these records only up to ${covered}`, {
      details: { heldLsn: covered },
    });
  }
  if (witnesses === 0) {
    throw new TidemarkError(
      'divergence',
      `nothing here proves that records ${fromLsn} to ${toLsn} of the far side are ours`,
    );
  }
  return chains;
}

/** The frames of a stretch again that were proven; they were too many to be kept. */
export async function* readAgain(
  host: Host,
  options: MendOptions,
  sink: FrameSink,
  stretch: Pick<DamagedStretch, 'fromLsn' | 'toLsn' | 'incarnation'>,
  proven: Proven,
): AsyncGenerator<FrameView> {
  for await (const view of fetchFrames(host, options, sink, stretch)) {
    const chain = proven.get(view.lastLsn);
    if (chain === undefined || !sameChain(chain, view.chainAfter)) {
      throw new TidemarkError('divergence', `the far side sent other records up to ${view.lastLsn} than before`);
    }
    yield view;
  }
}

/** Frames that cover [fromLsn, toLsn] as far as the far side holds them: whole, verified, each continuing the one before. */
async function* fetchFrames(
  host: Host,
  { groupId, journal, timeoutMs }: MendOptions,
  sink: FrameSink,
  { fromLsn, toLsn, incarnation }: Pick<DamagedStretch, 'fromLsn' | 'toLsn' | 'incarnation'>,
): AsyncGenerator<FrameView> {
  const abort = new AbortController();
  let timer = host.clock.after(timeoutMs, () => abort.abort());
  let next = fromLsn;
  let chain: Chain | undefined;
  try {
    for await (const bytes of sink.fetch(fromLsn, abort.signal, incarnation)) {
      timer.cancel();
      const view = FrameView.open(bytes);
      if (view.groupId !== groupId) {
        throw new TidemarkError('frame-foreign', `a frame of group ${view.groupId} came for group ${groupId}`);
      }
      if (view.epoch > journal.epoch) {
        throw new TidemarkError('stale-epoch', `a frame of epoch ${view.epoch} came to a source of ${journal.epoch}`);
      }
      if (view.lastLsn >= next) {
        if (view.firstLsn > next)
          throw new TidemarkError('gap', `the far side sent record ${view.firstLsn}, not ${next}`);
        if (chain !== undefined && !sameChain(view.chainAt(next - 1), chain)) {
          throw new TidemarkError('divergence', `the far side's record ${next} does not continue the one before`);
        }
        view.verifyPayload();
        yield view;
        next = view.lastLsn + 1;
        chain = view.chainAfter;
        if (next > toLsn) return;
      }
      timer = host.clock.after(timeoutMs, () => abort.abort());
    }
  } finally {
    timer.cancel();
  }
}

async function chainBefore({ journal, checkpoints }: MendOptions, stretch: DamagedStretch): Promise<Chain | undefined> {
  if (stretch.fromLsn === 1) return CHAIN_START;
  try {
    return await chainAt(journal, checkpoints, stretch.fromLsn - 1, stretch.address);
  } catch (error) {
    // other damage lies between: the neighbours have to do
    if (!(error instanceof TidemarkError)) throw error;
    return undefined;
  }
}

/** A batch header that is still whole says how many records stood behind it, of what time and epoch. */
function checkHeader({ header, toLsn }: DamagedStretch, view: FrameView): void {
  if (header === undefined || header.count === 0) return;
  const lastLsn = header.firstLsn + header.count - 1;
  const from = Math.max(header.firstLsn, view.firstLsn);
  const to = Math.min(lastLsn, view.lastLsn);
  for (let lsn = from; lsn <= to; lsn++) {
    const same = view.record(lsn - view.firstLsn).time === header.time && view.epoch === header.epoch;
    if (!same || lastLsn > toLsn) {
      throw new TidemarkError('divergence', `record ${lsn} of the far side is not of the batch that stood here`);
    }
  }
}

function holds(view: FrameView, lsn: Lsn): boolean {
  return view.firstLsn <= lsn && view.lastLsn >= lsn;
}

function entryAt(view: FrameView, lsn: Lsn): Uint8Array {
  const record = view.record(lsn - view.firstLsn);
  return recordEntry(record, record.payloadBytes, record.payloadCrc);
}
