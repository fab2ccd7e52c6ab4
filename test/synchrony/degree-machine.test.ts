import test from 'ava';
import fc from 'fast-check';
import {
  changed,
  type DegreeSight,
  type DegreeStanding,
  type DegreeState,
  look,
  standingAt,
} from '../../daemon/synchrony/degree-machine.ts';
import { type DegreePolicy, LOCAL_POLICY } from '../../daemon/synchrony/degree-policy.ts';

const STALL_MS = 10_000;
const RESUME_MS = 5_000;
const POLICY: DegreePolicy = { ...LOCAL_POLICY, ack: 'replica', stallAfterMs: STALL_MS };

const SIGHT: DegreeSight = {
  nowMs: 0,
  positionLsn: 0,
  durableLsn: 0,
  earlierLsn: 0,
  answeredLsn: 0,
  lost: false,
  leasedUntilMs: Number.NEGATIVE_INFINITY,
};

interface Step {
  readonly sight: DegreeSight;
  readonly before: DegreeStanding;
  readonly after: DegreeStanding;
  readonly to: DegreeState | undefined;
}

/** Follows a far side through time; every change comes about at once. */
function follow(policy: DegreePolicy, start: DegreeStanding, sights: readonly DegreeSight[]): Step[] {
  let standing = start;
  return sights.map((sight) => {
    const before = standing;
    const seen = look(standing, policy, sight);
    standing = seen.change === undefined ? seen.standing : changed(seen.standing, seen.change, sight.nowMs);
    return { sight, before, after: standing, to: seen.change?.to };
  });
}

/** Looks at random distances at a source that goes on, and a far side that follows, stands, or falls back. */
const journeys: fc.Arbitrary<DegreeSight[]> = fc
  .array(
    fc.record({
      passMs: fc.oneof(fc.nat(400), fc.nat(12_000)),
      records: fc.nat(5),
      follows: fc.oneof({ weight: 6, arbitrary: fc.double({ min: 0, max: 1, noNaN: true }) }, fc.constant(0)),
      fallsBack: fc.oneof({ weight: 20, arbitrary: fc.constant(0) }, fc.nat(9)),
      leases: fc.boolean(),
      answers: fc.boolean(),
    }),
    { minLength: 1, maxLength: 120 },
  )
  .map((steps) => {
    let sight: DegreeSight = { ...SIGHT, nowMs: 1_000 };
    return steps.map(({ passMs, records, follows, fallsBack, leases, answers }) => {
      const nowMs = sight.nowMs + passMs;
      const durableLsn = sight.durableLsn + records;
      const reached = sight.positionLsn + Math.round((durableLsn - sight.positionLsn) * follows);
      const positionLsn = Math.max(0, reached - fallsBack);
      sight = {
        nowMs,
        durableLsn,
        positionLsn,
        earlierLsn: sight.durableLsn,
        answeredLsn: answers ? Math.max(sight.answeredLsn, positionLsn) : sight.answeredLsn,
        lost: false,
        leasedUntilMs: leases ? nowMs + STALL_MS : sight.leasedUntilMs,
      };
      return sight;
    });
  });
const starts = fc.constantFrom<DegreeState>('in-sync', 'degraded');
const standing = (state: DegreeState): DegreeStanding =>
  standingAt(state, state === 'degraded' ? 1 : 0, 1_000, RESUME_MS);

test('a group degrades only when nothing has moved for the time of a stall, or what was answered is lost, and never before every lease is over', (t) => {
  fc.assert(
    fc.property(journeys, starts, (sights, start) => {
      const steps = follow(POLICY, standing(start), sights);
      for (const [index, { sight, before, to }] of steps.entries()) {
        if (to !== 'degraded') continue;
        if (sight.nowMs < sight.leasedUntilMs) return false;
        const lost = sight.positionLsn < sight.answeredLsn;
        const since = steps.slice(0, index + 1).findLast(({ sight: one, before: was }) => {
          return one.positionLsn > was.positionLsn || one.positionLsn >= one.durableLsn;
        });
        const movedMs = Math.max(since?.sight.nowMs ?? 1_000, before.resumedMs ?? 1_000);
        if (!lost && sight.nowMs - movedMs < STALL_MS) return false;
      }
      return true;
    }),
    { numRuns: 2_000 },
  );
  t.pass();
});

