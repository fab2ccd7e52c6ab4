import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { NO_KAFKA_FAULTS } from '../doubles/simulated-kafka.ts';
import { CALM_LIFE } from '../simulation/life-options.ts';
import type { NemesisAction, RunOptions } from '../simulation/run-options.ts';
import { DIRECT, type KafkaAction } from '../simulation/stream-options.ts';

export type OptionBias = (options: RunOptions) => RunOptions;

/** These things go wrong in the run and nothing else does: what is noticed is the bug. */
export function striking(...nemesis: readonly NemesisAction[]): OptionBias {
  return (options) => ({
    ...options,
    habits: { ...options.habits, flushes: 0.1, fua: 0.1 },
    nemesis,
    nemesisMicros: 400_000,
    activeMicros: 5_000_000,
    journalFileBytes: 128 * 1024,
    segmentBytes: 64 * 1024,
    sourceDisk: NO_DISK_FAULTS,
    replicaDisk: NO_DISK_FAULTS,
    stream: DIRECT,
    life: CALM_LIFE,
  });
}

/** One bias behind the other. */
export function both(first: OptionBias, second: OptionBias): OptionBias {
  return (options) => second(first(options));
}

/** Guests that send requests in pieces, and leave in the middle of them. */
export const inPieces: OptionBias = (options) => ({
  ...options,
  habits: { ...options.habits, longRequests: 0.4, abandons: 0.1, sectorsMax: 8 },
});

/** Guests that zero and trim. */
export const zeroing: OptionBias = (options) => ({
  ...options,
  habits: { ...options.habits, zeroes: 0.2, trims: 0.2 },
});

/** An index whose memory is full all the time, so that it is written out and merged. */
export const smallMemtable: OptionBias = (options) => ({ ...options, memtableEntries: 64 });

/** A disk of the source whose syncs fail now and then. */
export const failingSyncs: OptionBias = (options) => ({
  ...options,
  sourceDisk: { ...options.sourceDisk, syncFails: 0.05 },
});

/** A disk of the source that takes part of a write now and then. */
export const shortWrites: OptionBias = (options) => ({
  ...options,
  sourceDisk: { ...options.sourceDisk, writeShort: 0.02 },
});

/** Backings whose syncs fail now and then: they are files of the source's disk, as the journal's are. */
export const failingBackings: OptionBias = (options) => ({
  ...options,
  sourceDisk: { ...options.sourceDisk, syncFails: 0.02 },
});

/** A journal that has to use its files again soon, and guests that fill it. */
export const fewJournalFiles: OptionBias = (options) => ({
  ...options,
  journalFiles: 6,
  actMicros: 2000,
  habits: { ...options.habits, sectorsMax: 32 },
});

/** A disk of the replica whose syncs fail now and then. */
export const failingReplicaSyncs: OptionBias = (options) => ({
  ...options,
  replicaDisk: { ...options.replicaDisk, syncFails: 0.05 },
});

/** A disk of the replica that takes its time, so that much is appended and not synced yet. */
export const slowReplica: OptionBias = (options) => ({
  ...options,
  replicaDisk: { ...options.replicaDisk, latencyMicrosMax: 20_000 },
});

/** A replica that keeps little history: its floor moves up all the time. */
export const agingHistory: OptionBias = (options) => ({
  ...options,
  actMicros: 4000,
  habits: { ...options.habits, sectorsMax: 32 },
  life: { ...options.life, historyBytes: 128 * 1024 },
});

/** Flushes all the time, syncs that take their time, and a crash before the next one. */
export const flushing: OptionBias = (options) => ({
  ...options,
  habits: { ...options.habits, flushes: 0.2, fua: 0.3 },
  actMicros: 2000,
  nemesisMicros: 100_000,
  sourceDisk: { ...options.sourceDisk, latencyMicrosMax: 20_000 },
});

/** A topic between source and replica that loses requests and answers, and to which this is done. */
export function overKafka(...actions: readonly KafkaAction[]): OptionBias {
  return (options) => ({
    ...options,
    stream: {
      kind: 'kafka',
      faults: { latencyMicrosMax: 5000, lostRequests: 0.1, lostAnswers: 0.1, lateSends: 0 },
      actions,
      actionMicros: 1_000_000,
      windowBytes: 256 * 1024,
      readBytes: 64 * 1024,
    },
  });
}

/** Brokers whose every answer arrives: nothing makes a client begin anew but what is done to its topics. */
export const answering: OptionBias = (options) => ({
  ...options,
  stream: options.stream.kind === 'kafka' ? { ...options.stream, faults: NO_KAFKA_FAULTS } : options.stream,
});
