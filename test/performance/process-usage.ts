import fs from 'node:fs';

/** Clock ticks per second of /proc/PID/stat: 100 on every Linux this runs on. */
const TICKS_PER_SECOND = 100;

/** CPU seconds a process has used so far, all its threads, user and system. */
export function cpuSeconds(pid: number): number {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The second field, the name, may hold spaces and parentheses: count from its end.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Resident memory of a process, MiB. */
export function residentMib(pid: number): number {
  const match = fs.readFileSync(`/proc/${pid}/status`, 'utf8').match(/^VmRSS:\s+(\d+) kB/m);
  return match === null ? 0 : Number(match[1]) / 1024;
}

/** Resolves when nothing has used more than a tenth of a core for a second, or after `limitMs`. */
export async function waitForQuiet(limitMs: number): Promise<void> {
  const busy = (): number => {
    const fields = (fs.readFileSync('/proc/stat', 'utf8').split('\n')[0] as string).split(/\s+/).slice(1).map(Number);
    const idle = (fields[3] ?? 0) + (fields[4] ?? 0);
    return fields.reduce((sum, ticks) => sum + ticks, 0) - idle;
  };
  const end = performance.now() + limitMs;
  while (performance.now() < end) {
    const before = busy();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    if (busy() - before <= TICKS_PER_SECOND / 10) return;
  }
}
