import { spawn } from 'node:child_process';
import type { Log } from './log.ts';

/**
 * Tells systemd that the daemon is ready or stopping (Type=notify, NotifyAccess=all). Node has no unix datagram
 * sockets, so systemd's own helper says it; without NOTIFY_SOCKET nothing happens.
 */
export function sdNotify(message: 'ready' | 'stopping', log: Log): void {
  if (process.env['NOTIFY_SOCKET'] === undefined) return;
  // the assignment itself: systemd 252 (Debian 12) has no --stopping
  const assignment = message === 'ready' ? 'READY=1' : 'STOPPING=1';
  const child = spawn('systemd-notify', [`--pid=${process.pid}`, assignment], { stdio: 'ignore' });
  child.once('error', (error) => {
    log.warn({ code: 'sd-notify-failed', error }, 'systemd-notify cannot be started: systemd does not learn our state');
  });
  child.unref();
}
