/** What a reader of the ledger is told of a method; its figures come from the saved results. */
export interface MethodText {
  readonly id: string;
  readonly title: string;
  readonly does: string;
  /** Promises, invariants and rules by their names in DURABILITY.md. */
  readonly covers: string;
  readonly cannotShow: string;
}

export const METHOD_TEXTS: readonly MethodText[] = [
  {
    id: 'simulator',
    title: 'Simulator',
    does:
      'The real source, stream and replica in one process on a simulated disk, network and clock. Every seed draws its own ' +
      'load, configuration and faults: kills and power losses of both sides (also during recovery), failing, short and lost ' +
      'writes, cut and partitioned networks, clock jumps. Every position of the replica is compared with a model.',
    covers:
      'Promises 1, 2, 3, 5, 6, 8; every invariant that the simulation names (D, R, P and V); most of the 27 rules.',
    cannotShow: 'What the models of disk, network and Kafka leave out. The methods on real parts are there for that.',
  },
  {
    id: 'planted',
    title: 'Planted bugs',
    does:
      'Known bugs are put into the product, one at a time, in a copy that is never shipped. Each must be noticed by the ' +
      'simulator within 1,000 seeds or by a named test; otherwise the checks are what is broken.',
    covers: 'That the checkers of the other methods see what they claim to see; each of the 27 rules that is built.',
    cannotShow: 'Bugs unlike the ones that were planted: mutation draws those at random.',
  },
  {
    id: 'mutation',
    title: 'Mutation',
    does:
      'Small random changes in journal, recovery, receiver, history and views; the unit tests and the simulator together must ' +
      'notice them. The goal is 80 per cent.',
    covers: 'That the lines behind promises 1 to 6 are held by a test.',
    cannotShow:
      'Code outside those folders. Some mutants change nothing that anybody could see; survivors are named by kind.',
  },
  {
    id: 'every-call',
    title: 'A kill or an error at every storage call',
    does:
      'A reference run of source and of replica; then, for every single write, sync, rename, unlink and truncate of it, a run ' +
      'that is killed there, or fails there with EIO or ENOSPC (strace), begins with the recovery of a killed run, and is ' +
      'started again and checked.',
    covers: 'Promises 1 and 3; D1, D4, D5, R5, R6, V2.',
    cannotShow: 'Two faults in one run, and io_uring: the simulator draws several faults at once.',
  },
  {
    id: 'guest-kills',
    title: 'Kills under a live guest',
    does:
      'A real Linux guest on QEMU writes numbered records to ext4 and prints each one that it was told is durable. Source and ' +
      'replica are killed with kill -9 at random moments. At the end the guest has seen no error, and a bookmark of the ' +
      'replica, mounted, holds every record that was printed, with a clean file system.',
    covers: 'Promises 1, 3 and 8 as a guest sees them; D1, D6, P1.',
    cannotShow: 'A power loss of the host.',
  },
  {
    id: 'file-systems',
    title: 'Failing syncs and full disks on real file systems',
    does:
      'ext4, xfs and btrfs on disks that fail a sync, fill up, have no inodes left, or turn read-only under a source and a ' +
      'replica. After a failed sync the medium itself is looked at, not the page cache.',
    covers: 'Promises 1 and 2; D4, D5, V5; rules 14 and 24.',
    cannotShow: 'Other file systems, and disks that lie about a flush.',
  },
  {
    id: 'power-loss',
    title: 'Power losses of real file systems',
    does:
      'Everything a real file system sends to its disk is recorded. The power fails after each flush, with a random subset of ' +
      'the sectors that were written since; each such disk is mounted, both roles recover, and what had been told must hold.',
    covers: 'Promises 2 and 3; D2, D3, R2, R3, R6.',
    cannotShow: 'A real power cut of real disks and controllers.',
  },
  {
    id: 'kafka',
    title: 'Faults of real Kafka brokers',
    does:
      'Source and replica as a user runs them, under a steady load, over one broker or three (replication factor 3, of which 2 ' +
      'in sync). Brokers are killed, frozen, rolled, left without a quorum and filled to the last byte; topics are deleted, ' +
      'emptied and expired; the way to the brokers is delayed, cut, reset, frozen and flips bits. All the time the ' +
      'replica is mounted at its newest durable position (and at older ones), and every sector compared with what was written ' +
      'up to exactly there; at the end nothing that was acknowledged is missing, and no write of the guest failed.',
    covers: 'Promises 3, 5, 8 and 9; P1, P2, P3, P4, P5; rules 19 to 22.',
    cannotShow: 'Losses of a whole host: what a broker acknowledged lies in page caches. Brokers far away.',
  },
  {
    id: 'fuzzing',
    title: 'Fuzzing',
    does:
      'Inputs grown by coverage against every parser: NBD handshake and transmission, journal, segments, index, frames, ' +
      'feedback, states, config and API. A finding is a crash, a hang of more than 10 s, an allocation beyond what was ' +
      'negotiated, or an answer that is no named refusal.',
    covers: 'R1, R7, H1, H2, H5.',
    cannotShow: 'Inputs no mutation reaches within the time given.',
  },
  {
    id: 'properties',
    title: 'Properties',
    does: 'Random values through every codec and planner: the round trip, every truncation, every flipped bit.',
    covers: 'R1, D8; rules 6, 7 and 17.',
    cannotShow: 'Meaning: a codec may carry a wrong decision faithfully.',
  },
  {
    id: 'golden',
    title: 'Golden files',
    does: 'Journals, frames and replica directories as earlier versions wrote them are read byte for byte.',
    covers: 'H5; rule 23.',
    cannotShow: 'Downgrades: an older program refuses a newer format.',
  },
  {
    id: 'tests',
    title: 'All tests',
    does: '`make test`: unit tests, contracts, other programs as judges (qemu, libnbd, fio, the kernel), and a share of the methods above.',
    covers: 'Every promise, rule and invariant that DURABILITY.md names a test for.',
    cannotShow: 'What nobody thought of; that is what the methods above are for.',
  },
];
