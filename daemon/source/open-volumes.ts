import { existsSync, renameSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { TidemarkError } from '../../journal/base/errors.ts';
import { openBacking } from '../backing/open-backing.ts';
import type { VolumeConfig } from '../config/config-types.ts';
import type { VolumeOptions } from '../volume/group-options.ts';

/**
 * Opens the disks behind a group's volumes; a raw file that does not exist is made when a size is configured, empty and
 * durable. All or none: those already open are closed when one cannot be.
 */
export async function openVolumes(configs: readonly VolumeConfig[]): Promise<VolumeOptions[]> {
  const opened: VolumeOptions[] = [];
  try {
    for (const config of configs) {
      if (config.backing.startsWith('/') && config.size !== null) await makeRawFile(config.backing, config.size);
      const backing = await openBacking(config.backing);
      opened.push({
        name: config.name,
        backing,
        ...(config.size === null ? {} : { size: config.size }),
        seed: config.start === 'seed',
      });
    }
  } catch (error) {
    for (const { backing } of opened) await backing.close();
    throw error;
  }
  return opened;
}

/** Nothing happens to a file that exists. It gets its name when it is whole: one cut short would be refused as resized. */
async function makeRawFile(path: string, size: number): Promise<void> {
  if (existsSync(path)) return;
  const unfinished = `${path}.tidemark-unfinished`;
  try {
    await rm(unfinished, { force: true });
    const file = await open(unfinished, 'wx', 0o640);
    try {
      await file.truncate(size);
      await file.sync();
    } finally {
      await file.close();
    }
    if (existsSync(path)) return;
    renameSync(unfinished, path);
    const directory = await open(dirname(path), 'r');
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TidemarkError('device-failed', `${path}: cannot be made: ${reason}`, { cause: error });
  }
}
