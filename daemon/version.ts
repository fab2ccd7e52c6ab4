import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Of package.json, which lies beside cli/ in a checkout and one folder higher when built. */
export function version(): string {
  for (const up of ['..', '../..']) {
    const file = join(import.meta.dirname, up, 'package.json');
    if (existsSync(file)) return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
  }
  return 'unknown';
}
