/** ISO 8601 in UTC with microseconds, from microseconds since 1970: as the control API gives times. */
export function isoTime(micros: number): string {
  const whole = new Date(Math.floor(micros / 1000)).toISOString();
  return whole.replace('Z', `${String(Math.floor(micros % 1000)).padStart(3, '0')}Z`);
}

/** Now, by the wall clock. */
export function isoNow(): string {
  return isoTime(Date.now() * 1000);
}
