import { TidemarkError } from '../../journal/base/errors.ts';
import type { MenderOptions } from '../ship/journal-mender.ts';
import { anchorsOf } from '../volume/checkpoint.ts';
import type { ProtectedGroup } from '../volume/protected-group.ts';

/**
 * What a group that runs has to do with repairs of its journal: the write-out's places are kept, what is damaged is not
 * read any more, and after a repair that overlays point into, `end` is told why the group must open anew.
 */
export function mendingOf(
  group: Pick<ProtectedGroup, 'journal' | 'unreadable' | 'writtenOut'>,
  end: (error: TidemarkError) => void,
): Pick<MenderOptions, 'anchors' | 'onDamaged' | 'onMended'> {
  return {
    anchors: () => anchorsOf(group.writtenOut),
    onDamaged: ({ address, resumeAddress }) => group.unreadable.add(address, resumeAddress),
    onMended: ({ resumeAddress, fromLsn, toLsn }) => {
      if (resumeAddress <= group.journal.marks.address('checkpoint')) return;
      // overlays name where those records stood before
      const reason = `records ${fromLsn} to ${toLsn} were put back: the group opens anew`;
      end(new TidemarkError('journal-poisoned', reason));
    },
  };
}
