import type { DurablePosition } from '../store/position-mark.ts';
import type { ReceiverParts } from './receiver-parts.ts';
import { applyNote, type ControlNote } from './record-feed.ts';

/**
 * Makes everything appended up to `head` durable: segments first, then the catalog learns the control records (rule 1:
 * nobody is told of a bookmark before it is durable), then the mark. Takes what it used out of `notes`. Returns the
 * position that may be acknowledged: the mark is durable first, so that what was acknowledged is never taken for a torn
 * tail when it is damaged.
 */
export async function commitGroup(
  parts: Pick<ReceiverParts, 'store' | 'mark' | 'catalog'>,
  head: DurablePosition,
  notes: ControlNote[],
): Promise<DurablePosition> {
  const { store, mark, catalog } = parts;
  await store.sync();
  let count = 0;
  for (const note of notes) {
    if (note.lsn > head.durableLsn) break;
    if (note.lsn > catalog.upToLsn) applyNote(catalog, note);
    count += 1;
  }
  notes.splice(0, count);
  catalog.advance(head.durableLsn);
  const durable = { ...head, heartbeatMs: catalog.heartbeat?.monotonicMs ?? head.heartbeatMs };
  await mark.write(durable);
  await mark.sync();
  return durable;
}
