import { RealDisk } from '../journal/host/real-disk.ts';
import { createLog, type Log } from './telemetry/log.ts';
import { version } from './version.ts';

/** The exit code of a process that met a bug: sysexits' EX_SOFTWARE. */
const EXIT_BUG = 70;

/**
 * What every role begins and ends with: one daemon per state directory (a kernel lock that dies with the process), and
 * a bug that nobody caught ends the process with a log line, never silently.
 */
export async function runDaemon(
  role: 'source' | 'replica',
  stateDir: string,
  run: (log: Log) => Promise<number>,
): Promise<number> {
  const log = createLog(role);
  process.on('uncaughtException', (error) => {
    log.fatal({ code: 'bug', error }, `a bug ends the process: ${error.message}`);
    process.exit(EXIT_BUG);
  });
  const disk = new RealDisk();
  disk.makeDirectory(stateDir);
  const lock = disk.lockDirectory(stateDir);
  try {
    log.info({ code: 'starting', version: version(), node: process.version, stateDir }, `tidemark ${role} starts`);
    return await run(log);
  } finally {
    lock.release();
  }
}
