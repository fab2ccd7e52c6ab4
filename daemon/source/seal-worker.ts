import { parentPort } from 'node:worker_threads';
import { realHost } from '../../journal/host/real-host.ts';
import { JournalReader } from '../../journal/journal-reader.ts';
import { FrameMaker, type SealPart } from '../ship/frame-maker.ts';
import { toWireError } from '../worker/rpc.ts';
import { FrameSlots } from './frame-slots.ts';
import type { SealedPart, SealLane, SealOrder } from './seal-thread.ts';

/** The thread behind `seal-thread.ts`: a frame maker for each lane, and nothing else. */

const port = parentPort;
const host = realHost();
const makers = new Map<number, Maker>();

/** A frame maker, and the slot its newest frame stands in. */
class Maker {
  readonly frames: FrameMaker;
  #slot: number | undefined;

  constructor({ directory, fileBytes, identity, sealer, slots: memory }: SealLane) {
    const slots = memory === undefined ? undefined : new FrameSlots(memory);
    const memoryFor = (bytes: number): Uint8Array | undefined => {
      this.#slot = slots?.take(bytes);
      return this.#slot === undefined ? undefined : slots?.bytes(this.#slot, bytes);
    };
    const { groupId } = identity;
    const open = (from: number): JournalReader => JournalReader.open(host, { directory, groupId }, from);
    this.frames = new FrameMaker(open, fileBytes, identity, sealer, memoryFor);
  }

  tell(lane: number, number: number, { error, frame, ...part }: SealPart): void {
    const wire = error === undefined ? part : { ...part, error: toWireError(error) };
    const slot = this.#slot;
    this.#slot = undefined;
    if (frame === undefined) {
      send({ lane, number, part: wire });
    } else if (slot === undefined) {
      // the frame's memory goes along: nobody copies it
      send({ lane, number, part: { ...wire, frame } }, [frame.bytes.buffer as ArrayBuffer]);
    } else {
      const { bytes, ...rest } = frame;
      send({ lane, number, part: { ...wire, frame: { ...rest, slot, length: bytes.length } } });
    }
  }
}

function send(part: SealedPart, along: ArrayBuffer[] = []): void {
  port?.postMessage(part, along);
}

port?.on('message', ({ lane, number, open, job }: SealOrder) => {
  if (open !== undefined) makers.set(lane, new Maker(open));
  const maker = makers.get(lane);
  if (maker === undefined) return;
  for (const part of maker.frames.run(job)) maker.tell(lane, number, part);
});
