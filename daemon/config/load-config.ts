import { readFile, stat } from 'node:fs/promises';
import { isMap, isPair, LineCounter, type Node, parseDocument } from 'yaml';
import type { z } from 'zod';
import { TidemarkError } from '../../journal/base/errors.ts';
import { closestName } from './closest-name.ts';
import type { ReplicaConfig, SourceConfig } from './config-types.ts';
import { replicaSchema } from './replica-schema.ts';
import { sourceSchema } from './source-schema.ts';

/**
 * Reads a configuration file: YAML 1.2, then the role's schema. Every mistake is reported, each as
 * `file:line:column: key: message`, and nothing is started with half of a configuration.
 */

type Document = ReturnType<typeof parseDocument>;

interface ConfigProblem {
  readonly line: number;
  readonly column: number;
  /** `groups.0.volumes.1.size`; empty for a mistake in the YAML itself. */
  readonly key: string;
  readonly message: string;
}

/** Throws config-invalid with one line per problem. */
export async function loadSourceConfig(file: string): Promise<SourceConfig> {
  return parseConfig(await readConfig(file), file, sourceSchema);
}

/** Throws config-invalid with one line per problem. */
export async function loadReplicaConfig(file: string): Promise<ReplicaConfig> {
  return parseConfig(await readConfig(file), file, replicaSchema);
}

/** Beyond these a file is no configuration, and reading it would take memory and patience. */
const FILE_BYTES_MAX = 1024 * 1024;
const PROBLEMS_SHOWN_MAX = 20;

async function readConfig(file: string): Promise<string> {
  try {
    const { size } = await stat(file);
    if (size > FILE_BYTES_MAX) throw new Error(`it has ${size} bytes; a configuration has at most ${FILE_BYTES_MAX}`);
    return await readFile(file, 'utf8');
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TidemarkError('config-invalid', `${file}: cannot be read: ${reason}`, { cause: error });
  }
}

/** Throws config-invalid; `file` only names the text in messages. */
export function parseConfig<T>(text: string, file: string, schema: z.ZodType<T>): T {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true, version: '1.2' });
  const problems: ConfigProblem[] = [...document.errors, ...document.warnings].map((error) => ({
    ...position(lines, error.pos[0]),
    key: '',
    message: error.code === 'MULTIPLE_DOCS' ? 'a second document ("---") begins here: there may be one' : error.message,
  }));
  if (problems.length > 0) throw configInvalid(file, problems);
  const parsed = schema.safeParse(valuesOf(document, file));
  if (parsed.success) return parsed.data;
  throw configInvalid(
    file,
    parsed.error.issues.flatMap((issue) => problemsOf(issue, document, lines, schema)),
  );
}

/** Aliases that multiply without end, or name nothing, are noticed only here. */
function valuesOf(document: Document, file: string): unknown {
  if (!isMap(document.contents)) {
    const what = document.contents === null ? 'it is empty' : 'it holds no keys';
    throw configInvalid(file, [{ line: 1, column: 1, key: '', message: `${what}: this is no configuration file` }]);
  }
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw configInvalid(file, [{ line: 1, column: 1, key: '', message }]);
  }
}

function configInvalid(file: string, problems: ConfigProblem[]): TidemarkError {
  const sorted = problems.toSorted((a, b) => a.line - b.line || a.column - b.column);
  const lines = sorted
    .slice(0, PROBLEMS_SHOWN_MAX)
    .map(
      (problem) =>
        `${file}:${problem.line}:${problem.column}: ${problem.key === '' ? '' : `${problem.key}: `}${problem.message}`,
    );
  if (sorted.length > lines.length) lines.push(`${file}: and ${sorted.length - lines.length} more`);
  return new TidemarkError('config-invalid', lines.join('\n'), { details: { file, problems: problems.length } });
}

function problemsOf(
  issue: z.core.$ZodIssue,
  document: Document,
  lines: LineCounter,
  schema: z.ZodType,
): ConfigProblem[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => {
      const path = [...issue.path, key];
      const near = closestName(key, knownKeys(schema, issue.path));
      const hint = near === undefined ? '' : `; did you mean "${near}"?`;
      return { ...position(lines, offsetOf(document, path, true)), key: path.join('.'), message: `unknown key${hint}` };
    });
  }
  const present = issue.path.length === 0 || document.hasIn(issue.path);
  const message = present ? issue.message : (missingMessage(issue) ?? issue.message);
  return [
    { ...position(lines, offsetOf(document, issue.path, false)), key: issue.path.join('.') || '(file)', message },
  ];
}

/** Nothing for an issue that is not about the absence (a default that does not fit its neighbours). */
function missingMessage(issue: z.core.$ZodIssue): string | undefined {
  if (issue.code === 'invalid_type') return `is missing (${issue.expected})`;
  if (issue.code === 'invalid_value') return `is missing (one of ${issue.values.map(String).join(', ')})`;
  return issue.code === 'invalid_union' ? 'is missing' : undefined;
}

/** The offset of the value at `path`, of its key, or of the nearest ancestor that exists. */
function offsetOf(document: Document, path: readonly PropertyKey[], ofKey: boolean): number {
  for (let length = path.length; length > 0; length -= 1) {
    const parent: unknown = document.getIn(path.slice(0, length - 1), true);
    const last = path[length - 1];
    if (isMap(parent)) {
      const pair = parent.items.find((item) => isPair(item) && String(item.key) === String(last));
      const wanted = ofKey || length < path.length ? pair?.key : (pair?.value ?? pair?.key);
      const offset = startOf(wanted);
      if (offset !== undefined) return offset;
    } else {
      const offset = startOf(document.getIn(path.slice(0, length), true));
      if (offset !== undefined) return offset;
    }
  }
  return startOf(document.contents) ?? 0;
}

function startOf(node: unknown): number | undefined {
  return (node as Node | null | undefined)?.range?.[0];
}

function position(lines: LineCounter, offset: number): { line: number; column: number } {
  const { line, col } = lines.linePos(offset);
  return { line: Math.max(line, 1), column: Math.max(col, 1) };
}

/** The keys a strictObject at `path` would take; empty when the schema cannot be walked that far. */
function knownKeys(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let at: unknown = schema;
  for (const part of [...path, undefined]) {
    at = unwrap(at);
    const definition = definitionOf(at);
    if (part === undefined) return Object.keys(definition?.shape ?? {});
    at = typeof part === 'number' ? definition?.element : definition?.shape?.[String(part)];
  }
  return [];
}

interface SchemaDefinition {
  readonly type: string;
  readonly shape?: Record<string, unknown>;
  readonly element?: unknown;
  readonly innerType?: unknown;
  readonly in?: unknown;
}

function definitionOf(schema: unknown): SchemaDefinition | undefined {
  return (schema as { _zod?: { def?: SchemaDefinition } } | undefined)?._zod?.def;
}

function unwrap(schema: unknown): unknown {
  const definition = definitionOf(schema);
  if (definition?.type === 'pipe') return unwrap(definition.in);
  return definition?.innerType === undefined ? schema : unwrap(definition.innerType);
}
