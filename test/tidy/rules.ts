import path from 'node:path';
import {
  ENTRY_POINTS,
  FILE_LINES_MAX,
  type Folder,
  HOT_PATH,
  LOW_LAYER_PACKAGES,
  MAY_IMPORT,
  PACKAGE_HOMES,
  SEAM_EXCEPTIONS,
  SEAMED,
  TEST_FILE_LINES_MAX,
} from './allowed.ts';
import { type Import, importsOf, lineAt, type ScannedText, scan } from './scan.ts';

export interface SourceFile {
  /** From the top of the repository, with `/`. */
  readonly path: string;
  readonly text: string;
}

const SKIPS_ALLOWED_IN = 'test/setup/test-unless.ts';

/** Each rule takes the files and returns one line per violation, `path:line: what`. */
export type Rule = (files: readonly SourceFile[]) => string[];

export const importArrow: Rule = (files) =>
  eachImport(files, (file, specifier) => {
    const from = folderOf(file.path);
    if (from === undefined || !specifier.startsWith('.')) return undefined;
    const target = resolve(file.path, specifier);
    const to = folderOf(target);
    if (to !== undefined && MAY_IMPORT[from].includes(to)) return undefined;
    return `${from}/ must not import ${target}`;
  });

export const lowLayerPackages: Rule = (files) =>
  eachImport(files, (file, specifier) => {
    if (!isIn(file.path, ['journal/', 'replica/']) || /^(?:\.|node:)/.test(specifier)) return undefined;
    const allowed = LOW_LAYER_PACKAGES.some(({ name, within }) => name === specifier && isIn(file.path, within));
    return allowed ? undefined : `${specifier} is not allowed here`;
  });

export const packageHomes: Rule = (files) =>
  eachImport(files, (file, specifier) => {
    if (file.path.startsWith('test/')) return undefined;
    const home = PACKAGE_HOMES.find(({ name }) => name.test(specifier));
    if (home !== undefined && !file.path.startsWith(home.within)) return `${specifier} belongs in ${home.within}`;
    const isRxjs = /^rxjs(?:\/|$)/.test(specifier);
    return isRxjs && isIn(file.path, HOT_PATH) ? 'rxjs is for the control plane, never per write' : undefined;
  });

export const noOnly: Rule = (files) =>
  files
    .filter((file) => file.path.startsWith('test/'))
    .flatMap((file) => {
      const { codeOnly } = scanned(file);
      return matches(file.path, codeOnly, /\.only\s*\(/g, '.only hides every other test of the file');
    });

/** CI has to run what a machine may lack. */
export const noSilentSkip: Rule = (files) =>
  files
    .filter(({ path }) => path.startsWith('test/') && path !== SKIPS_ALLOWED_IN)
    .flatMap((file) => {
      const { codeOnly } = scanned(file);
      return matches(file.path, codeOnly, /\btest\w*(?:\.\w+)*\.skip\b/gi, `skips in CI too: use ${SKIPS_ALLOWED_IN}`);
    });

const SEAM_TOKENS =
  /(?<![\w.])(?:globalThis\.)?(?:new Date\(\s*\)|(?:Date\.now|Math\.random|performance\.now|process\.hrtime|setTimeout|setInterval|(?:crypto\.)?random(?:Bytes|UUID|Int|FillSync))\b)/g;
const SEAM_MODULES = /^node:(?:fs|timers)(?:\/|$)/;

export const seams: Rule = (files) => {
  const seamed = files.filter(({ path }) => isIn(path, SEAMED) && !isIn(path, Object.keys(SEAM_EXCEPTIONS)));
  const advice = 'disk, clock and random come from journal/host/';
  return [
    ...eachImport(seamed, (_file, specifier) => (SEAM_MODULES.test(specifier) ? `${specifier}: ${advice}` : undefined)),
    ...seamed.flatMap((file) => matches(file.path, scanned(file).codeOnly, SEAM_TOKENS, advice)),
  ];
};

export const fileLength: Rule = (files) =>
  files
    .map((file) => ({ path: file.path, lines: file.text.split('\n').length - 1 }))
    .filter(({ path, lines }) => lines > linesMax(path))
    .map(({ path, lines }) => `${path}: ${lines} lines, more than ${linesMax(path)}: is it one thing?`);

const linesMax = (path: string): number => (path.startsWith('test/') ? TEST_FILE_LINES_MAX : FILE_LINES_MAX);

/** Of the product; what is imported for its types alone counts too: two such files are one thing. */
export const noCircles: Rule = (files) => {
  const edges = new Map<string, string[]>();
  for (const file of files) {
    if (file.path.startsWith('test/')) continue;
    const targets = importsOf(scanned(file)).filter(({ specifier }) => specifier.startsWith('.'));
    edges.set(
      file.path,
      targets.map(({ specifier }) => resolve(file.path, specifier)),
    );
  }
  return [...edges].flatMap(([from, targets]) =>
    targets.filter((to) => from < to && leadsTo(edges, to, from)).map((to) => `${from}: in a circle with ${to}`),
  );
};

function leadsTo(edges: ReadonlyMap<string, readonly string[]>, from: string, to: string): boolean {
  const seen = new Set<string>();
  const open = [from];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    if (at === to) return true;
    if (seen.has(at)) continue;
    seen.add(at);
    open.push(...(edges.get(at) ?? []));
  }
  return false;
}