test('a stall is not overlooked: with every lease over, the first look after its time changes the state, as the policy says', (t) => {
  const wanted = { degrade: 'degraded', block: 'blocked', fail: 'failing' } as const;
  fc.assert(
    fc.property(journeys, fc.constantFrom('degrade', 'block', 'fail'), (sights, onStall) => {
      const steps = follow({ ...POLICY, onStall }, standing('in-sync'), sights);
      return steps.every(({ sight, before, after }) => {
        if (before.state !== 'in-sync')
          return after.state === before.state || after.state === 'in-sync' || onStall !== 'degrade';
        const moves = sight.positionLsn > before.positionLsn || sight.positionLsn >= sight.durableLsn;
        const stalls = !moves && sight.nowMs - before.movedMs >= STALL_MS;
        const lost = sight.positionLsn < sight.answeredLsn;
        const free = onStall !== 'degrade' || sight.nowMs >= sight.leasedUntilMs;
        return after.state === ((stalls || lost) && free ? wanted[onStall] : 'in-sync');
      });
    }),
    { numRuns: 2_000 },
  );
  t.pass();
});

test('a far side is relied on again only after it has kept up all the time of the hysteresis, and then the promise holds from there', (t) => {
  fc.assert(
    fc.property(journeys, (sights) => {
      const steps = follow(POLICY, standing('degraded'), sights);
      for (const [index, { sight, before, after, to }] of steps.entries()) {
        if (to === undefined) continue;
        if (to === 'degraded') {
          if (after.brokenFromLsn !== sight.positionLsn + 1) return false;
          continue;
        }
        if (to !== 'in-sync' || after.brokenFromLsn !== 0) return false;
        const behind = steps.slice(0, index + 1).findLastIndex(({ sight: one }) => one.positionLsn < one.earlierLsn);
        const levelSince = steps[behind + 1]?.sight.nowMs ?? Number.POSITIVE_INFINITY;
        if (sight.nowMs - levelSince < before.resumeMs) return false;
      }
      return true;
    }),
    { numRuns: 2_000 },
  );
  t.pass();
});

test('blocked and failing groups never answer without the far side, until the policy says otherwise', (t) => {
  fc.assert(
    fc.property(journeys, fc.constantFrom('block', 'fail'), (sights, onStall) =>
      follow({ ...POLICY, onStall }, standing('in-sync'), sights).every(({ after }) => after.state !== 'degraded'),
    ),
    { numRuns: 1_000 },
  );
  const stalled = { ...SIGHT, nowMs: 50_000, durableLsn: 9, positionLsn: 4, earlierLsn: 9 };
  const blocked = follow({ ...POLICY, onStall: 'block' }, { ...standing('in-sync'), positionLsn: 4 }, [stalled])[0]!
    .after;
  t.is(blocked.state, 'blocked');
  t.is(blocked.brokenFromLsn, 0, 'nothing was answered without it');
  const later = { ...stalled, nowMs: 50_100 };
  t.is(follow(POLICY, blocked, [later])[0]!.to, 'degraded', 'an operator lets the guest go');
  t.is(
    follow(POLICY, blocked, [{ ...later, leasedUntilMs: 50_200 }])[0]!.to,
    undefined,
    'not before the lease is over',
  );
  const moving = [51_000, 51_500, 52_100].map((nowMs) => ({ ...stalled, nowMs, positionLsn: 9 }));
  t.deepEqual(
    follow({ ...POLICY, onStall: 'block' }, blocked, moving).map(({ to }) => to),
    [undefined, undefined, 'in-sync'],
  );
});

