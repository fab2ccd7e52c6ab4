import type { Lsn } from '../../../journal/position.ts';
import type { FrameSink } from '../../../journal/stream.ts';

/** The source's end of a stream, with an eye on what is handed to it: the far side may hold it from then on. */
export function notingSent(sink: FrameSink, sent: (lastLsn: Lsn) => void): FrameSink {
  return {
    open: (identity, events) => sink.open(identity, events),
    get windowBytes() {
      return sink.windowBytes;
    },
    send: (frame) => {
      sent(frame.lastLsn);
      sink.send(frame);
    },
    settle: (timeoutMs) => sink.settle(timeoutMs),
    fetch: (fromLsn, signal, writtenBy) => sink.fetch(fromLsn, signal, writtenBy),
    trim: (lsn) => sink.trim(lsn),
    status: () => sink.status(),
    close: () => sink.close(),
  };
}
