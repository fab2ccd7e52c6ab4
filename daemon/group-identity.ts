import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { TidemarkError } from '../journal/base/errors.ts';

/**
 * A group's id: 32 hex digits, made once at the source and kept for ever; a replica pins the one it meets first. One
 * small file per group in the state directory, replaced as a whole and durable before anybody is told.
 */

/** Nothing when the group has no id yet. Throws journal-damaged when the file holds something else. */
export async function readGroupId(stateDir: string, group: string): Promise<string | undefined> {
  let text: string;
  try {
    text = await readFile(fileOf(stateDir, group), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw failed(stateDir, error);
  }
  if (/^[0-9a-f]{32}\n$/.test(text)) return text.trimEnd();
  throw new TidemarkError('journal-damaged', `${fileOf(stateDir, group)} does not hold a group id`);
}

/** Durable when it resolves. */
export async function pinGroupId(stateDir: string, group: string, groupId: string): Promise<void> {
  try {
    await mkdir(stateDir, { recursive: true, mode: 0o750 });
    const target = fileOf(stateDir, group);
    const file = await open(`${target}.new`, 'w', 0o640);
    try {
      await file.writeFile(`${groupId}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${target}.new`, target);
    const directory = await open(stateDir, 'r');
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  } catch (error) {
    throw failed(stateDir, error);
  }
}

/** The group's id at its source: the pinned one, or a new one that is durable when this resolves. */
export async function sourceGroupId(stateDir: string, group: string): Promise<string> {
  const known = await readGroupId(stateDir, group);
  if (known !== undefined) return known;
  const made = randomBytes(16).toString('hex');
  await pinGroupId(stateDir, group, made);
  return made;
}

function fileOf(stateDir: string, group: string): string {
  return join(stateDir, `group-${group}.id`);
}

function failed(stateDir: string, error: unknown): TidemarkError {
  const reason = error instanceof Error ? error.message : String(error);
  return new TidemarkError('device-failed', `${stateDir}: ${reason}`, { cause: error });
}
