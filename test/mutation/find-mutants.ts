import {
  type BinaryExpression,
  isArrowFunction,
  isAwaitExpression,
  isBinaryExpression,
  isBlock,
  isBreakStatement,
  isCallExpression,
  isConditionalExpression,
  isConstructorDeclaration,
  isContinueStatement,
  isDeleteExpression,
  isExpressionStatement,
  isExpressionWithTypeArguments,
  isForStatement,
  isFunctionDeclaration,
  isFunctionExpression,
  isGetAccessorDeclaration,
  isIdentifier,
  isIfStatement,
  isImportDeclaration,
  isInterfaceDeclaration,
  isMethodDeclaration,
  isNewExpression,
  isNumericLiteral,
  isPostfixUnaryExpression,
  isPrefixUnaryExpression,
  isPropertyAccessExpression,
  isReturnStatement,
  isSetAccessorDeclaration,
  isThrowStatement,
  isTypeAliasDeclaration,
  isVariableDeclaration,
  isWhileStatement,
  type Node,
  type SourceFile,
  type Statement,
  SyntaxKind,
} from 'typescript/unstable/ast';
import type { Mutant, MutantKind } from './mutant.ts';

const BOUNDARY: Readonly<Record<string, string>> = { '<': '<=', '<=': '<', '>': '>=', '>=': '>' };
const NEGATED: Readonly<Record<string, string>> = {
  '<': '>=',
  '<=': '>',
  '>': '<=',
  '>=': '<',
  '===': '!==',
  '!==': '===',
};
const ARITHMETIC: Readonly<Record<string, string>> = {
  '+': '-',
  '-': '+',
  '*': '/',
  '/': '*',
  '%': '*',
  '+=': '-=',
  '-=': '+=',
};
const BITS: Readonly<Record<string, string>> = { '&': '|', '|': '&', '^': '|', '<<': '>>>', '>>': '<<', '>>>': '<<' };
const AND_OR: Readonly<Record<string, string>> = { '&&': '||', '||': '&&' };
const METHODS: ReadonlyMap<string, string> = new Map([
  ['min', 'max'],
  ['max', 'min'],
  ['ceil', 'floor'],
  ['floor', 'ceil'],
  ['some', 'every'],
  ['every', 'some'],
  ['push', 'unshift'],
  ['shift', 'pop'],
]);

/** Names of numbers that are a choice. */
const CHOSEN = /^[A-Z0-9_]+_(?:MS|DEFAULTS)$/;

/**
 * Every mutant of one file. What is text for people (strings, templates, what an error is made with) is left alone, and so
 * are types and imports; and assertions, whose conditions no input and no fault makes false while the program is right: a
 * test of one could only be a call that breaks the callee's contract; and the numbers of a `..._MS` and of `..._DEFAULTS`:
 * how long something waits by choice, and what an option is that may be anything. The order is that of the file.
 */
