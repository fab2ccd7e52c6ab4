import { stripVTControlCharacters, styleText } from 'node:util';

/** Tables as kubectl prints them: no borders, columns two blanks apart, nothing behind the last one. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header.map((title) => bold(title.toUpperCase())), ...rows];
  const widths = header.map((_, column) => Math.max(...all.map((row) => width(row[column] ?? ''))));
  const lines = all.map((row) =>
    row
      .map((cell, column) =>
        column === row.length - 1 ? cell : cell + ' '.repeat((widths[column] ?? 0) - width(cell)),
      )
      .join('  ')
      .trimEnd(),
  );
  return lines.join('\n');
}

/** `key  value` lines with the values below each other. */
export function pairs(entries: readonly (readonly [string, string])[]): string {
  const widest = Math.max(0, ...entries.map(([key]) => width(key)));
  return entries.map(([key, value]) => `${key}${' '.repeat(widest - width(key))}  ${value}`).join('\n');
}

/** Columns a terminal needs: no escape codes, wide characters count twice. */
function width(text: string): number {
  let columns = 0;
  for (const character of stripVTControlCharacters(text)) columns += isWide(character.codePointAt(0) ?? 0) ? 2 : 1;
  return columns;
}

function isWide(code: number): boolean {
  return (
    (code >= 0x1100 && code <= 0x115f) ||
    (code >= 0x2e80 && code <= 0xa4cf) ||
    (code >= 0xac00 && code <= 0xd7a3) ||
    (code >= 0xf900 && code <= 0xfaff) ||
    (code >= 0xfe30 && code <= 0xfe6f) ||
    (code >= 0xff00 && code <= 0xff60) ||
    (code >= 0x1f300 && code <= 0x1faff)
  );
}

type Style = 'bold' | 'red' | 'yellow' | 'green' | 'dim';

/** Colours only on a terminal, and not with NO_COLOR. */
export function paint(style: Style, text: string): string {
  return styleText(style, text, { stream: process.stdout });
}

export function bold(text: string): string {
  return paint('bold', text);
}
