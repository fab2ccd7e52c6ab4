import { dirname } from 'node:path';
import { TidemarkError } from '../journal/base/errors.ts';
import { CHAIN_START, chainString } from '../journal/chain.ts';
import type { FrameLayout } from '../journal/frame-layout.ts';
import type { Host } from '../journal/host/host.ts';
import type { Lsn } from '../journal/position.ts';
import { CatalogBuilder, EMPTY_CATALOG } from './catalog/catalog.ts';
import { clipCatalog } from './catalog/clip-catalog.ts';
import { layoutOrMissing, type OnMissing, rebuildFromSegments } from './index/rebuild.ts';
import { VersionIndex } from './index/version-index.ts';
import { applyNote, type ControlNote, controlNotes, RecordFeed } from './receive/record-feed.ts';
import { DamageBook } from './repair/damage-book.ts';
import { replicaChannel } from './replica-channels.ts';
import type { ReplicaGroupOptions } from './replica-options.ts';
import { DAMAGE, FrameReader } from './store/frame-reader.ts';
import { lostStretches } from './store/lost-stretch.ts';
import { type DurablePosition, PositionMark } from './store/position-mark.ts';
import { RepairedFrames } from './store/repaired-frames.ts';
import { type Damage, type ReplicaState, readReplicaState, StateKeeper } from './store/replica-state.ts';
import type { FrameRef } from './store/segment-info.ts';
import { SegmentStore } from './store/segment-store.ts';

export interface RecoveredGroup {
  readonly store: SegmentStore;
  readonly index: VersionIndex;
  readonly mark: PositionMark;
  readonly keeper: StateKeeper;
  readonly catalog: CatalogBuilder;
  readonly frames: FrameReader;
  readonly feed: RecordFeed;
  readonly book: DamageBook;
  readonly repaired: RepairedFrames;
  /** Where receiving goes on. */
  readonly position: DurablePosition;
}

const damageChannel = replicaChannel('tidemark:replica:damage');
const GONE = 'these were durable, and their files are gone';
const NO_INCARNATION = { counter: 0, nonce: '0'.repeat(16) };

/**
 * Opens and recovers everything that lies in a group's directory: position mark, state, segments, index, catalog.
 */
export async function recoverGroup(host: Host, options: ReplicaGroupOptions): Promise<RecoveredGroup> {
  const { directory, groupId } = options;
  // Names first: what is synced in a directory whose own name a power loss takes away is gone with it.
  for (const name of ['segments', 'index', 'base', 'scratch']) host.disk.makeDirectory(`${directory}/${name}`);
  await host.disk.syncDirectory(directory);
  await host.disk.syncDirectory(dirname(directory));
  const mark = await PositionMark.open(host, directory, groupId);
  const proven = mark.initial?.durableLsn ?? 0;
  const state = withoutUpgradeHalt((await readReplicaState(host, directory, groupId)) ?? freshState(groupId));
  const keeper = new StateKeeper(host, directory, state);
  const store = await SegmentStore.open(host, {
    directory: `${directory}/segments`,
    groupId,
    segmentBytes: options.segmentBytes,
    durableLsn: proven,
  });
  const found = [...store.damage, ...missingTail(store, `${directory}/segments`, proven, state.floorLsn)];
  if (found.length > 0) {
    await keeper.update((before) => ({ damage: [...before.damage, ...found] }));
    for (const damage of found) damageChannel.publish({ group: groupId, ...damage });
  }
  const book = new DamageBook(groupId, keeper, store.lastLsn);
  const repaired = new RepairedFrames(host, `${directory}/segments`);
  const newest = store.segments.at(-1);
  await repaired.cutAt(newest?.sequence ?? 0, newest?.bytes ?? 0);
  const frames = new FrameReader(store, repaired, {
    chunkBytesMax: options.chunkCacheBytesMax,
    layoutBytesMax: options.layoutCacheBytesMax,
  });
  const place = { where: `${directory}/segments`, reason: GONE };
  // A segment below the floor is kept only for a request that was open at the floor.
  const missing: FrameRef[] = [];
  const heldLsn = Math.min(state.floorLsn, state.oldestNeededLsn - 1);
  const gone = await lostStretches(store, frames, heldLsn, async (frame, { message }) => {
    missing.push(frame);
    // as if the index lacked it: when it was put back the group has to be opened anew, to see the gap
    await book.note(frame, true, message);
  });
  await book.lose(
    gone.map((stretch) => ({ ...stretch, ...place })),
    state.catalog.upToLsn,
  );
  const { unindexedFrom, uncataloguedFrom } = book;
  const headLsn = Math.max(store.lastLsn, state.floorLsn);
  const catalog = new CatalogBuilder(
    clipCatalog(state.catalog, Math.min(headLsn, (uncataloguedFrom ?? headLsn + 1) - 1)),
  );
  const told = catalog.upToLsn;
  // Durable before a run of the index is: after a kill nothing else tells that the run lacks these records.
  const onMissing: OnMissing = async (frame, { message }) => {
    missing.push(frame);
    // the catalog knows what it was told before the frame was damaged
    await book.note(frame, true, message, frame.lastLsn > told);
  };
  let tell = onMissing;
  for (const frame of store.holes) {
    if (await repaired.covers(frame)) continue;
    await onMissing(frame, new TidemarkError('frame-damaged', 'no whole frame stands here'));
  }
  const index = await VersionIndex.open(
    host,
    {
      directory: `${directory}/index`,
      groupId,
      floorLsn: state.floorLsn,
      headLsn,
      cacheBytesMax: options.indexCacheBytesMax,
      memtableEntries: options.memtableEntries,
      unindexedFrom,
    },
    rebuildFromSegments(store, frames, options.memtableEntries, (frame, error) => tell(frame, error)),
  );
  for (const gap of index.gaps()) await index.fill(gap);
  const feed = await feedTail(store, frames, index, catalog, state.floorLsn, onMissing);
  await book.indexed(missing, () => catalog.snapshot());
  const position = await positionOf(store, frames, mark.initial, catalog, headLsn);
  await mark.write(position);
  // The position is told from here on: what was above the old mark is damage from now on when it rots, and no torn tail.
  await mark.sync();
  // from now on an index run that is built again tells the book itself
  tell = (frame, { message }) => book.note(frame, true, message);
  return { store, index, mark, keeper, catalog, frames, feed, position, book, repaired };
}

