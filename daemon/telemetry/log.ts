import pino, { type Logger } from 'pino';

/** Structured log: one JSON object per line on stderr, every line with a `code` that documents and alerts can name. */
export type Log = Logger;

/** TIDEMARK_LOG_LEVEL: trace, debug, info (default), warn, error, fatal, silent. */
export function createLog(role: 'source' | 'replica'): Log {
  const wanted = process.env['TIDEMARK_LOG_LEVEL'] ?? 'info';
  const known = wanted === 'silent' || Object.values(pino.levels.labels).includes(wanted);
  const log = pino(
    {
      level: known ? wanted : 'info',
      base: { role, pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: pino.stdSerializers.err },
    },
    pino.destination({ dest: 2, sync: true }),
  );
  if (!known) log.warn({ code: 'log-level-unknown', wanted }, 'TIDEMARK_LOG_LEVEL is not a level: using info');
  return log;
}
