import type { PlantedBug } from './planted-bug.ts';
import {
  agingHistory,
  both,
  failingReplicaSyncs,
  inPieces,
  slowReplica,
  smallMemtable,
  striking,
  zeroing,
} from './striking.ts';

const RECEIVER = 'test/replica/receiver.test.ts';
const REPAIR = 'test/replica/repair.test.ts';
const DAMAGED_END = 'test/replica/damaged-end.test.ts';
const HISTORY = 'test/replica/history.test.ts';
const RESTORE = 'test/replica/restore.test.ts';

/** Bugs in what receives, keeps and shows history. */
export const REPLICA_BUGS: readonly PlantedBug[] = [
  {
    name: 'bookmarks do not survive a restart of the replica',
    rules: [1],
    invariant: 'B1',
    changes: [
      {
        file: 'replica/replica-recovery.ts',
        find: '    for (const note of notes) if (note.lsn > catalog.upToLsn) applyNote(catalog, note);',
        replace:
          '    for (const note of notes) if (note.kind !== 5 && note.lsn > catalog.upToLsn) applyNote(catalog, note);',
      },
    ],
    noticedBy: { simulation: striking('kill-replica') },
  },
  {
    name: 'the name of a new segment is not made durable',
    rules: [20],
    invariant: 'P5',
    changes: [
      {
        file: 'replica/store/segment-store.ts',
        find: '    this.#directoryDirty = true;',
        replace: '    this.#directoryDirty = false;',
      },
    ],
    noticedBy: { simulation: striking('power-replica') },
  },
  {
    name: 'what was appended is acknowledged, not what is durable',
    rules: [1, 20],
    invariant: 'P5',
    changes: [
      {
        file: 'replica/receive/receiver.ts',
        find: 'feedbackOf(this.#options, this.#durable, ',
        replace: 'feedbackOf(this.#options, this.#head, ',
      },
    ],
    noticedBy: { simulation: both(striking('power-replica', 'slow-disk'), slowReplica) },
  },
  {
    name: 'the replica believes its page cache after a failed sync',
    rules: [14],
    invariant: 'P5',
    changes: [
      {
        file: 'replica/store/segment-recovery.ts',
        find: '      if (frame.lastLsn > durableLsn) await writeFully(file, frame.bytes, at);\n',
        replace: '',
      },
    ],
    noticedBy: {
      simulation: both(striking('power-replica', 'kill-replica'), failingReplicaSyncs),
    },
  },
  {
    name: 'a segment is closed while its sync runs',
    rules: [14],
    invariant: 'D7',
    changes: [
      {
        file: 'replica/store/segment-store.ts',
        find: '      if (file !== this.#active?.file && !this.#dirty.has(file)) await file.close();',
        replace: '      if (file !== this.#active?.file) await file.close();',
      },
    ],
    noticedBy: {
      test: RECEIVER,
      title: 'a segment that is sealed while its sync runs stays open until its footer is synced too',
    },
  },
  {
    name: 'a hole is stepped over',
    rules: [17, 19],
    invariant: 'P3',
    changes: [
      {
        file: 'replica/store/declared-gap.ts',
        find: '  return gap !== undefined && gap.fromLsn <= heldLsn + 1;',
        replace: '  return gap === undefined || gap.fromLsn <= heldLsn + 1;',
      },
    ],
    noticedBy: { test: RECEIVER, title: 'a gap is never stepped over: it is named, and closed by what is sent again' },
  },
  {
    name: 'a frame that came before is appended again',
    rules: [17],
    invariant: 'P2',
    changes: [
      {
        file: 'replica/receive/receiver.ts',
        find: '    if (frame.lastLsn <= held) return this.#takeRepeated(frame, arrived);\n',
        replace: '',
      },
    ],
    noticedBy: { test: RECEIVER, title: 'frames repeated, straddling, out of order: the history is the source' },
  },
  {
    name: 'a repeat is dropped though it says something else',
    rules: [17],
    invariant: 'P2',
    changes: [
      {
        file: 'replica/receive/frame-checks.ts',
        find: '  return sameChain(layout.chainAt(frame.lastLsn), frame.chainAfter);',
        replace: '  return sameChain(layout.chainAt(frame.lastLsn), layout.chainAt(frame.lastLsn));',
      },
    ],
    noticedBy: { test: RECEIVER, title: 'divergence, nothing of it is taken' },
  },
  {
    name: 'a frame that straddles the head is counted from its own first LSN',
    rules: [17],
    invariant: 'P1',
    changes: [
      {
        file: 'replica/receive/receiver.ts',
        find: '    const firstLsn = Math.max(frame.firstLsn, this.#head.durableLsn + 1);',
        replace: '    const firstLsn = frame.firstLsn;',
      },
    ],
    noticedBy: { test: RECEIVER, title: 'frames repeated, straddling, out of order: the history is the source' },
  },
  {
    name: 'the stream is read on behind frames that are in memory only',
    rules: [19],
    invariant: 'P3',
    changes: [
      {
        file: 'replica/receive/receiver.ts',
        find: "this.#early.count > 0 || arrived.streamOffset === '' ?",
        replace: "arrived.streamOffset === '' ?",
      },
    ],
    noticedBy: {
      test: RECEIVER,
      title: 'a gap is never stepped over: it is named, and closed by what is sent again',
    },
  },
  {
    name: 'frames of a source that was replaced are taken',
    rules: [1, 19],
    invariant: 'F1',
    changes: [
      {
        file: 'replica/receive/frame-checks.ts',
        find: '  if (frame.incarnation.counter < seen.counter) {',
        replace: '  if (frame.incarnation.counter < 0) {',
      },
    ],
    noticedBy: { test: RECEIVER, title: 'frames of another group, a lower incarnation or a lower epoch are not taken' },
  },
  {
    name: 'frames of another group are taken',
    rules: [19],
    invariant: 'R1',
    changes: [
      {
        file: 'replica/receive/receiver.ts',
        find: '    if (frame.groupId !== this.#options.groupId) {',
        replace: "    if (frame.groupId === '') {",
      },
    ],
    noticedBy: { test: RECEIVER, title: 'frames of another group, a lower incarnation or a lower epoch are not taken' },
  },
  {
    name: 'the surplus over a source that was cut is not kept as a branch',
    rules: [4],
    invariant: 'F3',
    changes: [
      {
        file: 'replica/receive/receiver.ts',
        find: 'orphans: orphan === undefined ? state.orphans : [...state.orphans, orphan],',
        replace: 'orphans: orphan === undefined ? state.orphans : [...state.orphans],',
      },
    ],
    noticedBy: {
      test: RECEIVER,
      title: 'a source that lost its tail: the surplus is kept as a branch, both positions are named',
    },
  },
  {
    name: 'two frames are taken at the same time',
    rules: [27],
    invariant: 'P1',
    changes: [
      {
        file: 'replica/receive/receiver.ts',
        find: "    if (this.#pumping !== undefined || this.#full !== '' || this.#closing) return;",
        replace: "    if (this.#full !== '' || this.#closing) return;",
      },
    ],
    noticedBy: { simulation: striking('kill-replica') },
  },
  {
    name: 'a frame is stored with chunks nobody looked at',
    rules: [16, 26],
    invariant: 'R1',
    changes: [{ file: 'replica/receive/receiver.ts', find: '    frame.verifyChunks();\n', replace: '' }],
    noticedBy: { test: RECEIVER, title: 'any flipped bit of a frame is found before anything is stored' },
  },
  {
    name: 'a damaged chunk is read as it is',
    rules: [26],
    invariant: 'V1',
    changes: [
      {
        file: 'journal/frame-layout.ts',
        find: '    this.verifyChunk(index, stored, at);\n    const bytes',
        replace: '    const bytes',
      },
    ],
    noticedBy: {
      test: HISTORY,
      title: 'a damaged chunk in the middle of history is an error for who reads it, never wrong bytes',
    },
  },
  {
    name: 'damage of what was acknowledged is cut and not named',
    rules: [3, 26],
    invariant: 'R2',
    changes: [
      {
        file: 'replica/store/segment-recovery.ts',
        find: '  if (lastLsn >= durableLsn) {\n    file.truncate(end);',
        replace: '  if (lastLsn >= 0) {\n    file.truncate(end);',
      },
    ],
    noticedBy: {
      test: HISTORY,
      title: 'a torn tail is cut and sent again; damage below the mark is quarantined and named',
    },
  },
  {
    name: 'an acknowledged end of the newest segment is taken for a torn tail',
    rules: [3],
    invariant: 'R2',
    changes: [
      {
        file: 'replica/store/segment-recovery.ts',
        find: '  if (nextLsn > endLsn || ',
        replace: '  if (nextLsn <= endLsn || ',
      },
    ],
    noticedBy: {
      test: REPAIR,
      title: 'a damaged end of the newest segment that was acknowledged is named, held by its number, and put back',
    },
  },
  {
    name: 'frames go on behind damage that only the mark ended, in the same segment',
    rules: [17],
    invariant: 'R2',
    changes: [
      {
        file: 'replica/store/segment-store.ts',
        find: '    if (this.#active?.endedByMark === true) await this.#sealDamagedEnd(this.#active, frame.firstTime);\n',
        replace: '',
      },
    ],
    noticedBy: {
      test: DAMAGED_END,
      title: 'across the mark: every start finds it up to there, whatever comes behind it from',
    },
  },
  {
    name: 'a damaged frame reaches as far as its header says, into the segment behind it',
    rules: [17],
    invariant: 'R2',
    changes: [
      {
        file: 'replica/store/segment-recovery.ts',
        find: 'Math.min(durableLsn, followedBy - 1)',
        replace: 'durableLsn',
      },
    ],
    noticedBy: {
      test: DAMAGED_END,
      title: 'across the mark: rot in the footer or the directory behind it changes no border',
    },
  },
  {
    name: 'the replica acknowledges before its mark is durable',
    rules: [1, 3],
    invariant: 'R2',
    changes: [
      {
        file: 'replica/receive/group-commit.ts',
        find: '  await mark.sync();\n',
        replace: '',
      },
    ],
    noticedBy: {
      test: RECEIVER,
      title: 'nothing is acknowledged or told before the mark that says so is synced',
    },
  },
  {
    name: 'pieces take effect one by one at the replica',
    rules: [5],
    invariant: 'P1',
    changes: [
      {
        file: 'journal/piece-assembler.ts',
        find: '      ...effectOf(piece.record, kind),\n      lsn: record.lsn,',
        replace: '      ...effectOf(piece.record, kind),\n      lsn: piece.record.lsn,',
      },
    ],
    noticedBy: { simulation: both(striking('kill-replica'), inPieces) },
    quick: true,
  },
  {
    name: 'a trim is not in the index',
    rules: [10],
    invariant: 'P1',
    changes: [
      {
        file: 'replica/receive/record-feed.ts',
        find: '        if (effect.lsn <= sinkAboveLsn) continue;',
        replace: '        if (effect.lsn <= sinkAboveLsn || effect.kind === RecordKind.trim) continue;',
      },
    ],
    noticedBy: { simulation: both(striking('kill-replica'), zeroing) },
  },
  {
    name: 'a view shows what came after it',
    rules: [5],
    invariant: 'V1',
    changes: [
      {
        file: 'replica/index/memtable.ts',
        find: '      if (lsn > atLsn || this.#place[i] !== place || this.#cell[i] !== cell) continue;',
        replace: '      if (this.#place[i] !== place || this.#cell[i] !== cell) continue;',
      },
    ],
    noticedBy: { simulation: striking('kill-replica') },
  },
  {
    name: 'the second part of an extent over a cell border has the payload of the first',
    rules: [6],
    invariant: 'P1',
    changes: [
      {
        file: 'replica/index/memtable.ts',
        find: 'start, part, location, (at - sector) * 512);',
        replace: 'start, part, location, 0);',
      },
    ],
    noticedBy: { simulation: striking('kill-replica') },
  },
  {
    name: 'the place in the index is kept in 32 bits',
    rules: [6],
    invariant: 'P1',
    changes: [
      {
        file: 'replica/index/entry-format.ts',
        find: '  writeU64(view, offset + 8, entry.cell);',
        replace: '  writeU64(view, offset + 8, entry.cell % 0x1000_0000);',
      },
    ],
    noticedBy: {
      test: 'test/replica/index.test.ts',
      title: 'places 2 TiB, 32 TiB and 512 TiB apart are other places, in memory and in runs',
    },
  },
  {
    name: 'of two versions the one looked at first is taken for the newest',
    rules: [5],
    invariant: 'P1',
    changes: [
      {
        file: 'replica/index/lookup-window.ts',
        find: '      if (before >= lsn) continue;',
        replace: '      if (before > 0) continue;',
      },
    ],
    noticedBy: { simulation: striking('kill-replica') },
  },
  {
    name: 'a merge of runs keeps one version of each place',
    rules: [6],
    invariant: 'V1',
    changes: [
      {
        file: 'replica/index/merge.ts',
        find: '      if (least.lsn > floorLsn) {',
        replace: '      if (least.lsn > floorLsn && (least.cell + least.lsn) % 5 !== 0) {',
      },
    ],
    noticedBy: { simulation: both(striking('kill-replica'), smallMemtable) },
  },
  {
    name: 'a floor move begins before its intent is durable',
    rules: [26],
    invariant: 'V2',
    changes: [
      {
        file: 'replica/base/floor-mover.ts',
        find: '      await keeper.update(() => ({ floorIntentLsn: lsn }));\n',
        replace: '',
      },
    ],
    noticedBy: {
      test: 'test/replica/floor-intent.test.ts',
      title: 'killed at any turn of a floor move, no view is made of a base that is merged in part',
    },
  },
  {
    name: 'segments go before the base that holds their content is synced',
    rules: [26],
    invariant: 'V2',
    changes: [
      {
        file: 'replica/base/floor-mover.ts',
        find: '      await (await base(volume.id)).sync();\n',
        replace: '',
      },
    ],
    noticedBy: { simulation: both(striking('power-replica'), agingHistory) },
  },
  {
    name: 'the floor passes an open view',
    rules: [22],
    invariant: 'V2',
    changes: [
      {
        file: 'replica/base/retention-policy.ts',
        find: '  if (lease !== undefined) return',
        replace: '  if (lease !== undefined && lease.lsn < 0) return',
      },
    ],
    noticedBy: { test: HISTORY, title: 'retention says why each segment stays' },
  },
  {
    name: 'a newer frame is passed over',
    rules: [23],
    invariant: 'H5',
    changes: [
      {
        file: 'replica/receive/receiver.ts',
        find: "    if (error.code === 'upgrade-replica-first') {",
        replace: "    if (error.code === 'not-found') {",
      },
    ],
    noticedBy: {
      test: RECEIVER,
      title: 'a frame of a newer format stops the replica until it is upgraded, and is never skipped',
    },
  },
  {
    name: 'the reserve of a full replica is used up',
    rules: [24],
    invariant: 'V5',
    changes: [
      {
        file: 'replica/receive/receiver.ts',
        find: '    if (frame.bytes.length > space.freeBytes) {',
        replace: '    if (frame.bytes.length < 0) {',
      },
    ],
    noticedBy: { test: RECEIVER, title: 'a full disk: no acknowledgement, views go on, it recovers by itself' },
  },
  {
    name: 'nobody is told how full the replica is',
    rules: [24],
    invariant: 'V5',
    changes: [
      {
        file: 'replica/receive/space-watch.ts',
        find: '    if (level === this.level) return;',
        replace: '    if (level >= 0) return;',
      },
    ],
    noticedBy: { test: RECEIVER, title: 'passing 50, 80 and 95 per cent of the room is told, upwards and downwards' },
  },
  {
    name: 'a restore is not read back',
    rules: [25],
    invariant: 'V1',
    changes: [
      {
        file: 'replica/restore/restore-run.ts',
        find: '    if (hash === undefined || !sha256(bytes).equals(hash)) throw differs(chunk);',
        replace: '    if (hash === undefined) throw differs(chunk);',
      },
    ],
    noticedBy: { test: RESTORE, title: 'an interrupted or falsified restore is marked as unfinished' },
  },
  {
    name: 'an unfinished restore does not say so',
    rules: [25],
    invariant: 'H2',
    changes: [
      {
        file: 'replica/restore/restore-run.ts',
        find: '  await target.write(0, markOf(head));',
        replace: '  if (head < 0) await target.write(0, markOf(head));',
      },
    ],
    noticedBy: { test: RESTORE, title: 'an interrupted or falsified restore is marked as unfinished' },
  },
  {
    name: "a restore onto a file of the replica's own is allowed",
    rules: [25],
    invariant: 'H2',
    changes: [
      {
        file: 'replica/restore/restore-plan.ts',
        find: "  if (facts.ours !== '') refuse",
        replace: "  if (facts.ours === 'x') refuse",
      },
    ],
    noticedBy: { test: RESTORE, title: 'a plan refuses what rule 25 refuses, and says so' },
  },
  {
    name: 'a restore onto what is mounted or open elsewhere is allowed',
    rules: [25],
    invariant: 'H2',
    changes: [
      {
        file: 'replica/restore/restore-plan.ts',
        find: "  if (facts.mountedAt !== '') refuse",
        replace: "  if (facts.mountedAt === 'x') refuse",
      },
      {
        file: 'replica/restore/restore-plan.ts',
        find: "  if (facts.heldBy !== '') refuse",
        replace: "  if (facts.heldBy === 'x') refuse",
      },
    ],
    noticedBy: { test: RESTORE, title: 'a plan refuses what rule 25 refuses, and says so' },
  },
];