/** Files that are not there cannot be found damaged: the mark alone knows of what they held. */
function missingTail(store: SegmentStore, where: string, proven: Lsn, floorLsn: Lsn): Damage[] {
  const held = Math.max(store.lastLsn, floorLsn);
  if (held >= proven || store.damage.some(({ toLsn }) => toLsn >= proven)) return [];
  return [{ fromLsn: held + 1, toLsn: proven, where, reason: GONE }];
}

/** This program may be the upgraded one (rule 23); where it is not, the same frame comes first and says so again. */
function withoutUpgradeHalt(state: ReplicaState): ReplicaState {
  return state.halt?.state === 'upgrade-required' ? { ...state, halt: undefined } : state;
}

function freshState(groupId: string): ReplicaState {
  return {
    groupId,
    floorLsn: 0,
    floorIntentLsn: 0,
    oldestNeededLsn: 1,
    halt: undefined,
    orphans: [],
    damage: [],
    catalog: EMPTY_CATALOG,
  };
}

/** Reads again what neither index runs nor the saved catalog cover. */
async function feedTail(
  store: SegmentStore,
  frames: FrameReader,
  index: VersionIndex,
  catalog: CatalogBuilder,
  floorLsn: Lsn,
  onMissing: OnMissing,
): Promise<RecordFeed> {
  const from = Math.max(Math.min(index.feedFromLsn, catalog.upToLsn + 1), store.oldestLsn, 1);
  const feed = new RecordFeed(from - 1);
  // the base holds what is below the floor
  let heldLsn = Math.min(from - 1, Math.max(catalog.upToLsn, floorLsn));
  for await (const frame of store.frames(from, store.lastLsn)) {
    const afterLsn = heldLsn;
    heldLsn = frame.lastLsn;
    const layout = await layoutOrMissing(frames, frame, onMissing);
    if (layout !== undefined) feed.feed(layout, frame.firstLsn, frame, index, index.durableLsn);
    if (frame.lastLsn > index.durableLsn) index.advance(frame.lastLsn);
    if (index.memtableFull) await index.rotate(feed.openFromLsn);
    if (frame.lastLsn <= catalog.upToLsn) continue;
    const notes = layout === undefined ? [] : await notesOf(frames, layout, frame, afterLsn, onMissing);
    for (const note of notes) if (note.lsn > catalog.upToLsn) applyNote(catalog, note);
    catalog.advance(frame.lastLsn);
  }
  await index.settled();
  return feed;
}

/** The control records of a frame; none, and told, when their bodies are damaged. */
async function notesOf(
  frames: FrameReader,
  layout: FrameLayout,
  frame: FrameRef,
  heldLsn: Lsn,
  onMissing: OnMissing,
): Promise<ControlNote[]> {
  try {
    return await controlNotes(layout, frame.firstLsn, heldLsn, async (i) => {
      const record = layout.record(i);
      const body = new Uint8Array(record.payloadBytes);
      await frames.read(frame.segment, frame.offset, record.payloadOffset, body);
      return body;
    });
  } catch (error) {
    if (!(error instanceof TidemarkError) || !DAMAGE.includes(error.code)) throw error;
    await onMissing(frame, error);
    return [];
  }
}

/** Where receiving goes on. What the segments say wins over the mark, which may be one group behind. */
async function positionOf(
  store: SegmentStore,
  frames: FrameReader,
  mark: DurablePosition | undefined,
  catalog: CatalogBuilder,
  headLsn: Lsn,
): Promise<DurablePosition> {
  const heartbeatMs = catalog.heartbeat?.monotonicMs ?? 0;
  const resumeOffset = mark !== undefined && mark.durableLsn <= headLsn ? mark.resumeOffset : '';
  if (store.lastLsn === headLsn && headLsn >= store.oldestLsn && headLsn > 0) {
    const ref = await store.find(headLsn);
    const known = await layoutOrMissing(frames, ref, () => Promise.resolve());
    if (known === undefined && mark?.durableLsn === headLsn) return { ...mark, heartbeatMs };
    const { header } = known ?? (await frames.layout(ref));
    const seen = mark?.incarnation ?? NO_INCARNATION;
    return {
      durableLsn: headLsn,
      chain: chainString(header.chainAfter),
      epoch: Math.max(header.epoch, mark?.epoch ?? 0),
      incarnation: header.incarnation.counter >= seen.counter ? header.incarnation : seen,
      resumeOffset,
      heartbeatMs,
    };
  }
  if (mark !== undefined && mark.durableLsn === headLsn) return { ...mark, heartbeatMs };
  if (headLsn > 0) {
    throw new TidemarkError(
      'journal-damaged',
      `nothing tells the chain at LSN ${headLsn}: segments and position are gone`,
    );
  }
  return {
    durableLsn: 0,
    chain: chainString(CHAIN_START),
    epoch: mark?.epoch ?? 0,
    incarnation: mark?.incarnation ?? NO_INCARNATION,
    resumeOffset,
    heartbeatMs,
  };
}

/** What could not be written down is found again by the next reader. */
export function ignoreOperatingError(error: unknown): void {
  if (!(error instanceof TidemarkError)) throw error;
}
