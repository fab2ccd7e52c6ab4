import { execFileSync } from 'node:child_process';
import test from 'ava';
import { mustStrip, PROJECT, patchedEnvironment, patchSource } from './patch-loader.ts';

const FILE = 'journal/position.ts';
const SECTOR = 'export const SECTOR_BYTES = 512;';

/** What a program of its own, a worker thread of it and a program it starts find in the module. */
const PROGRAM = `
  import { execFileSync } from 'node:child_process';
  import { once } from 'node:events';
  import { Worker } from 'node:worker_threads';
  const look = "import('${new URL(`file://${PROJECT}/${FILE}`).href}').then(({ SECTOR_BYTES }) => SECTOR_BYTES)";
  const code = \`const { parentPort } = await import('node:worker_threads'); parentPort.postMessage(await \${look});\`;
  const worker = new Worker(new URL('data:text/javascript,' + encodeURIComponent(code)));
  const [inWorker] = await once(worker, 'message');
  const inChild = execFileSync(process.execPath, ['--input-type=module', '-e', \`console.log(await \${look})\`], { encoding: 'utf8' });
  console.log([await eval(look), inWorker, Number(inChild)].join(' '));
`;

function look(env: NodeJS.ProcessEnv): string {
  return execFileSync(process.execPath, ['--input-type=module', '-e', PROGRAM], {
    cwd: PROJECT,
    env,
    encoding: 'utf8',
  });
}

test('a patched file is what a program, its worker threads and the programs it starts load; nobody else does', (t) => {
  const patch = patchSource(FILE, SECTOR, 'export const SECTOR_BYTES = 513;');
  t.is(look(patchedEnvironment([patch])).trim(), '513 513 513');
  t.is(look(process.env).trim(), '512 512 512');
});

test('a patch whose text is not there once is refused, and one that is no program', (t) => {
  t.throws(() => patchSource(FILE, 'no such text', ''), { message: /0 times/ });
  t.throws(() => patchSource(FILE, 'export', 'import'), { message: /times, not once/ });
  t.throws(() => patchSource(FILE, SECTOR, SECTOR), { message: /nothing changes/ });
  const both = patchSource(
    FILE,
    'SECTOR_BYTES = 513',
    'SECTOR_BYTES = 514',
    patchSource(FILE, SECTOR, `${SECTOR.slice(0, -2)}3;`),
  );
  t.true(both.text.includes('SECTOR_BYTES = 514;'));
  t.notThrows(() => mustStrip(both));
  t.throws(() => mustStrip(patchSource(FILE, SECTOR, 'export const SECTOR_BYTES: = 512;')));
});
