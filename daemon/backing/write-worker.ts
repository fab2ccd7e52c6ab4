import * as fs from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { PLACE_FIELDS, type WriteRun, type WriteRunEnd } from './write-run.ts';

/** The thread behind `write-run.ts`: knows nothing but what it is told to write, keeps nothing. */

/** Neighbours shorter than this leave together in one call; a longer write gains nothing by it. */
const GATHERED_BYTES_MAX = 64 * 1024;
const GATHERED_PIECES_MAX = 64;

const port = parentPort;

port?.on('message', (run: WriteRun) => {
  const end: WriteRunEnd = { id: run.id, errno: write(run) };
  port.postMessage(end);
});

/** '' when all is written, else the errno of the first write that failed: the rest was not begun. */
function write({ fd, memory, places }: WriteRun): string {
  try {
    for (let first = 0; first < places.length; ) {
      const pieces: Uint8Array[] = [];
      const offset = places[first]!;
      let bytes = 0;
      let next = first;
      do {
        const length = places[next + 2]!;
        pieces.push(new Uint8Array(memory, places[next + 1], length));
        bytes += length;
        next += PLACE_FIELDS;
      } while (
        places[next] === offset + bytes &&
        bytes + places[next + 2]! <= GATHERED_BYTES_MAX &&
        pieces.length < GATHERED_PIECES_MAX
      );
      writeAll(fd, offset, pieces, bytes);
      first = next;
    }
    return '';
  } catch (error) {
    return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : String(error);
  }
}

function writeAll(fd: number, offset: number, pieces: Uint8Array[], bytes: number): void {
  const [only] = pieces;
  let written =
    pieces.length === 1 && only !== undefined
      ? fs.writeSync(fd, only, 0, bytes, offset)
      : fs.writevSync(fd, pieces, offset);
  if (written === bytes) return;
  const whole = Buffer.concat(pieces);
  while (written < bytes) {
    const more = fs.writeSync(fd, whole, written, bytes - written, offset + written);
    // a short write is how ext4 announces a full disk; the next one says ENOSPC
    if (more === 0) throw Object.assign(new Error('no more bytes are taken'), { code: 'ENOSPC' });
    written += more;
  }
}