export function findMutants(file: string, source: SourceFile): Mutant[] {
  const { text } = source;
  const lines = lineStarts(text);
  const found: Mutant[] = [];

  const add = (
    kind: MutantKind,
    node: { pos: number; end: number },
    replacement: string,
    inFunction: boolean,
  ): void => {
    const start = skipTrivia(node as Node, source);
    const original = text.slice(start, node.end);
    if (original === replacement) return;
    found.push({ file, start, end: node.end, line: lineOf(lines, start), kind, original, replacement, inFunction });
  };

  const binary = (node: BinaryExpression, inFunction: boolean): void => {
    const { operatorToken, left, right } = node;
    const operator = textOf(operatorToken, source);
    const swaps: readonly (readonly [MutantKind, Readonly<Record<string, string>>])[] = [
      ['boundary', BOUNDARY],
      ['comparison-negated', NEGATED],
      ['arithmetic', ARITHMETIC],
      ['bits', BITS],
      ['and-or', AND_OR],
    ];
    const whole = (other: string): string =>
      `${text.slice(skipTrivia(node, source), operatorToken.pos)} ${other}${text.slice(operatorToken.end, node.end)}`;
    for (const [kind, table] of swaps) {
      const other = table[operator];
      if (other !== undefined) add(kind, node, whole(other), inFunction);
    }
    if (operator === '??') add('default-only', node, `(${textOf(right, source)})`, inFunction);
    if (operator === '??=') add('default-only', node, `${textOf(left, source)} = ${textOf(right, source)}`, inFunction);
  };

  const statement = (node: Node, inFunction: boolean): void => {
    if (isThrowStatement(node) || isBreakStatement(node) || isContinueStatement(node)) {
      add('exit-removed', node, ';', inFunction);
    } else if (isReturnStatement(node) && node.expression === undefined) {
      add('exit-removed', node, ';', inFunction);
    } else if (isExpressionStatement(node)) {
      const { expression } = node;
      const assigns = isBinaryExpression(expression) || isUpdate(expression) || isDeleteExpression(expression);
      add(assigns ? 'assignment-removed' : 'call-removed', node, ';', inFunction);
      if (isAwaitExpression(expression)) {
        add('await-removed', expression, `void ${textOf(expression.expression, source)}`, inFunction);
      }
    } else if (isIfStatement(node)) {
      const leaves = node.elseStatement === undefined && isExit(node.thenStatement);
      add(leaves ? 'guard-removed' : 'condition-false', node.expression, 'false', inFunction);
      add('condition-true', node.expression, 'true', inFunction);
      if (node.elseStatement !== undefined && !isIfStatement(node.elseStatement)) {
        add('else-removed', node.elseStatement, '{}', inFunction);
      }
    } else if (isWhileStatement(node) || (isForStatement(node) && node.condition !== undefined)) {
      const condition = isWhileStatement(node) ? node.expression : node.condition;
      if (condition?.kind !== SyntaxKind.TrueKeyword) add('condition-false', condition as Node, 'false', inFunction);
    }
  };

  const expression = (node: Node, inFunction: boolean): void => {
    if (isBinaryExpression(node)) binary(node, inFunction);
    else if (node.kind === SyntaxKind.TrueKeyword) add('boolean', node, 'false', inFunction);
    else if (node.kind === SyntaxKind.FalseKeyword) add('boolean', node, 'true', inFunction);
    else if (isNumericLiteral(node)) {
      const value = Number(textOf(node, source).replaceAll('_', ''));
      add('constant', node, String(value + 1), inFunction);
      if (value > 0) add('constant', node, String(value - 1), inFunction);
    } else if (node.kind === SyntaxKind.BigIntLiteral) {
      add('constant', node, `${BigInt(textOf(node, source).replaceAll('_', '').slice(0, -1)) + 1n}n`, inFunction);
    } else if (isPrefixUnaryExpression(node) && node.operator === SyntaxKind.ExclamationToken) {
      add('not-removed', node, textOf(node.operand, source), inFunction);
    } else if (isUpdate(node) && !isExpressionStatement(node.parent)) {
      const whole = textOf(node, source);
      const other = whole.includes('++') ? whole.replace('++', '--') : whole.replace('--', '++');
      add('arithmetic', node, other, inFunction);
    } else if (isConditionalExpression(node)) {
      add('condition-true', node.condition, 'true', inFunction);
      add('condition-false', node.condition, 'false', inFunction);
    } else if (isCallExpression(node) && isPropertyAccessExpression(node.expression)) {
      const { name } = node.expression;
      const other = METHODS.get(textOf(name, source));
      if (other !== undefined) add('method-swapped', name, other, inFunction);
    }
  };

  const visit = (node: Node, inFunction: boolean): void => {
    if (isLeftAlone(node)) return;
    statement(node, inFunction);
    expression(node, inFunction);
    const within = inFunction || isFunction(node);
    node.forEachChild((child) => visit(child, within));
  };
  source.forEachChild((child) => visit(child, false));
  return found.sort((a, b) => a.start - b.start || a.end - b.end);
}

function isLeftAlone(node: Node): boolean {
  if (isImportDeclaration(node) || isInterfaceDeclaration(node) || isTypeAliasDeclaration(node)) return true;
  if (isExpressionWithTypeArguments(node)) return true;
  if (isExpressionStatement(node) && isAssertion(node.expression)) return true;
  if (isVariableDeclaration(node) && isIdentifier(node.name) && CHOSEN.test(node.name.text)) return true;
  if (node.kind >= SyntaxKind.FirstTypeNode && node.kind <= SyntaxKind.LastTypeNode) return true;
  // What an error says, in code, text and details.
  return isNewExpression(node) && isIdentifier(node.expression) && node.expression.text.endsWith('Error');
}

/** A call of journal/base/assert.ts. */
function isAssertion(node: Node): boolean {
  return isCallExpression(node) && isIdentifier(node.expression) && node.expression.text === 'assert';
}

function isFunction(node: Node): boolean {
  return (
    isArrowFunction(node) ||
    isFunctionDeclaration(node) ||
    isFunctionExpression(node) ||
    isMethodDeclaration(node) ||
    isConstructorDeclaration(node) ||
    isGetAccessorDeclaration(node) ||
    isSetAccessorDeclaration(node)
  );
}

function isUpdate(node: Node): boolean {
  if (isPostfixUnaryExpression(node)) return true;
  if (!isPrefixUnaryExpression(node)) return false;
  return node.operator === SyntaxKind.PlusPlusToken || node.operator === SyntaxKind.MinusMinusToken;
}

/** True when nothing behind the statement is reached through it. */
function isExit(node: Statement): boolean {
  const last = isBlock(node) ? node.statements.at(-1) : node;
  if (last === undefined) return false;
  return isReturnStatement(last) || isThrowStatement(last) || isContinueStatement(last) || isBreakStatement(last);
}

function skipTrivia(node: Node, source: SourceFile): number {
  return node.getStart(source);
}

function textOf(node: Node, source: SourceFile): string {
  return source.text.slice(node.getStart(source), node.end);
}

function lineStarts(text: string): number[] {
  const starts = [0];
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) starts.push(at + 1);
  return starts;
}

function lineOf(starts: readonly number[], offset: number): number {
  let line = 0;
  while ((starts[line + 1] ?? Number.POSITIVE_INFINITY) <= offset) line++;
  return line + 1;
}
