import type { Invariant } from './violation.ts';

/** Every promise a run is checked against, in words, and where in this folder the check stands. */
export const PROMISES: Readonly<Record<Invariant, { readonly text: string; readonly file: string }>> = {
  D1: { text: 'after a kill every acknowledged write is read back', file: 'source-model.ts' },
  D2: {
    text: 'after a power loss every flushed write survives, the rest as a prefix of the order',
    file: 'source-model.ts',
  },
  D3: { text: 'a flush is answered when all it covers is on the medium, with its name', file: 'log-promises.ts' },
  D4: { text: 'after a failed sync of the journal nobody is answered well', file: 'source-model.ts' },
  D5: { text: 'a start has written anew what a failed sync left in the page cache only', file: 'source-node.ts' },
  D6: { text: 'a read never returns bytes older than the newest acknowledged write', file: 'source-model.ts' },
  D7: { text: 'no file is used after its close was asked for', file: '../doubles/simulated-file.ts' },
  D8: { text: 'the journal holds what was asked for, in that order, exact to the byte', file: 'volume-client.ts' },
  P1: {
    text: 'the replica, and every view, is an exact prefix of the order across all volumes',
    file: 'replica-node.ts',
  },
  P2: { text: 'what the true source sends again is never taken for other records', file: 'replica-node.ts' },
  P3: { text: 'no gap is stepped over, and what is durable at the source arrives when faults stop', file: 'world.ts' },
  P4: {
    text: 'every kind of fault that struck the topics is healed at the end, or named in status',
    file: 'world.ts',
  },
  P5: { text: 'what the replica called durable it still holds after any crash', file: 'replica-node.ts' },
  P6: {
    text: 'who is answered in sync is durable at the replica; who is not, is named; a replica that claims RPO 0 has it',
    file: 'far-promises.ts',
  },
  P7: { text: 'the source never says that a replica holds more than it does', file: 'replica-node.ts' },
  V1: { text: 'a view that stays open reads the same, whatever arrives meanwhile', file: 'replica-node.ts' },
  V2: {
    text: 'an open view, a restore and a replica that lags keep the history they need',
    file: 'replica-life.ts',
  },
  V3: { text: 'scratch writes are seen by their view alone, and by all of it', file: 'replica-life.ts' },
  V4: { text: 'journal time never goes back, however clocks jump', file: 'journal-follower.ts' },
  V5: {
    text: 'no guest waits for room in the journal without an alarm, and the reserve takes control records',
    file: 'checkers/room-told.ts',
  },
  H5: {
    text: 'a journal of a newer format or another group is refused, and not a byte of it touched',
    file: 'checkers/refused-journal.ts',
  },
  B8: { text: 'a disk given back is whole at its stamp; one changed outside is refused', file: 'source-life.ts' },
  R1: {
    text: 'a journal hands out records that were appended to it, to the byte, and no others',
    file: 'checkers/appended-records.ts',
  },
  R2: { text: 'what was on the medium when a flush was answered is never cut by a start', file: 'log-promises.ts' },
  R3: { text: 'the log is read without a hole: what was cut never stands behind it again', file: 'log-promises.ts' },
  R4: {
    text: 'what the far side may hold is never numbered anew: a start compares, and an idle journal proves its end',
    file: 'checkers/idle-proof.ts',
  },
  R5: { text: 'a start has a name of its own, and an LSN of it one content', file: 'log-promises.ts' },
  R6: {
    text: 'a start may be repeated, or killed at any call and repeated, and finds the same',
    file: 'checkers/recovery-again.ts',
  },
  R7: { text: 'what a start reads is bounded by what the journal holds', file: 'checkers/start-work.ts' },
  R8: { text: 'history that rotted is put back while the source still has it', file: 'world.ts' },
  R13: { text: 'what was given up is announced, and in the durable change map', file: 'source-life.ts' },
  B1: { text: 'a bookmark that was told survives whatever comes, at its position', file: 'end-check.ts' },
  G1: {
    text: 'LOST stands for the records that rotted, that nobody holds and that an operator gave up, and for no others',
    file: 'lost-records.ts',
  },
  G2: { text: 'before what nobody holds the source stands still, and names it', file: 'give-up-story.ts' },
  G3: {
    text: 'points from a gap on, up to the end of the last new seed, are refused by name',
    file: 'give-up-story.ts',
  },
  G4: { text: 'a new seed is what the guests wrote, and its end makes a point', file: 'journal-follower.ts' },
  G5: { text: 'a word that is refused, or that has to wait, leaves everything as it was', file: 'give-up-story.ts' },
  G6: { text: 'a word is carried out to its end, however often the start is killed', file: 'give-up-story.ts' },
  B2: {
    text: 'a standby image is the disks at one position, or stamped as a mixture; what was told to be in it stays',
    file: 'checkers/standby-check.ts',
  },
  L1: { text: 'the program goes on by itself when faults stop, and every request is answered', file: 'world.ts' },
  X1: { text: 'nothing throws where nobody catches', file: 'world.ts' },
};
