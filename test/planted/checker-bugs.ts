import type { PlantedBug } from './planted-bug.ts';
import { answering, both, fewJournalFiles, overKafka, striking } from './striking.ts';

const RECOVERY = 'journal/recovery.ts';
const SETTLE = 'daemon/ship/settle.ts';

/** Bugs that the checkers in test/simulation/checkers are there for. */
export const CHECKER_BUGS: readonly PlantedBug[] = [
  {
    name: 'a batch is handed out whatever the crc over its records says',
    rules: [2],
    invariant: 'R1',
    changes: [
      {
        file: 'journal/batch-window.ts',
        find: "    if (!bodyIsWhole(this.#buffer, bodyStart, header)) return 'the body crc is wrong';\n",
        replace: '    void bodyIsWhole;\n',
      },
    ],
    noticedBy: { simulation: striking('kill-source') },
    quick: true,
  },
  {
    name: 'a start takes its own end for the end, whatever the far side holds',
    rules: [4],
    invariant: 'R4',
    changes: [
      {
        file: SETTLE,
        find: '    const more = whole && ahead !== undefined && highestLsn > journal.lastLsn;\n',
        replace: '    const more = whole && ahead === undefined && highestLsn > journal.lastLsn;\n',
      },
      {
        file: SETTLE,
        find: '      highestLsn: isLate ? journal.lastLsn : highestLsn,\n',
        replace: '      highestLsn: isLate ? highestLsn : journal.lastLsn,\n',
      },
    ],
    noticedBy: { simulation: striking('kill-source', 'power-source') },
    quick: true,
  },
  {
    name: 'a start numbers anew what the far side holds and does not give back',
    rules: [4],
    invariant: 'R4',
    changes: [
      {
        file: 'journal/journal.ts',
        find: '    if (settled.highestLsn > this.lastLsn) {\n',
        replace: '    if (settled.highestLsn < 0) {\n',
      },
    ],
    noticedBy: { simulation: striking('kill-source', 'power-source') },
  },
  {
    name: 'an idle journal proves its end with its next heartbeat only',
    rules: [3, 4],
    invariant: 'R4',
    changes: [
      {
        file: 'journal/journal-writer.ts',
        find: 'const WATERMARK_DELAY_MS = 50;',
        replace: 'const WATERMARK_DELAY_MS = 5_000;',
      },
    ],
    noticedBy: { simulation: striking('idle') },
  },
  {
    name: 'what is unproven is cleared before it is written again',
    rules: [14],
    invariant: 'R6',
    changes: [
      {
        file: 'journal/rewrite-tail.ts',
        find: '  const written = await file.write(bytes, 0, bytes.length, position);\n',
        replace:
          '  await file.write(new Uint8Array(bytes.length), 0, bytes.length, position);\n  const written = await file.write(bytes, 0, bytes.length, position);\n',
      },
    ],
    noticedBy: { simulation: striking('kill-source', 'power-source') },
  },
  {
    name: 'a start reads a file from where it is to its end for every batch',
    rules: [2],
    invariant: 'R7',
    changes: [
      {
        file: 'journal/batch-window.ts',
        find: '    if (address >= this.#start && address + length <= Math.min(this.#start + this.#valid, limit)) return true;\n',
        replace:
          '    if (address === this.#start && address + length <= Math.min(this.#start + this.#valid, limit)) return true;\n',
      },
    ],
    noticedBy: { simulation: striking('kill-source') },
    quick: true,
  },
  {
    name: 'the journal of a later version is read as if it were of this one',
    rules: [23],
    invariant: 'H5',
    changes: [
      {
        file: 'journal/journal-file-header.ts',
        find: '  if (version > JOURNAL_VERSION) {',
        replace: '  if (version < 0) {',
      },
    ],
    noticedBy: { simulation: striking('kill-source') },
  },
  {
    name: 'a start that refuses the journal of another group takes away the mark of its last stop',
    rules: [15],
    invariant: 'H5',
    changes: [
      {
        file: RECOVERY,
        find: '    if (header.groupId !== options.groupId) throw foreign(options.directory, header.groupId);\n',
        replace:
          '    if (header.groupId !== options.groupId) {\n      host.disk.unlink(`${options.directory}/journal.stop`);\n      throw foreign(options.directory, header.groupId);\n    }\n',
      },
    ],
    noticedBy: { simulation: striking('kill-source', 'stop-source') },
  },
  {
    name: 'nobody makes a feedback topic again that was deleted',
    rules: [20],
    invariant: 'P4',
    changes: [
      {
        file: 'daemon/stream/kafka/kafka-sink.ts',
        find: '      const gone = this.#lost ?? (feedback === undefined ? `topic ${feedbackTopic} was deleted` : undefined);\n',
        replace: '      const gone = this.#lost;\n      void feedback;\n',
      },
    ],
    noticedBy: { simulation: both(both(striking(), overKafka('delete')), answering) },
  },
  {
    name: 'a replica that found its topic again goes on calling it away',
    rules: [19],
    invariant: 'P4',
    changes: [
      {
        file: 'daemon/stream/kafka/kafka-source.ts',
        find: "        this.#setStatus({ state: 'streaming', reason: '' });\n",
        replace:
          "        if (this.#status.state === 'connecting') this.#setStatus({ state: 'streaming', reason: '' });\n",
      },
    ],
    noticedBy: { simulation: both(striking(), overKafka('down', 'delete')) },
    quick: true,
  },
  {
    name: 'a group whose guests wait for room in the journal says that it is well',
    rules: [13, 24],
    invariant: 'V5',
    changes: [
      {
        file: 'daemon/source/source-status.ts',
        find: '  if (group.heldForRoom) {',
        replace: '  if (group.heldForRoom && config.name === undefined) {',
      },
    ],
    noticedBy: { simulation: both(striking('partition', 'fill-source'), fewJournalFiles) },
  },
  {
    name: 'control records may not use what is kept for them',
    rules: [13],
    invariant: 'V5',
    changes: [
      {
        file: 'journal/journal-writer.ts',
        find: '    if (reserve || total <= rest - this.#reserve || this.#pool.canTake(false)) return this.#current;',
        replace: '    if (total <= rest - this.#reserve || this.#pool.canTake(false)) return this.#current;',
      },
      {
        file: 'journal/journal-writer.ts',
        find: '    if (!this.#pool.canTake(reserve)) throw this.#full();',
        replace: '    if (!this.#pool.canTake(false)) throw this.#full();',
      },
    ],
    noticedBy: { simulation: both(striking('partition'), fewJournalFiles) },
  },
];
