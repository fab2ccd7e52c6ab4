import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Child } from '../servers/child.ts';
import { contents, filesBelow, MUTATIONS } from './mutations.ts';
import {
  complaints,
  copyTree,
  type Grown,
  grow,
  mountGood,
  type Outcome,
  overwrite,
  readDisk,
  tryStart,
} from './rubbish-files.ts';

/*
 * Every file of a stopped daemon is spoilt in every way, one at a time. Whatever stands there afterwards: the daemon
 * serves the right bytes, or it names the file or the place and does not serve. It never crashes, never serves others,
 * and with the good file put back everything is as it was.
 */

/** A bug ends a daemon with this. */
const EXIT_BUG = 70;

interface Case {
  readonly name: string;
  readonly role: 'source' | 'replica';
  readonly clean: boolean;
}

const CASES: readonly Case[] = [
  { name: 'a source that was stopped', role: 'source', clean: true },
  { name: 'a source that was killed', role: 'source', clean: false },
  { name: 'a replica that was stopped', role: 'replica', clean: true },
  { name: 'a replica that was killed', role: 'replica', clean: false },
];

for (const { name, role, clean } of CASES) {
  test.serial(`${name}: every file spoilt in every way is named or harmless`, async (t) => {
    t.timeout(30 * 60_000);
    const root = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-rubbish-'));
    try {
      const other = await grow(path.join(root, 'other'), 1);
      await other.site.stop();
      const grown = await grow(path.join(root, 'spoilt'), 2);
      if (clean) await grown.site.stop();
      else await Promise.all([grown.site.source.kill(), grown.site.replica.kill()]);
      await spoilEverything(t, grown, role, other.directory);
    } finally {
      fs.rmSync(root, { recursive: true, force: true });
    }
  });
}

async function spoilEverything(t: ExecutionContext, grown: Grown, role: Case['role'], other: string): Promise<void> {
  const { directory, site } = grown;
  const pristine = `${directory}.pristine`;
  copyTree(directory, pristine);
  const files = filesBelow(path.join(pristine, role)).filter(worthATry);
  // A replica that was killed early has an identity, a position and a segment.
  t.true(files.length >= 3, files.join(' '));
  const seen = new Map<string, number>();
  for (const file of files) {
    for (const mutation of MUTATIONS) {
      putBack(pristine, directory, role);
      const spoilt = path.join(directory, role, file);
      mutation.apply(spoilt, path.join(other, role, file));
      const before = contents(path.join(directory, role));
      const { child, outcome } = await tryStart(role === 'source' ? site.source : site.replica);
      const verdict = await judge(grown, role, child, outcome, () => sameFiles(before, path.join(directory, role)));
      await child.stop('SIGTERM');
      if (
        verdict.kind === 'touched' &&
        (await rightWithTheGoodFile(grown, role, path.join(pristine, role, file), spoilt))
      ) {
        verdict.kind = 'refused';
      }
      seen.set(verdict.kind, (seen.get(verdict.kind) ?? 0) + 1);
      const line = `${role} ${file}, ${mutation.name}: ${verdict.kind}: ${verdict.text}`;
      if (process.env['TIDEMARK_RUBBISH_LOG'] !== undefined)
        fs.appendFileSync(process.env['TIDEMARK_RUBBISH_LOG'], `${line}\n`);
      t.true(['right', 'refused'].includes(verdict.kind), line);
    }
  }
  t.log([...seen].map(([kind, count]) => `${count} ${kind}`).join(', '));
}

/** Everything as it was when the daemons ended. The disk stays the same file: it is known by its inode. */
function putBack(pristine: string, directory: string, role: Case['role']): void {
  copyTree(path.join(pristine, role), path.join(directory, role));
  if (role === 'source') overwrite(path.join(pristine, 'root.raw'), path.join(directory, 'root.raw'));
}

/** Of many journal files the first, one in the middle and the last. */
function worthATry(file: string, _index: number, all: readonly string[]): boolean {
  if (!file.endsWith('.tmj')) return true;
  const journals = all.filter((name) => name.endsWith('.tmj'));
  const at = journals.indexOf(file);
  return at === 0 || at === journals.length - 1 || at === Math.floor(journals.length / 2);
}

/** `touched`: refused, but other files were written; that is harmless when the good file mends everything. */
type Verdict = { kind: 'right' | 'refused' | 'touched' | 'crashed' | 'wrong' | 'silent'; readonly text: string };

async function rightWithTheGoodFile(grown: Grown, role: Case['role'], good: string, spoilt: string): Promise<boolean> {
  fs.rmSync(spoilt, { recursive: true, force: true });
  overwrite(good, spoilt);
  const { child, outcome } = await tryStart(role === 'source' ? grown.site.source : grown.site.replica);
  const verdict = await judge(grown, role, child, outcome, () => undefined);
  await child.stop('SIGTERM');
  return verdict.kind === 'right';
}

async function judge(
  { site, good, last }: Grown,
  role: Case['role'],
  child: Child,
  outcome: Outcome,
  untouched: () => string | undefined,
): Promise<Verdict> {
  if (outcome.signal !== null || outcome.exitCode === EXIT_BUG) {
    return { kind: 'crashed', text: outcome.output.slice(-1500) };
  }
  const group = outcome.status?.groups[0];
  if (!child.running || group === undefined || group.state === 'failed') {
    const said = complaints(outcome.output).join(' | ');
    const touched = untouched();
    if (said === '') return { kind: 'silent', text: outcome.output.slice(-1500) };
    return touched === undefined ? { kind: 'refused', text: said } : { kind: 'touched', text: `${touched}; ${said}` };
  }
  const told = [group.state, group.reason, ...group.notes].join(' | ');
  try {
    if (role === 'source') {
      const disk = await readDisk(site.exportUri('root'));
      return { kind: disk.equals(last) ? 'right' : 'wrong', text: told };
    }
    const disk = await readDisk(await mountGood(site.replica.socket));
    return { kind: disk.equals(good) ? 'right' : 'wrong', text: told };
  } catch (error) {
    // what is not served must have been told
    const text = `${told} | ${error instanceof Error ? error.message : String(error)}`;
    if (!child.running) return { kind: 'crashed', text: child.output.slice(-1500) };
    return { kind: group.reason === '' && group.notes.length === 0 ? 'silent' : 'refused', text };
  }
}

/** A daemon that refuses leaves what it found as it was. */
function sameFiles(before: ReadonlyMap<string, string>, directory: string): string | undefined {
  const after = contents(directory);
  for (const [name, bytes] of before) {
    if (after.get(name) !== bytes) return `${name} was touched`;
  }
  return undefined;
}