test('a far side that fails again soon after is relied on later each time; one that held for long is not punished', (t) => {
  let now = 0;
  let at = standingAt('in-sync', 0, now, RESUME_MS);
  const stall = (): void => {
    now += STALL_MS;
    at = follow(POLICY, at, [{ ...SIGHT, nowMs: now, positionLsn: 1, durableLsn: 9, earlierLsn: 9 }]).at(-1)!.after;
    now += STALL_MS;
    at = follow(POLICY, at, [{ ...SIGHT, nowMs: now, positionLsn: 1, durableLsn: 9, earlierLsn: 9 }]).at(-1)!.after;
    t.is(at.state, 'degraded');
  };
  const recover = (): number => {
    const began = now;
    while (at.state !== 'in-sync') {
      now += 500;
      at = follow(POLICY, at, [{ ...SIGHT, nowMs: now, positionLsn: 9, durableLsn: 9, earlierLsn: 9 }]).at(-1)!.after;
    }
    return now - began - 500;
  };
  stall();
  t.is(recover(), RESUME_MS);
  stall();
  t.is(recover(), 2 * RESUME_MS);
  stall();
  t.is(recover(), 4 * RESUME_MS);
  for (let count = 0; count < 9; count++) {
    stall();
    t.true(recover() <= 300_000);
  }
  now += 3_600_000;
  at = follow(POLICY, at, [{ ...SIGHT, nowMs: now, positionLsn: 9, durableLsn: 9, earlierLsn: 9 }]).at(-1)!.after;
  stall();
  t.is(recover(), RESUME_MS);
});

test('a replica that lost what was answered breaks the promise at once, from there on', (t) => {
  const lost = { ...SIGHT, nowMs: 1_500, positionLsn: 4, durableLsn: 9, earlierLsn: 9, answeredLsn: 8 };
  const [step] = follow(POLICY, standing('in-sync'), [lost]);
  t.is(step!.to, 'degraded');
  t.is(step!.after.brokenFromLsn, 5);
  t.is(follow(POLICY, standing('in-sync'), [{ ...lost, leasedUntilMs: 2_000 }])[0]!.to, undefined);
  const [blocked] = follow({ ...POLICY, onStall: 'block' }, standing('in-sync'), [
    { ...lost, answeredLsn: 0, lost: true },
  ]);
  t.is(blocked!.to, 'blocked');
  t.is(blocked!.after.brokenFromLsn, 5, 'it says what is not there');
});

test('what was lost before a start is over when the far side has kept up, as the promise itself', (t) => {
  const begun = standingAt('in-sync', 5, 0, RESUME_MS);
  const level = (nowMs: number) => ({ ...SIGHT, nowMs, positionLsn: 9, durableLsn: 9, earlierLsn: 9, answeredLsn: 9 });
  const [first, second, third] = follow(POLICY, begun, [level(0), level(RESUME_MS - 1), level(RESUME_MS)]);
  t.is(first!.to, undefined);
  t.is(second!.to, undefined);
  t.is(third!.to, 'in-sync');
  t.is(third!.after.brokenFromLsn, 0);
  const lost = { ...level(RESUME_MS), positionLsn: 4 };
  t.is(follow(POLICY, begun, [lost])[0]!.to, 'degraded');
});

test('who lost what was answered after it had stood still is named, once, as who lost it at once', (t) => {
  const stood = { ...SIGHT, nowMs: 50_000, positionLsn: 8, durableLsn: 12, earlierLsn: 12, answeredLsn: 8 };
  const comeBack = { ...stood, positionLsn: 4, lost: true };
  const onItsWay = { ...comeBack, positionLsn: 6 };
  for (const [onStall, state] of [
    ['block', 'blocked'],
    ['fail', 'failing'],
  ] as const) {
    const begun = { ...standing('in-sync'), positionLsn: 8 };
    const steps = follow({ ...POLICY, onStall }, begun, [stood, comeBack, onItsWay]);
    t.deepEqual(
      steps.map(({ to, after }) => [to, after.brokenFromLsn]),
      [
        [state, 0],
        [state, 5],
        [undefined, 5],
      ],
    );
  }
});
