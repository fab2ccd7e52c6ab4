import { BehaviorSubject, type Observable } from 'rxjs';
import type { AlarmReply } from '../control/control-api.ts';
import { ALARM_CODES, type AlarmCode } from './alarm-codes.ts';

/** Something that is wrong now, before the registry knows since when. */
export interface AlarmCondition {
  readonly code: AlarmCode;
  readonly group: string | null;
  /** What within the group; empty: the group. */
  readonly subject: string;
  readonly message: string;
}

export interface AlarmChange {
  readonly change: 'raised' | 'cleared';
  readonly alarm: AlarmReply;
}

/**
 * All alarms that stand. Conditions are state, not events: every round hands in all that are true now, and the registry
 * finds out what was raised and what was cleared. One alarm per code, group and subject; its words may change quietly.
 */
export class AlarmRegistry {
  readonly #standing = new BehaviorSubject<readonly AlarmReply[]>([]);
  readonly #onChange: (change: AlarmChange) => void;
  readonly #now: () => string;

  constructor(onChange: (change: AlarmChange) => void, now: () => string) {
    this.#onChange = onChange;
    this.#now = now;
  }

  get standing(): readonly AlarmReply[] {
    return this.#standing.value;
  }

  get changes(): Observable<readonly AlarmReply[]> {
    return this.#standing.asObservable();
  }

  /** What is true now, all of it; what is not in the list any more is cleared. */
  update(conditions: readonly AlarmCondition[]): void {
    const before = new Map(this.#standing.value.map((alarm) => [keyOf(alarm), alarm]));
    const after = new Map<string, AlarmReply>();
    for (const condition of conditions) {
      const known = before.get(keyOf(condition));
      const severity = ALARM_CODES[condition.code].severity;
      after.set(keyOf(condition), { ...condition, severity, since: known?.since ?? this.#now() });
    }
    this.#standing.next([...after.values()]);
    for (const [key, alarm] of after) if (!before.has(key)) this.#onChange({ change: 'raised', alarm });
    for (const [key, alarm] of before) if (!after.has(key)) this.#onChange({ change: 'cleared', alarm });
  }
}

function keyOf(alarm: { code: string; group: string | null; subject: string }): string {
  return JSON.stringify([alarm.code, alarm.group, alarm.subject]);
}
