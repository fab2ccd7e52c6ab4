import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { brokenCitations, citations } from './tidy/durability.ts';
import * as rules from './tidy/rules.ts';

/** House rules, held over the files git knows (`git add` is enough); data and exceptions are in tidy/allowed.ts. */

const top = path.join(import.meta.dirname, '..');
const tracked = execFileSync('git', ['ls-files', '-z'], { cwd: top, encoding: 'utf8' })
  .split('\0')
  .filter((name) => name !== '' && fs.statSync(path.join(top, name), { throwIfNoEntry: false })?.isFile());
const texts: rules.SourceFile[] = tracked
  .map((name) => ({ path: name, bytes: fs.readFileSync(path.join(top, name)) }))
  .filter(({ bytes }) => !bytes.includes(0))
  .map(({ path: name, bytes }) => ({ path: name, text: bytes.toString('utf8') }));
const sources = texts.filter((file) => /^(?:journal|replica|daemon|cli|test)\/.*\.ts$/.test(file.path));

const RULES: Readonly<Record<string, rules.Rule>> = {
  'imports follow the arrow cli -> daemon -> replica -> journal': rules.importArrow,
  'journal and replica import node: and their codecs only': rules.lowLayerPackages,
  'kafkajs, OpenTelemetry, fastify and rxjs stay where they belong': rules.packageHomes,
  'no test hides the others with .only': rules.noOnly,
  'no two files of the product import each other': rules.noCircles,
  'no test skips itself where CI must run it': rules.noSilentSkip,
  'disk, clock and random are reached through journal/host only': rules.seams,
  'no file is longer than one thing needs': rules.fileLength,
};

for (const [claim, rule] of Object.entries(RULES)) {
  test(claim, (t) => {
    t.deepEqual(rule(sources), []);
  });
}

test('nothing tracked names a path or a package registry of one machine', (t) => {
  t.deepEqual(rules.machineIndependent(texts), []);
});

test('every test that DURABILITY.md names exists under that name', (t) => {
  const files = new Map(texts.map((file) => [file.path, file.text]));
  const text = files.get('DURABILITY.md') ?? '';
  t.deepEqual(
    brokenCitations(text, (name) => files.get(name)),
    [],
  );
  t.true(citations(text).flatMap(({ titles }) => titles).length > 100);
});

test('every file is imported by another or is an entry point', (t) => {
  t.deepEqual(rules.unimported(sources), []);
});