/** A quoted `.ts` path counts too: workers and child programs are started by name. */
export const unimported: Rule = (files) => {
  const named = new Set<string>();
  for (const file of files) {
    for (const [, name] of scanned(file).withoutComments.matchAll(/['"`]([./\w-]+\.ts)['"`]/g)) {
      named.add(resolve(file.path, name as string));
      named.add(name as string);
    }
  }
  return files
    .filter((file) => !named.has(file.path) && !ENTRY_POINTS.some((entry) => entry.test(file.path)))
    .map((file) => `${file.path}: nobody imports it`);
};

const MACHINE_PATH = /(?<![\w.})~$-])\/(?:work|root)\/\S*/g;
const RESOLVED = /"resolved": "(?:https?|file):[^"]*"/g;
const REGISTRY = /https?:\/\/[^\s"'<>]*\b(?:registry|artifactory|nexus|verdaccio|npm-proxy|pypi-proxy)\b[^\s"'<>]*/g;
const LOOPBACK = /^https?:\/\/(?:localhost|127\.0\.0\.1|\[::1\])[:/]/;

/** Takes every tracked text file, not only sources: nothing committed may hold only on the machine it was made on. */
export const machineIndependent: Rule = (files) =>
  files.flatMap((file) => [
    ...matches(file.path, file.text, MACHINE_PATH, 'a path of one machine'),
    ...matches(file.path, file.text, RESOLVED, 'the lock file must not name a registry'),
    ...matches(file.path, file.text, REGISTRY, 'a package registry').filter(
      (line) => !LOOPBACK.test(line.split(': ')[1] ?? ''),
    ),
  ]);

const scans = new WeakMap<SourceFile, ScannedText>();

function scanned(file: SourceFile): ScannedText {
  const known = scans.get(file);
  if (known !== undefined) return known;
  const made = scan(file.text);
  scans.set(file, made);
  return made;
}

function eachImport(
  files: readonly SourceFile[],
  judge: (file: SourceFile, specifier: string) => string | undefined,
): string[] {
  return files.flatMap((file) =>
    importsOf(scanned(file)).flatMap(({ specifier, line }: Import) => {
      const fault = judge(file, specifier);
      return fault === undefined ? [] : [`${file.path}:${line}: ${fault}`];
    }),
  );
}

function matches(file: string, text: string, pattern: RegExp, fault: string): string[] {
  return [...text.matchAll(pattern)].map((match) => `${file}:${lineAt(text, match.index)}: ${match[0]}: ${fault}`);
}

function folderOf(file: string): Folder | undefined {
  const folder = file.split('/')[0] as string;
  return folder in MAY_IMPORT ? (folder as Folder) : undefined;
}

function isIn(file: string, places: readonly string[]): boolean {
  return places.some((place) => (place.endsWith('/') ? file.startsWith(place) : file === place));
}

function resolve(file: string, specifier: string): string {
  return path.posix.normalize(path.posix.join(path.posix.dirname(file), specifier));
}
