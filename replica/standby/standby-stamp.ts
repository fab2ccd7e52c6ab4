import { crc32c } from '@node-rs/crc32';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { Disk } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import { readWhole, replaceFile } from '../store/file-io.ts';

/*
 * What stands in the files of a standby image: one line of JSON that a person can read without this program, and a line
 * with its crc32c in eight hex digits.
 */

/**
 * `copying`, `settling`: a mixture, not to be booted. `applying`: the disks as they were at one position at or behind `lsn`,
 * as long as the machine has not lost its power since `bootId`. `settled`: exactly the disks at `lsn`.
 */
export const STANDBY_STATES = ['copying', 'settling', 'applying', 'settled'] as const;
export type StandbyState = (typeof STANDBY_STATES)[number];

export interface StandbyVolume {
  readonly id: number;
  readonly name: string;
  /** Beside the stamp. */
  readonly file: string;
  readonly sizeBytes: number;
  /** Why its content is no point, however whole it is; empty: it is one. */
  readonly unsettled: string;
}

export interface StandbyStamp {
  readonly format: 1;
  readonly groupId: string;
  readonly state: StandbyState;
  /** Everything at or below is in the files and synced. */
  readonly lsn: Lsn;
  /** Where reading goes on: a request that was open at `lsn` began there. */
  readonly readFromLsn: Lsn;
  /** The files are no mixture any more when all up to here was written; 0 outside `settling`. */
  readonly settleToLsn: Lsn;
  /** While copying: bytes of each volume that are there, by its id. */
  readonly copied: Readonly<Record<string, number>>;
  readonly bootId: string;
  readonly volumes: readonly StandbyVolume[];
}

export const STAMP_NAME = 'standby.json';

/** Undefined when there is none. Throws `journal-damaged`, `journal-foreign`, `format-too-new`. */
export async function readStamp(disk: Disk, directory: string, groupId: string): Promise<StandbyStamp | undefined> {
  const path = `${directory}/${STAMP_NAME}`;
  const bytes = await readWhole(disk, path);
  if (bytes === undefined) return undefined;
  const [line = '', check = '', rest] = bytes.toString('utf8').split('\n');
  if (check !== checkOf(line) || rest !== '') throw damaged(path, 'the checksum does not match');
  const value: unknown = JSON.parse(line);
  if (typeof value !== 'object' || value === null) throw damaged(path, 'it is no stamp');
  const { format, groupId: owner } = value as Partial<Record<keyof StandbyStamp, unknown>>;
  if (typeof format === 'number' && format > 1) {
    throw new TidemarkError('format-too-new', `${path}: format ${format}, this program knows 1`);
  }
  if (!isStamp(value)) throw damaged(path, 'a field is wrong or missing');
  if (owner !== groupId) {
    throw new TidemarkError('journal-foreign', `${path} belongs to group ${String(owner)}, not ${groupId}`);
  }
  return value;
}

/** What was in a file that somebody took away would stay zeroes for good. */
export function lacksFile(disk: Disk, directory: string, { state, copied, volumes }: StandbyStamp): boolean {
  return volumes.some(({ id, file }) => {
    const isBegun = state !== 'copying' || (copied[id] ?? 0) > 0;
    return isBegun && !disk.exists(`${directory}/${file}`);
  });
}

/** Durable when it resolves. */
export function writeStamp(disk: Disk, directory: string, stamp: StandbyStamp): Promise<void> {
  const line = JSON.stringify(stamp);
  return replaceFile(disk, directory, STAMP_NAME, Buffer.from(`${line}\n${checkOf(line)}\n`));
}

function checkOf(line: string): string {
  return crc32c(line).toString(16).padStart(8, '0');
}

function isStamp(value: object): value is StandbyStamp {
  const { format, groupId, state, lsn, readFromLsn, settleToLsn, copied, bootId, volumes } = value as Partial<
    Record<keyof StandbyStamp, unknown>
  >;
  return (
    format === 1 &&
    [groupId, bootId].every((text) => typeof text === 'string') &&
    STANDBY_STATES.some((one) => one === state) &&
    [lsn, readFromLsn, settleToLsn].every(isCount) &&
    typeof copied === 'object' &&
    copied !== null &&
    Object.values(copied).every(isCount) &&
    Array.isArray(volumes)
  );
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function damaged(path: string, why: string): TidemarkError {
  return new TidemarkError('journal-damaged', `${path}: ${why}`);
}
