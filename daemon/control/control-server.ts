import swagger from '@fastify/swagger';
import fastify, { type FastifyError, type FastifyInstance, type FastifyReply } from 'fastify';
import { z } from 'zod';
import { AssertionError } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { httpStatusOf, toApiError } from './api-errors.ts';
import { listenPrivately, type PrivateListener } from './private-socket.ts';

/**
 * HTTP on a unix socket. Every body, query and parameter is checked against its schema before a handler runs; every
 * error leaves as {code, next, message, details}; GET /openapi.json describes it all.
 */
export interface ControlServer {
  /** For tests: `inject` runs a request without a socket. */
  readonly app: FastifyInstance;
  /** Opens the socket: 0660, in a directory of its own (0750). Throws already-exists when another daemon answers there. */
  listen(socketPath: string): Promise<void>;
  /** No new requests; waits for those under way, at most two seconds. */
  close(): Promise<void>;
}

/** A broken assumption in a handler must end the process, not become an answer (`onAssertion` throws it outside). */
export interface ControlServerOptions {
  readonly version: string;
  readonly title: string;
  readonly onAssertion: (error: Error) => void;
}

/** Puts a role's routes on the server. */
export type Routes = (app: FastifyInstance) => void;

const BODY_BYTES_MAX = 64 * 1024;
const REQUEST_TIMEOUT_MS = 10_000;
const CLOSE_WAIT_MS = 2000;
/** On a host with both roles the other one's socket is easily named. */
const WHO_DOES_WHAT =
  'bookmark, detach and release are for a source; points, mount, unmount, views and restore for a replica (--socket)';

export async function createControlServer(options: ControlServerOptions, routes: Routes): Promise<ControlServer> {
  const app = fastify({
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: REQUEST_TIMEOUT_MS,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 256 },
    // a URL that cannot be decoded never reaches the error handler
    frameworkErrors: (error, _request, reply) => {
      const answer: FastifyReply = reply;
      void answer.status(400).send(toApiError(new TidemarkError('invalid-argument', error.message)));
    },
  });
  app.setValidatorCompiler<z.ZodType>(({ schema, httpPart }) => (data) => {
    const parsed = schema.safeParse(data ?? {});
    if (parsed.success) return { value: parsed.data };
    return { error: invalidRequest(httpPart ?? 'request', parsed.error) };
  });
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  app.setErrorHandler<FastifyError>((error, _request, reply) => {
    const operating = asOperatingError(error);
    if (operating === undefined) {
      options.onAssertion(error);
      const body = { code: 'unsupported', next: 'stop', message: 'the daemon met a bug and stops', details: {} };
      return reply.status(500).send(body);
    }
    return reply.status(httpStatusOf(operating.code)).send(toApiError(operating));
  });
  app.setNotFoundHandler((request, reply) => {
    const error = new TidemarkError(
      'not-found',
      `${options.title} has no ${request.method} ${request.url}: ${WHO_DOES_WHAT}`,
    );
    return reply.status(404).send(toApiError(error));
  });
  await app.register(swagger, {
    openapi: { openapi: '3.1.0', info: { title: options.title, version: options.version } },
    transform: ({ schema, url }) => ({ schema: describe(schema), url }),
  });
  app.get('/openapi.json', { schema: { hide: true } }, () => app.swagger());
  routes(app);
  await app.ready();
  let listener: PrivateListener | undefined;
  return {
    app,
    listen: async (socketPath) => {
      listener = await listenPrivately(app.server, socketPath);
    },
    close: async () => {
      const timer = setTimeout(() => app.server.closeAllConnections(), CLOSE_WAIT_MS);
      await app.close();
      clearTimeout(timer);
      listener?.release();
    },
  };
}

/** What is wrong with a request, as one error whose details name every field. */
function invalidRequest(part: string, error: z.ZodError): TidemarkError {
  const problems = error.issues.map((issue) => {
    const keys = issue.code === 'unrecognized_keys' ? `.${issue.keys.join(', ')}` : '';
    const path = `${part}${issue.path.length === 0 ? '' : `.${issue.path.join('.')}`}${keys}`;
    return `${path}: ${issue.code === 'unrecognized_keys' ? 'unknown key' : issue.message}`;
  });
  return new TidemarkError('invalid-argument', problems.join('; '), { details: { problems: problems.length } });
}

/** Nothing for what is a programming error. Fastify's own refusals (bad JSON, too large) are invalid arguments. */
function asOperatingError(error: FastifyError | Error): TidemarkError | undefined {
  if (error instanceof TidemarkError) return error;
  if (error instanceof AssertionError) return undefined;
  const status = 'statusCode' in error ? error.statusCode : undefined;
  if (status !== undefined && status < 500) return new TidemarkError('invalid-argument', error.message);
  return undefined;
}

type RouteSchema = Record<string, unknown>;

/** The schemas of a route as JSON Schema, for the OpenAPI document. */
function describe(schema: unknown): RouteSchema {
  const described: RouteSchema = {};
  for (const [key, value] of Object.entries((schema ?? {}) as RouteSchema)) {
    described[key] = value instanceof z.ZodType ? z.toJSONSchema(value, { io: 'input' }) : value;
  }
  return described;
}
