import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

/** One way to spoil a file. `foreign` is the file of the same name of another group. */
export interface Mutation {
  readonly name: string;
  apply(file: string, foreign: string): void;
}

/** Writes random bytes over a stretch of the file, wherever it is long enough. */
function scribble(file: string, offset: number, length: number): void {
  const size = fs.statSync(file).size;
  const at = Math.min(offset, Math.max(0, size - length));
  const descriptor = fs.openSync(file, 'r+');
  fs.writeSync(descriptor, randomBytes(Math.min(length, size)), 0, Math.min(length, size), at);
  fs.closeSync(descriptor);
}

/** All of them leave a file that a program could meet after a bad medium, a bad copy or a bad hand. */
export const MUTATIONS: readonly Mutation[] = [
  { name: 'one bit in the first 64 bytes', apply: (file) => flipBit(file, 20) },
  { name: 'one bit in the middle', apply: (file) => flipBit(file, Math.floor(fs.statSync(file).size / 2)) },
  { name: 'random bytes at 4 KiB', apply: (file) => scribble(file, 4096, 8192) },
  { name: 'all random', apply: (file) => scribble(file, 0, fs.statSync(file).size) },
  { name: 'cut to a half', apply: (file) => fs.truncateSync(file, Math.floor(fs.statSync(file).size / 2)) },
  { name: 'emptied', apply: (file) => fs.truncateSync(file, 0) },
  { name: 'zeroed', apply: (file) => fs.writeFileSync(file, Buffer.alloc(fs.statSync(file).size)) },
  { name: 'deleted', apply: (file) => fs.rmSync(file) },
  {
    name: 'of another group',
    apply: (file, foreign) => fs.existsSync(foreign) && fs.copyFileSync(foreign, file),
  },
  {
    name: 'a directory',
    apply: (file) => {
      fs.rmSync(file);
      fs.mkdirSync(file);
    },
  },
];

function flipBit(file: string, offset: number): void {
  if (fs.statSync(file).size === 0) return;
  const descriptor = fs.openSync(file, 'r+');
  const byte = Buffer.alloc(1);
  const at = Math.min(offset, fs.statSync(file).size - 1);
  fs.readSync(descriptor, byte, 0, 1, at);
  byte.writeUInt8(byte.readUInt8(0) ^ 0x10, 0);
  fs.writeSync(descriptor, byte, 0, 1, at);
  fs.closeSync(descriptor);
}

/** Every file below `directory` by its relative name, sorted; sockets and locks left out. */
export function filesBelow(directory: string): string[] {
  return fs
    .readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== 'lock')
    .map((entry) => path.relative(directory, path.join(entry.parentPath, entry.name)))
    .toSorted();
}

/** What stands in a directory, to see that nothing was touched. */
export function contents(directory: string): Map<string, string> {
  return new Map(
    filesBelow(directory).map((name) => [name, fs.readFileSync(path.join(directory, name)).toString('latin1')]),
  );
}
