import type { DegreePolicy } from '../synchrony/degree-policy.ts';
import { type Finding, ok, warning } from './finding.ts';

/** What a broker of Kafka 4 does when a setting is not told. */
const DEFAULTS = {
  'broker.session.timeout.ms': 9_000,
  'replica.lag.time.max.ms': 30_000,
  'controller.quorum.fetch.timeout.ms': 2_000,
  'controller.quorum.election.timeout.ms': 1_000,
} as const;

/** As measured to ride through the death of any one broker in 3 to 4 s (three nodes). */
const TUNED: Readonly<Record<keyof typeof DEFAULTS, number>> = {
  'broker.session.timeout.ms': 3_000,
  'replica.lag.time.max.ms': 3_000,
  'controller.quorum.fetch.timeout.ms': 1_000,
  'controller.quorum.election.timeout.ms': 500,
};
/** A broker that dies is missed after its session; then a leader is elected, and clients find it. */
const FAILOVER_MS = 1_500;

/**
 * How long acks=all stands still when an in-sync broker dies or hangs, held against the time after which a group takes the
 * far side for away. Only when its answers wait for the topic. `settings` as the broker tells them.
 */
export function examineBrokerTiming(
  subject: string,
  settings: ReadonlyMap<string, string>,
  degree: DegreePolicy | undefined,
): Finding[] {
  if (degree === undefined || degree.ack === 'local') return [];
  const value = (name: keyof typeof DEFAULTS): number => Number(settings.get(name) ?? DEFAULTS[name]);
  const electionMs =
    value('controller.quorum.fetch.timeout.ms') + value('controller.quorum.election.timeout.ms') + FAILOVER_MS;
  const diesMs = value('broker.session.timeout.ms') + electionMs;
  const lagsMs = value('replica.lag.time.max.ms');
  const longestMs = Math.max(diesMs, lagsMs);
  const ride = `a broker that dies stops the stream for about ${diesMs / 1000} s, one that is slow for up to ${lagsMs / 1000} s`;
  if (longestMs < degree.stallAfterMs) return [ok(subject, `${ride}: less than stallAfter`)];
  const change = Object.entries(TUNED)
    .filter(([name, tuned]) => value(name as keyof typeof DEFAULTS) > tuned)
    .map(([name, tuned]) => `${name}=${tuned} (now ${value(name as keyof typeof DEFAULTS)})`);
  const advice = `on every broker: ${change.join(', ')}; or a longer stallAfter`;
  return [
    warning(subject, `${ride}; stallAfter is ${degree.stallAfterMs / 1000} s: ${degree.onStall} comes first`, advice),
  ];
}
