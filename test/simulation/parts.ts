import { ComingShipper } from '../../daemon/ship/coming-shipper.ts';
import { type Settled, settleFarSide } from '../../daemon/ship/settle.ts';
import { Shipper } from '../../daemon/ship/shipper.ts';
import { mendingOf } from '../../daemon/source/mending.ts';
import type { ProtectedGroup } from '../../daemon/volume/protected-group.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Marks } from '../../journal/marks.ts';
import type { FrameSink, FrameSource } from '../../journal/stream.ts';
import { LateSealing } from '../doubles/late-sealing.ts';
import type { SimulatedProcess } from '../doubles/simulated-process.ts';
import { GROUP_ID, GROUP_NAME, JOURNAL_DIRECTORY } from './names.ts';
import { wordFor } from './operator.ts';
import type { Streams } from './streams.ts';

/** Places between the real parts where a planted bug can get in; left alone, the product runs as it is. */
export interface Seams {
  sourceHost(host: Host): Host;
  /** As the group sees them. */
  groupMarks(marks: Marks): Marks;
  /** As the shipper sees them. */
  shipMarks(marks: Marks): Marks;
  sink(sink: FrameSink): FrameSink;
  replicaHost(host: Host): Host;
  frames(source: FrameSource): FrameSource;
}

export const NO_SEAMS: Seams = {
  sourceHost: (host) => host,
  groupMarks: (marks) => marks,
  shipMarks: (marks) => marks,
  sink: (sink) => sink,
  replicaHost: (host) => host,
  frames: (source) => source,
};

const SETTLE_TIMEOUT_MS = 3000;

/** What runs beside the group in one start of the source: its end of the stream and the shipper. */
export class SourceParts {
  readonly host: Host;
  readonly groupMarks: Marks;
  readonly coming: ComingShipper = new ComingShipper();
  readonly #makeSinks: () => FrameSink[];
  readonly #streams: Streams;
  readonly #shipMarks: Marks;
  readonly #mayGiveUp: boolean;
  /** What the far side said at the start. */
  settled: Settled | undefined;
  /** Why the group has to open anew; '': it has not. */
  ended = '';

  constructor(host: Host, process: SimulatedProcess, marks: Marks, streams: Streams, seams: Seams, mayGiveUp: boolean) {
    this.#mayGiveUp = mayGiveUp;
    this.host = seams.sourceHost(host);
    this.groupMarks = seams.groupMarks(marks);
    this.#streams = streams;
    this.#makeSinks = () => streams.sinks(this.host, process).map((sink) => seams.sink(sink));
    this.#shipMarks = seams.shipMarks(marks);
  }

  get shipper(): Shipper | undefined {
    return this.coming.shipper;
  }

  /** For `GroupOptions.settle`. */
  async settle(
    journal: ProtectedGroup['journal'],
    seedAllAnew: () => Promise<void>,
  ): Promise<{ readonly highestLsn: number } | undefined> {
    const replicas = this.#streams.replicas.map(({ name }) => name);
    const settled = await settleFarSide(this.host, {
      journal,
      directory: JOURNAL_DIRECTORY,
      groupId: GROUP_ID,
      groupName: GROUP_NAME,
      sinks: this.#makeSinks(),
      timeoutMs: SETTLE_TIMEOUT_MS,
      ...(this.#mayGiveUp ? wordFor(this.host, seedAllAnew, replicas) : {}),
    });
    this.settled = settled;
    return settled.answered === 0 ? undefined : settled;
  }

  async ship(group: ProtectedGroup): Promise<void> {
    const { journal } = group;
    const { incarnation } = journal;
    if (incarnation === undefined) return;
    const shipper = await Shipper.open(this.host, {
      directory: JOURNAL_DIRECTORY,
      journal,
      marks: this.#shipMarks,
      identity: {
        groupId: GROUP_ID,
        groupName: GROUP_NAME,
        epoch: journal.epoch,
        incarnation,
        frameVersion: FRAME_VERSION,
      },
      sinks: this.#makeSinks(),
      requiredSinks: this.#streams.requiredSinks,
      givenUp: group.status().givenUp,
      replicas: this.#streams.replicas,
      onFar: () => group.degree.moved(),
      isAwaited: () => group.degree.gate.mode !== 'open',
      ...(this.#mayGiveUp ? { mending: mendingOf(group, (error) => this.#end(error)) } : {}),
      // every other run of a source seals on another thread
      sealing: (_, local) => (incarnation.counter % 2 === 0 ? new LateSealing(local, this.host.clock) : local),
    });
    this.coming.opened(shipper);
    group.degree.attach(shipper.far);
    const { address } = group.status().destage;
    if (this.#mayGiveUp && address !== undefined) shipper.mendAt(address);
  }

  #end(error: Error): void {
    this.ended ||= error.message;
  }

  async close(): Promise<void> {
    await this.shipper?.close();
  }
}
