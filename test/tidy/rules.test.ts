import test from 'ava';
import { brokenCitations } from './durability.ts';
import * as rules from './rules.ts';
import { importsOf, scan } from './scan.ts';

/** Each rule against a file that breaks it and one that does not: a rule that cannot fail guards nothing. */

const BREAKS: readonly [string, rules.Rule, string, string][] = [
  ['journal imports daemon', rules.importArrow, 'journal/a.ts', "import { b } from '../daemon/b.ts';"],
  ['replica imports daemon', rules.importArrow, 'replica/a/b.ts', "export * from '../../daemon/b.ts';"],
  ['daemon imports cli', rules.importArrow, 'daemon/a.ts', "await import('../cli/b.ts');"],
  ['cli imports replica', rules.importArrow, 'cli/a.ts', "import type {\n  B,\n} from '../replica/b.ts';"],
  ['product imports test', rules.importArrow, 'cli/a.ts', "import '../test/b.ts';"],
  ['a worker of a higher layer', rules.importArrow, 'journal/a.ts', "new URL('../daemon/b.ts', import.meta.url);"],
  ['journal imports a library', rules.lowLayerPackages, 'journal/a.ts', "import { z } from 'zod';"],
  ['koffi outside the host', rules.lowLayerPackages, 'journal/a.ts', "import koffi from 'koffi';"],
  ['kafkajs outside its folder', rules.packageHomes, 'daemon/stream/a.ts', "import kafkajs from 'kafkajs';"],
  ['OpenTelemetry outside', rules.packageHomes, 'daemon/a.ts', "import { metrics } from '@opentelemetry/api';"],
  ['fastify outside', rules.packageHomes, 'cli/a.ts', "import fastify from 'fastify';"],
  ['rxjs on the write path', rules.packageHomes, 'daemon/volume/a.ts', "import { map } from 'rxjs/operators';"],
  ['only', rules.noOnly, 'test/a.test.ts', "test.serial.only('a', () => {});"],
  ['a skip', rules.noSilentSkip, 'test/a.test.ts', "(loop ? test.serial.skip : test)('a', () => {});"],
  ['the wall clock', rules.seams, 'journal/a.ts', 'const now = Date.now();'],
  ['a new Date', rules.seams, 'replica/a.ts', 'const now = new Date();'],
  ['a timer in a template', rules.seams, 'daemon/ship/a.ts', 'const a = `${setTimeout(f, 1)}`;'],
  ['random bytes', rules.seams, 'daemon/volume/a.ts', 'const key = randomBytes(16);'],
  ['the file system', rules.seams, 'replica/a.ts', "import { open } from 'node:fs/promises';"],
  ['a long file', rules.fileLength, 'cli/a.ts', '\n'.repeat(401)],
  ['an orphan', rules.unimported, 'daemon/a.ts', ''],
  ['a path of a machine', rules.machineIndependent, 'docs/a.md', `see /${'root'}/notes`],
  ['a registry', rules.machineIndependent, '.npmrc', `registry=http://${'registry'}.local:4873/`],
  ['a lock with addresses', rules.machineIndependent, 'package-lock.json', `"resolved": "${'http'}://x/a.tgz"`],
];

for (const [name, rule, path, text] of BREAKS) {
  test(`refused: ${name}`, (t) => {
    t.is(rule([{ path, text }]).length, 1, rule([{ path, text }]).join('\n'));
  });
}

const HOLDS: readonly [string, rules.Rule, string, string][] = [
  ['cli imports daemon', rules.importArrow, 'cli/a.ts', "import { b } from '../daemon/control/b.ts';"],
  ['a codec in the journal', rules.lowLayerPackages, 'journal/a.ts', "import { crc32c } from '@node-rs/crc32';"],
  ['the host reads the clock', rules.seams, 'journal/host/a.ts', 'Date.now();'],
  ['a method of a seam', rules.seams, 'journal/a.ts', 'clock.setTimeout(f); new Date(micros / 1000);'],
  [
    'words in comments and strings',
    rules.seams,
    'journal/a.ts',
    "// Date.now()\nconst a = 'Math.random()'; /* setTimeout */",
  ],
  ['after a regular expression', rules.seams, 'journal/a.ts', "const a = /['\"`]/; const b = 'Date.now()';"],
  ['an import in a comment', rules.importArrow, 'journal/a.ts', "// import { b } from '../daemon/b.ts';"],
  ['an import in a string', rules.importArrow, 'journal/a.ts', `const a = "import b from '../daemon/b.ts'";`],
  ['a test', rules.unimported, 'test/a/b.test.ts', ''],
  ['a loopback registry', rules.machineIndependent, 'docs/a.md', `http://${'localhost'}:4873/registry/`],
];

for (const [name, rule, path, text] of HOLDS) {
  test(`allowed: ${name}`, (t) => {
    t.deepEqual(rule([{ path, text }]), []);
  });
}

test('a circle of imports is found, whatever its length and kind', (t) => {
  const file = (path: string, text: string): rules.SourceFile => ({ path, text });
  const tree = [
    file('daemon/a.ts', "import { b } from './b.ts';"),
    file('daemon/b.ts', "import { c } from './c/c.ts';"),
  ];
  t.deepEqual(rules.noCircles([...tree, file('daemon/c/c.ts', "import { d } from '../d.ts';")]), []);
  const closed = rules.noCircles([...tree, file('daemon/c/c.ts', "import type { A } from '../a.ts';")]);
  t.deepEqual(closed, ['daemon/a.ts: in a circle with daemon/b.ts', 'daemon/b.ts: in a circle with daemon/c/c.ts']);
});

test('an import has the line it stands on', (t) => {
  const found = importsOf(scan("/* one\n two */\nimport a from './a.ts';\nexport { b } from './b.ts';\n"));
  t.deepEqual(found, [
    { specifier: './a.ts', line: 3 },
    { specifier: './b.ts', line: 4 },
  ]);
});

test('a document that names tests is held to what there is', (t) => {
  const text =
    'by `test/a.test.ts` "one", "two\nlines" and "three"; `test/b.test.ts`; "elsewhere" `test/c.test.ts` "x"';
  const files = new Map([
    ['test/a.test.ts', "test('one'); test('two lines');"],
    ['test/b.test.ts', ''],
  ]);
  t.deepEqual(
    brokenCitations(text, (name) => files.get(name)),
    ['test/a.test.ts has no "three"', 'test/c.test.ts does not exist'],
  );
});
