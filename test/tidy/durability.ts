/** `test/...ts` in backticks, and the titles quoted behind it. */
const CITATION = /`(test\/[\w./-]+\.ts)`((?:[\s,]*(?:and\s+)?"[^"]+")*)/g;

/**
 * What a document says of tests, held against the files: one line per test file that is not there and per title that its
 * file does not contain. `read` gives a file's text, undefined when there is none.
 */
export function brokenCitations(text: string, read: (path: string) => string | undefined): string[] {
  return citations(text).flatMap(({ path, titles }) => {
    const file = read(path);
    if (file === undefined) return [`${path} does not exist`];
    return titles.filter((title) => !file.includes(title)).map((title) => `${path} has no "${title}"`);
  });
}

export function citations(text: string): { readonly path: string; readonly titles: readonly string[] }[] {
  return [...text.matchAll(CITATION)].map(([, path = '', quoted = '']) => ({
    path,
    titles: [...quoted.matchAll(/"([^"]+)"/g)].map(([, title = '']) => title.replaceAll(/\s+/g, ' ')),
  }));
}
