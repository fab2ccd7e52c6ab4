/** Reads TypeScript just well enough to hold the house rules, without a compiler: comments and strings set apart. */

export interface Import {
  /** As written between the quotes. */
  readonly specifier: string;
  readonly line: number;
}

export interface ScannedText {
  /** The text with comments blanked; every character keeps its place, so that line numbers hold. */
  readonly withoutComments: string;
  /** The text with comments and the insides of strings and regular expressions blanked. */
  readonly codeOnly: string;
}

const REGEX_MAY_FOLLOW = /(?:^|[(,=:[!&|?{};+*%<>~^-]|\b(?:return|typeof|case|in|of|await|void))\s*$/;

export function scan(text: string): ScannedText {
  const comments: [number, number][] = [];
  const literals: [number, number][] = [];
  // Inside a template literal's ${...}: how many braces are open there, innermost last.
  const templateBraces: number[] = [];
  let at = 0;

  const readTemplate = (from: number): void => {
    const end = endOfLiteral(text, from, '`');
    literals.push([from, end]);
    at = end + 1;
    if (text[end] === '$') {
      templateBraces.push(0);
      at = end + 2;
    }
  };

  while (at < text.length) {
    const character = text[at] as string;
    const pair = text.slice(at, at + 2);
    if (pair === '//' || pair === '/*') {
      const found = text.indexOf(pair === '//' ? '\n' : '*/', at + 2);
      const end = found < 0 ? text.length : found + (pair === '//' ? 0 : 2);
      comments.push([at, end]);
      at = end;
    } else if (character === "'" || character === '"') {
      const end = endOfLiteral(text, at + 1, character);
      literals.push([at + 1, end]);
      at = end + 1;
    } else if (character === '`') {
      readTemplate(at + 1);
    } else if (character === '/' && REGEX_MAY_FOLLOW.test(text.slice(Math.max(0, at - 20), at))) {
      const end = endOfRegex(text, at + 1);
      literals.push([at + 1, end]);
      at = end + 1;
    } else if (templateBraces.length > 0 && character === '}' && templateBraces.at(-1) === 0) {
      templateBraces.pop();
      readTemplate(at + 1);
    } else {
      if (templateBraces.length > 0 && (character === '{' || character === '}')) {
        templateBraces.push((templateBraces.pop() as number) + (character === '{' ? 1 : -1));
      }
      at += 1;
    }
  }
  const withoutComments = blank(text, comments);
  return { withoutComments, codeOnly: blank(withoutComments, literals) };
}

/** Static, re-exporting and dynamic imports, and modules a worker or a child is started from by `new URL`. */
export function importsOf(text: ScannedText): Import[] {
  const forms = [
    /\b(?:import|export)\b[^'"`;=]*?\bfrom\s*['"]([^'"\n]+)['"]/g,
    /\bimport\s*\(?\s*['"]([^'"\n]+)['"]/g,
    /\bnew URL\(\s*['"](\.[^'"\n]+\.ts)['"]/g,
  ];
  return forms.flatMap((form) =>
    [...text.withoutComments.matchAll(form)]
      .filter((match) => /^(?:im|ex|ne)/.test(text.codeOnly.slice(match.index)))
      .map((match) => ({ specifier: match[1] as string, line: lineAt(text.withoutComments, match.index) })),
  );
}

export function lineAt(text: string, index: number): number {
  return text.slice(0, index).split('\n').length;
}

/** The index of the closing quote, or for a template of the `$` of `${`. */
function endOfLiteral(text: string, from: number, quote: string): number {
  for (let at = from; at < text.length; at += 1) {
    if (text[at] === '\\') at += 1;
    else if (text[at] === quote) return at;
    else if (quote === '`' && text[at] === '$' && text[at + 1] === '{') return at;
    else if (quote !== '`' && text[at] === '\n') return at;
  }
  return text.length;
}

function endOfRegex(text: string, from: number): number {
  let inClass = false;
  for (let at = from; at < text.length && text[at] !== '\n'; at += 1) {
    if (text[at] === '\\') at += 1;
    else if (text[at] === '[') inClass = true;
    else if (text[at] === ']') inClass = false;
    else if (text[at] === '/' && !inClass) return at;
  }
  return from;
}

function blank(text: string, ranges: readonly [number, number][]): string {
  let out = '';
  let at = 0;
  for (const [from, to] of ranges) {
    out += text.slice(at, from) + text.slice(from, to).replace(/[^\n]/g, ' ');
    at = to;
  }
  return out + text.slice(at);
}
