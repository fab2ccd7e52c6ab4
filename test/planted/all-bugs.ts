import { CHECKER_BUGS } from './checker-bugs.ts';
import { DEGREE_BUGS } from './degree-bugs.ts';
import { GIVE_UP_BUGS } from './give-up-bugs.ts';
import { JOURNAL_BUGS } from './journal-bugs.ts';
import { LATE_BUGS } from './late-bugs.ts';
import { LOST_BUGS } from './lost-bugs.ts';
import type { PlantedBug } from './planted-bug.ts';
import { REPAIR_BUGS } from './repair-bugs.ts';
import { REPLICA_BUGS } from './replica-bugs.ts';
import { SEAM_BUGS } from './seam-bugs.ts';
import { STANDBY_BUGS } from './standby-bugs.ts';
import { STREAM_BUGS } from './stream-bugs.ts';
import { VOLUME_BUGS } from './volume-bugs.ts';

export const ALL_BUGS: readonly PlantedBug[] = [
  ...SEAM_BUGS,
  ...JOURNAL_BUGS,
  ...VOLUME_BUGS,
  ...STREAM_BUGS,
  ...REPLICA_BUGS,
  ...REPAIR_BUGS,
  ...GIVE_UP_BUGS,
  ...DEGREE_BUGS,
  ...STANDBY_BUGS,
  ...LOST_BUGS,
  ...LATE_BUGS,
  ...CHECKER_BUGS,
];
