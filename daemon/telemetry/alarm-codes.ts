/**
 * The closed list of alarms, each with its weight and what to do. An alarm is one thing everywhere: an entry in
 * `status`, the metric tidemark_alarm, a log line with this code, and a run of the alarm command.
 */
export const ALARM_CODES = {
  'group-failed': { severity: 'critical', action: 'the data path ended; read the log line, mend the cause, restart' },
  'group-stalled': { severity: 'critical', action: 'the data path gives no answer: look at the journal disk' },
  'group-held': { severity: 'critical', action: 'after a power loss: check the guest, then `tidemark release`' },
  'group-blocked': {
    severity: 'critical',
    action: 'the guest waits for journal space: bring the stream back or add budget',
  },
  degraded: {
    severity: 'critical',
    action: 'guests are answered without the far side: what they write now would be lost with this site; bring it back',
  },
  'far-side-stalled': {
    severity: 'critical',
    action: 'guests wait for the far side, or get errors, as onStall says: bring it back, or `tidemark degree`',
  },
  unprotected: { severity: 'critical', action: 'history has stopped: bring the stream back, then seed anew' },
  'journal-space': { severity: 'warning', action: 'the journal fills up: bring the stream or replica back' },
  'journal-damaged': {
    severity: 'critical',
    action: 'records cannot be read and are asked for again: bring back who has them',
  },
  'history-damaged': {
    severity: 'critical',
    action: 'history cannot be read in places; it is asked for again: if nobody has it, points that need it are lost',
  },
  'stream-away': { severity: 'warning', action: 'the stream cannot be reached: check network, broker, replica' },
  'stream-stopped': { severity: 'critical', action: 'the stream will not go on by itself: read the reason' },
  'frames-lost': {
    severity: 'warning',
    action:
      'the stream lost frames, the source is asked for them; if it has them no more it says needs-resync: seed anew',
  },
  'topic-space': {
    severity: 'warning',
    action: 'the topic nears the cap set on it and drops what replicas have not read: bring them back or raise it',
  },
  'replica-silent': { severity: 'warning', action: 'a replica has not been heard since the start: is it running?' },
  'replica-stalled': {
    severity: 'warning',
    action:
      'a replica takes nothing although there is something: what would be lost with this site grows; look at it and the way to it',
  },
  'replica-full': {
    severity: 'critical',
    action: 'the replica is at its reserve: give it space or shorten its window',
  },
  'standby-stalled': {
    severity: 'warning',
    action: 'the standby image does not follow, and keeps history from ageing out: read the reason, or set apply: off',
  },
  'replica-space': { severity: 'warning', action: 'the replica fills up' },
  'needs-resync': { severity: 'critical', action: 'replica and source do not continue each other: seed anew' },
  diverged: { severity: 'critical', action: 'one position has two contents: stop and compare before anything else' },
  'upgrade-required': { severity: 'critical', action: 'upgrade the replica first' },
  'backing-failed': { severity: 'critical', action: 'a backing disk errs; the journal keeps what it could not take' },
  'restore-failed': { severity: 'warning', action: 'a restore ended with an error: see `tidemark status`' },
} as const;

export type AlarmCode = keyof typeof ALARM_CODES;
