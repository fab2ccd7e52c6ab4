import { assert } from '../../journal/base/assert.ts';
import { channel } from '../../journal/base/channels.ts';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import { type DamagedStretch, entryTime, type StretchAnchor } from '../../journal/damaged-stretch.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Journal } from '../../journal/journal.ts';
import type { Epoch, JournalAddress, JournalTime, Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { encodeGap } from '../../journal/record-bodies.ts';
import type { FrameSink } from '../../journal/stream.ts';
import type { StretchWriter } from '../../journal/stretch-writer.ts';
import type { ChainCheckpoints } from './chain-checkpoints.ts';
import { dropGivenWord, type GivenStretch, type GivenWord } from './given-word.ts';
import { addRecords, type MendOptions, mendStretch, type Proven, proveRecords, readAgain } from './mend-stretch.ts';
import { saveShipState } from './ship-state.ts';

export interface GiveUpOptions {
  readonly journal: Journal;
  readonly directory: string;
  readonly groupId: string;
  readonly groupName: string;
  readonly sinks: readonly FrameSink[];
  readonly timeoutMs: number;
  readonly anchors: readonly StretchAnchor[];
  /** As they are stored now. */
  readonly loadCheckpoints: () => Promise<ChainCheckpoints>;
  readonly word: GivenWord;
  /** Whether every one of the sinks has said what it holds. */
  readonly allAnswered: boolean;
  /** The newest record that anybody is known to hold, by what he said now or last. */
  readonly heldLsn: Lsn;
  /** Everything below is synced in the backings. */
  readonly writtenOutTo: JournalAddress;
  /** Every volume is to be seeded anew; durable when it resolves. */
  readonly seedAllAnew: () => Promise<void>;
}

/** Records that are given up for good; LSNs included. */
export interface GivenUpStretch {
  readonly fromLsn: Lsn;
  readonly toLsn: Lsn;
  readonly reason: string;
}

export interface GiveUpOutcome {
  readonly given: readonly GivenUpStretch[];
  /** Stretches that somebody gave back after all. */
  readonly mended: number;
  /** Why the rest has to wait; absent: nothing is left of what the operator said. */
  readonly waiting?: string;
}

const givenUpChannel = channel('tidemark:journal:given-up');

/**
 * Carries out what an operator decided about records that nobody holds: between recovery and the first record of a run.
 * What can still be put back is; in place of the rest stand LOST records, so that LSNs stay contiguous for everybody.
 * Order: his word is durable, then the registry says that every volume is seeded anew, then chains behind the gap are
 * forgotten, then the gap is written, then the word is dropped. A kill in between leaves a word that the next start
 * carries out to its end.
 */
export async function giveUp(host: Host, options: GiveUpOptions): Promise<GiveUpOutcome> {
  const { journal, word, directory, groupId } = options;
  const given: GivenUpStretch[] = [];
  let mended = 0;
  for (const told of word.stretches) {
    let before: JournalAddress | undefined;
    for (let at = await damageIn(journal, told); at !== undefined; at = await damageIn(journal, told)) {
      assert(at !== before, `what was given up at ${at} reads well`);
      before = at;
      const done = await giveUpAt(host, options, told, at);
      if (typeof done === 'string') return { given, mended, waiting: done };
      if (done === undefined) mended++;
      else given.push(done);
    }
  }
  await dropGivenWord(host, { directory, groupId });
  return { given, mended };
}

/** Why it has to wait, or what was given up; undefined when it could be put back. */
async function giveUpAt(
  host: Host,
  options: GiveUpOptions,
  told: GivenStretch,
  address: JournalAddress,
): Promise<string | GivenUpStretch | undefined> {
  const { journal, groupName: group, groupId, directory, anchors, word, writtenOutTo } = options;
  const checkpoints = await options.loadCheckpoints();
  const relied = checkpoints.list.map(({ lsn, address: start }) => ({ lsn: lsn + 1, address: start }));
  const stretch = journal.damageAt(address, [...relied, ...anchors]);
  if (stretch === undefined) return `the journal cannot be read at ${address}`;
  const asking = { journal, groupId, sinks: options.sinks, checkpoints, timeoutMs: options.timeoutMs };
  const { fromLsn, toLsn } = stretch;
  try {
    await mendStretch(host, asking, stretch);
    return undefined;
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
  }
  const lost = `records ${fromLsn} to ${toLsn}`;
  if (fromLsn < told.fromLsn || toLsn > told.toLsn) return `${lost} are damaged now, which is more than was given up`;
  if (stretch.resumeAddress > writtenOutTo) return `${lost} are needed by the disks`;
  if (!options.allAnswered) return `${lost}: not everybody could be asked`;
  const held = await heldPart(host, asking, stretch);
  const from = Math.max(fromLsn, held.toLsn + 1);
  if (options.heldLsn >= from) {
    return `${lost}: somebody holds records up to ${options.heldLsn} and has not given back more than up to ${from - 1}`;
  }
  await options.seedAllAnew();
  const known = checkpoints.list.filter(({ lsn }) => lsn < from);
  if (known.length < checkpoints.list.length) await saveShipState(host.disk, directory, groupId, known);
  await writeGap(host, asking, stretch, held, { fromLsn: from, toLsn, reason: word.reason });
  givenUpChannel.publish({ group, fromLsn: from, toLsn, reason: word.reason });
  return { fromLsn: from, toLsn, reason: word.reason };
}

/** The address of the first damage in what was told; undefined when all of it reads well, or is in the journal no more. */
async function damageIn(journal: Journal, told: GivenStretch): Promise<JournalAddress | undefined> {
  if (told.address < journal.oldestAddress) return undefined;
  const reader = journal.reader(told.address);
  const limit = journal.marks.address('durable');
  try {
    for (let batch = reader.next(limit); batch !== undefined; batch = reader.next(limit)) {
      // the end of a file may have to be mended behind the last of them
      if (batch.firstLsn > told.toLsn) return undefined;
    }
    return undefined;
  } catch (error) {
    if (hasCode(error, 'trimmed')) return undefined;
    const at = hasCode(error, 'journal-damaged') ? error.details['address'] : undefined;
    if (typeof at !== 'number') throw error;
    const stretch = journal.damageAt(at);
    // records behind what was told are of another word, or of none, however little stands between
    const isBehind = stretch !== undefined && stretch.fromLsn > told.toLsn && stretch.toLsn >= stretch.fromLsn;
    return isBehind ? undefined : at;
  } finally {
    await reader.close();
  }
}

/** The first records of a stretch, as far as somebody gives them back. */
interface HeldPart {
  readonly toLsn: Lsn;
  readonly sink?: FrameSink;
  readonly proven?: Proven;
}

async function heldPart(host: Host, asking: MendOptions, stretch: DamagedStretch): Promise<HeldPart> {
  let best: HeldPart = { toLsn: stretch.fromLsn - 1 };
  for (const sink of asking.sinks) {
    try {
      await proveRecords(host, asking, sink, stretch);
    } catch (error) {
      const toLsn = hasCode(error, 'trimmed') ? error.details['heldLsn'] : undefined;
      if (typeof toLsn !== 'number' || toLsn <= best.toLsn) continue;
      const proven = await proveRecords(host, asking, sink, stretch, toLsn).catch((refused: unknown) => {
        if (!(refused instanceof TidemarkError)) throw refused;
        return undefined;
      });
      if (proven !== undefined) best = { toLsn, sink, proven };
    }
  }
  return best;
}

/** With the reason where there is room for it: records without a payload leave none. */
async function writeGap(
  host: Host,
  asking: MendOptions,
  stretch: DamagedStretch,
  held: HeldPart,
  gap: GivenUpStretch,
): Promise<void> {
  for (const body of [encodeGap(gap), new Uint8Array(0)]) {
    const writer = await asking.journal.mend(stretch);
    try {
      await fill(host, asking, writer, stretch, held, gap, body);
      await writer.finish();
      return;
    } catch (error) {
      if (body.length === 0 || !hasCode(error, 'journal-damaged')) throw error;
    } finally {
      await writer.close();
    }
  }
}

async function fill(
  host: Host,
  asking: MendOptions,
  writer: StretchWriter,
  stretch: DamagedStretch,
  { sink, proven, toLsn: heldLsn }: HeldPart,
  gap: GivenUpStretch,
  body: Uint8Array,
): Promise<void> {
  let { time, epoch } = whenLost(asking.journal, stretch);
  if (sink !== undefined && proven !== undefined) {
    const part = { ...stretch, toLsn: heldLsn };
    for await (const view of readAgain(host, asking, sink, part, proven)) {
      addRecords(writer, view, part);
      time = Math.max(time, view.lastTime);
      epoch = Math.max(epoch, view.epoch);
    }
  }
  for (let lsn = gap.fromLsn; lsn <= gap.toLsn; lsn++) {
    const payload = lsn === gap.fromLsn ? body : new Uint8Array(0);
    const nothing = { flags: 0, volume: 0, sector: 0, sectors: 0, requestId: 0 };
    writer.add({ lsn, kind: RecordKind.lost, ...nothing, time, payload, epoch });
  }
}

/** Of the batch that stood there, else of what stands before it, else behind it: neither may go back. */
function whenLost(
  journal: Journal,
  { header, fileHeader, time, after }: DamagedStretch,
): { time: JournalTime; epoch: Epoch } {
  const before = Math.max(time, header?.time ?? 0);
  return {
    time: before === 0 && after !== undefined ? entryTime(after) : before,
    epoch: Math.max(header?.epoch ?? 0, fileHeader?.epoch ?? 0) || journal.epoch,
  };
}
