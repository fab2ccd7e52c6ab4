import type { DurablePosition } from '../store/position-mark.ts';
import type { ReceiverParts } from './receiver-parts.ts';
import { applyNote, type ControlNote } from './record-feed.ts';

/**
 * Makes everything appended up to `head` durable: segments first, then the mark, then the catalog learns the control
 * records (rule 1: nobody is told of a bookmark before it is durable). Takes what it used out of `notes`. Returns the
 * position that may be acknowledged.
 */
export async function commitGroup(
  parts: Pick<ReceiverParts, 'store' | 'mark' | 'catalog'>,
  head: DurablePosition,
  notes: ControlNote[],
): Promise<DurablePosition> {
  const { store, mark, catalog } = parts;
  // The mark of the group before becomes durable along with this one.
  await Promise.all([store.sync(), mark.sync()]);
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
  return durable;
}
