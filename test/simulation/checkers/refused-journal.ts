import { crc32 } from '@node-rs/crc32';
import { ProtectedGroup } from '../../../daemon/volume/protected-group.ts';
import { hasCode } from '../../../journal/base/errors.ts';
import type { Host } from '../../../journal/host/host.ts';
import { Journal, type JournalOptions } from '../../../journal/journal.ts';
import { LocalMarks } from '../../../journal/local-marks.ts';
import type { SeededRandom } from '../seeded-random.ts';
import { must } from '../violation.ts';
import { changed, type FrozenDisk, freeze, Laboratory } from './frozen-disk.ts';

const JOURNAL_FILE = /\/journal-[0-9a-f]+\.tmj$/;
const FILE_MAGIC = 0x314a4d54;
const HEADER_CHECKED_BYTES = 256;
const STOP_MARK_BYTES = 64;

/**
 * A start finds the journal of another group, or one that a later version of the program has written, in whole or a file
 * of it: it refuses, and everything stays as it was, byte for byte.
 */
export async function checkRefused(frozen: FrozenDisk, options: JournalOptions, random: SeededRandom): Promise<void> {
  const live = [...frozen.files].filter(([path, bytes]) => JOURNAL_FILE.test(path) && isBegun(bytes));
  if (live.length === 0) return;
  const stopMark = frozen.files.get(`${options.directory}/journal.stop`);
  switch (random.pick(['newer file', 'newer mark', 'another group'])) {
    case 'newer file': {
      const [path, bytes] = random.pick(live);
      const newer = laterVersion(bytes, HEADER_CHECKED_BYTES, 16);
      await mustRefuse(changed(frozen, new Map([[path, newer]])), options, 'format-too-new', random);
      return;
    }
    case 'newer mark':
      if (stopMark === undefined) return;
      await mustRefuse(
        changed(frozen, new Map([[`${options.directory}/journal.stop`, laterVersion(stopMark, STOP_MARK_BYTES, 32)]])),
        options,
        'format-too-new',
        random,
      );
      return;
    default:
      await mustRefuse(frozen, { ...options, groupId: '6'.repeat(32) }, 'journal-foreign', random);
  }
}

async function mustRefuse(
  frozen: FrozenDisk,
  journal: JournalOptions,
  code: 'format-too-new' | 'journal-foreign',
  random: SeededRandom,
): Promise<void> {
  const laboratory = new Laboratory(random.uint32(), frozen);
  const { host, process } = laboratory.start();
  // The files beside the log are of that group too, and are read first: the log alone has to refuse as well.
  const opening = random.chance(0.5) ? Journal.open(host, journal) : openGroup(host, journal);
  const outcome = await laboratory.finish<unknown>('H5', opening).then(
    () => 'it was opened',
    (error: unknown) => (hasCode(error, code) ? code : String(error)),
  );
  process.kill();
  must('H5', outcome === code, () => `a journal to be refused as ${code}: ${outcome}`);
  const after = freeze(laboratory.machine, journal.directory);
  const names = [[...frozen.files.keys()].sort().join(), [...after.files.keys()].sort().join()] as const;
  must('H5', names[0] === names[1], () => `refused, and its files are ${names[1]}, not ${names[0]}`);
  for (const [path, bytes] of frozen.files) {
    const found = after.files.get(path) ?? new Uint8Array();
    must('H5', Buffer.compare(bytes, found) === 0, () => `refused, and ${path} has other bytes than before`);
  }
}

function openGroup(host: Host, journal: JournalOptions): Promise<ProtectedGroup> {
  return ProtectedGroup.open(
    host,
    { journal, volumes: [], overlayBytesMax: 1024 * 1024, outOfRoom: 'block', afterPowerLoss: 'serve' },
    new LocalMarks(),
  );
}

function isBegun(bytes: Uint8Array): boolean {
  return (
    bytes.length >= HEADER_CHECKED_BYTES &&
    new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true) === FILE_MAGIC
  );
}

/** The version is at 8, and the checksum over the first bytes at 4, in both. */
function laterVersion(bytes: Uint8Array, checkedBytes: number, bits: 16 | 32): Uint8Array {
  const newer = bytes.slice();
  const view = new DataView(newer.buffer);
  if (bits === 16) view.setUint16(8, view.getUint16(8, true) + 1, true);
  else view.setUint32(8, view.getUint32(8, true) + 1, true);
  view.setUint32(4, 0, true);
  view.setUint32(4, crc32(newer.subarray(0, checkedBytes)), true);
  return newer;
}
