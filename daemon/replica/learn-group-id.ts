import { hasCode } from '../../journal/base/errors.ts';
import { FRAME_VERSION, readFrameHeader } from '../../journal/frame-codec.ts';
import type { FrameSource } from '../../journal/stream.ts';

async function* nothing(): AsyncGenerator<Uint8Array> {
  // a replica that holds nothing has nothing to give back
}

/**
 * The id of the group whose frames come first: at the very first contact a replica knows a group by its configured name
 * only. The stream is closed again before this resolves and nothing of what came is kept. Resolves with undefined when
 * the stream was closed meanwhile.
 */
export async function learnGroupId(
  source: FrameSource,
  replica: string,
  closed: AbortSignal,
): Promise<string | undefined> {
  const learnt = Promise.withResolvers<string | undefined>();
  closed.addEventListener('abort', () => learnt.resolve(undefined), { once: true });
  const start = {
    replica,
    groupId: '',
    durableLsn: 0,
    resumeOffset: '',
    frameVersion: FRAME_VERSION,
    framesFrom: nothing,
  };
  source.open(start, {
    onFrame: (bytes) => {
      try {
        learnt.resolve(readFrameHeader(bytes).groupId);
        source.pause();
      } catch (error) {
        // a damaged first frame says nothing; the next one may
        if (!hasCode(error, 'frame-damaged')) learnt.reject(error);
      }
    },
    onLost: () => undefined,
    onStatus: () => undefined,
  });
  try {
    return await learnt.promise;
  } finally {
    await source.close();
  }
}
