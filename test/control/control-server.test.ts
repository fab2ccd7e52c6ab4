import { chmodSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { fromApiError, httpStatusOf } from '../../daemon/control/api-errors.ts';
import type { ApiError, BookmarkRequest, RestoreRequest } from '../../daemon/control/control-api.ts';
import { type ControlServer, createControlServer } from '../../daemon/control/control-server.ts';
import { type ReplicaControl, replicaRoutes } from '../../daemon/control/replica-routes.ts';
import { type SourceControl, sourceRoutes } from '../../daemon/control/source-routes.ts';
import { AssertionError } from '../../journal/base/assert.ts';
import { ERROR_CODES, hasCode, TidemarkError } from '../../journal/base/errors.ts';

interface Calls {
  readonly bookmarks: BookmarkRequest[];
  readonly restores: RestoreRequest[];
  readonly assertions: Error[];
}

/** The routes over handlers that write down what reached them; anything not expected rejects. */
async function serve(role: 'source' | 'replica'): Promise<{ server: ControlServer; calls: Calls }> {
  const calls: Calls = { bookmarks: [], restores: [], assertions: [] };
  const missing = (): Promise<never> => Promise.reject(new TidemarkError('not-found', 'no group "x"'));
  const source = {
    bookmark: (group: string, request: BookmarkRequest) => {
      calls.bookmarks.push(request);
      if (group === 'broken') return Promise.reject(new AssertionError('impossible'));
      return group === 'x' ? missing() : Promise.resolve({ ...request, epoch: 1, lsn: 7 });
    },
    release: missing,
    alarms: () => ({ alarms: [] }),
  } as unknown as SourceControl;
  const replica = {
    restore: (_group: string, request: RestoreRequest) => {
      calls.restores.push(request);
      return Promise.reject(new TidemarkError('target-exists', 'there', { details: { to: request.to } }));
    },
    points: (_group: string, query: unknown) => Promise.resolve(query),
  } as unknown as ReplicaControl;
  const options = { version: '0', title: 'test', onAssertion: (error: Error) => calls.assertions.push(error) };
  const server = await createControlServer(options, role === 'source' ? sourceRoutes(source) : replicaRoutes(replica));
  return { server, calls };
}

const BAD_BOOKMARKS: [title: string, body: unknown, field: RegExp][] = [
  ['no body', undefined, /body\.name/],
  ['a missing name', {}, /body\.name/],
  ['an unknown key', { name: 'a', nmae: 'b' }, /body\.nmae: unknown key/],
  ['a name like an LSN', { name: '42' }, /body\.name: must begin with a letter/],
  ['the reserved name', { name: 'latest' }, /"latest" is the newest point/],
  ['a wrong type', { name: 'a', labels: { k: 1 } }, /body\.labels\.k/],
  ['an array', [], /body/],
];

for (const [title, body, field] of BAD_BOOKMARKS) {
  test(`a bookmark with ${title} is refused and reaches nobody`, async (t) => {
    const { server, calls } = await serve('source');
    const reply = await server.app.inject({
      method: 'POST',
      url: '/v1/groups/g/bookmarks',
      ...(body === undefined ? {} : { payload: body as object }),
    });
    t.is(reply.statusCode, 400);
    const error = reply.json<ApiError>();
    t.is(error.code, 'invalid-argument');
    t.is(error.next, 'ask-operator');
    t.regex(error.message, field);
    t.deepEqual(calls.bookmarks, []);
  });
}

test('rubbish instead of JSON, too much of it, and unknown routes are answered in the same shape', async (t) => {
  const { server } = await serve('source');
  const url = '/v1/groups/g/bookmarks';
  const headers = { 'content-type': 'application/json' };
  const rubbish = await server.app.inject({ method: 'POST', url, headers, payload: '{"name":' });
  t.is(rubbish.statusCode, 400);
  t.is(rubbish.json<ApiError>().code, 'invalid-argument');
  const large = await server.app.inject({ method: 'POST', url, payload: { name: 'a', note: 'x'.repeat(100_000) } });
  t.is(large.json<ApiError>().code, 'invalid-argument');
  const undecodable = await server.app.inject({ method: 'GET', url: '/v1/%ff%fe' });
  t.is(undecodable.statusCode, 400);
  t.is(undecodable.json<ApiError>().code, 'invalid-argument');
  const otherRole = await server.app.inject({ method: 'POST', url: '/v1/groups/g/views', payload: { at: 'latest' } });
  t.regex(otherRole.json<ApiError>().message, /mount.* for a replica/);
  const unknown = await server.app.inject({ method: 'GET', url: '/v2/status' });
  t.is(unknown.statusCode, 404);
  t.is(unknown.json<ApiError>().code, 'not-found');
});

test('operating errors keep code, next action, words and details', async (t) => {
  const { server } = await serve('source');
  const ok = await server.app.inject({ method: 'POST', url: '/v1/groups/g/bookmarks', payload: { name: 'a' } });
  t.is(ok.statusCode, 201);
  const missing = await server.app.inject({ method: 'POST', url: '/v1/groups/x/bookmarks', payload: { name: 'a' } });
  t.is(missing.statusCode, 404);
  t.true(hasCode(fromApiError(missing.json<ApiError>()), 'not-found'));
  const { server: replica, calls } = await serve('replica');
  const payload = { at: 'latest', to: '/tmp/x' };
  const exists = await replica.app.inject({ method: 'POST', url: '/v1/groups/g/restores', payload });
  t.is(exists.statusCode, 409);
  t.deepEqual(exists.json<ApiError>().details, { to: '/tmp/x' });
  t.deepEqual(calls.restores, [payload]);
});

test('restores and points check their fields', async (t) => {
  const { server, calls } = await serve('replica');
  for (const payload of [
    { at: '', to: '/x' },
    { at: '1', to: 'relative' },
    { at: '1', to: 'http://x/' },
    { at: '1', to: '/x', format: 'vmdk' },
  ]) {
    const reply = await server.app.inject({ method: 'POST', url: '/v1/groups/g/restores', payload });
    t.is(reply.statusCode, 400, JSON.stringify(payload));
  }
  t.deepEqual(calls.restores, []);
  const zoneless = await server.app.inject({ url: '/v1/groups/g/points?from=2026-11-20T10:00:00' });
  t.regex(zoneless.json<ApiError>().message, /querystring\.from: must be a time with its zone/);
  const good = await server.app.inject({ url: '/v1/groups/g/points?from=2026-11-20T10:00:00%2B01:00&everyMs=1000' });
  t.deepEqual(good.json(), { from: '2026-11-20T10:00:00+01:00', everyMs: 1000 });
});

test('a broken assumption in a handler is handed on, not swallowed', async (t) => {
  const { server, calls } = await serve('source');
  const reply = await server.app.inject({ method: 'POST', url: '/v1/groups/broken/bookmarks', payload: { name: 'a' } });
  t.is(reply.statusCode, 500);
  t.is(calls.assertions[0]?.message, 'impossible');
});

test('the OpenAPI document describes every route with its body', async (t) => {
  const { server } = await serve('replica');
  const document = (await server.app.inject({ url: '/openapi.json' })).json<{
    openapi: string;
    paths: Record<
      string,
      Record<string, { requestBody?: { content: Record<string, { schema: { required: string[] } }> } }>
    >;
  }>();
  t.is(document.openapi, '3.1.0');
  t.deepEqual(Object.keys(document.paths).toSorted(), [
    '/v1/alarms',
    '/v1/groups/{group}/bookmarks',
    '/v1/groups/{group}/points',
    '/v1/groups/{group}/restores',
    '/v1/groups/{group}/restores/{job}',
    '/v1/groups/{group}/views',
    '/v1/groups/{group}/views/{view}',
    '/v1/status',
  ]);
  const body = document.paths['/v1/groups/{group}/restores']?.['post']?.requestBody;
  t.deepEqual(body?.content['application/json']?.schema.required, ['at', 'to']);
});

test('every error code has an HTTP status of an error', (t) => {
  for (const code of Object.keys(ERROR_CODES) as (keyof typeof ERROR_CODES)[]) {
    t.true(httpStatusOf(code) >= 400 && httpStatusOf(code) < 600, code);
  }
});

test('the socket is 0660 in a 0750 directory, is refused in an open one, and a second daemon is told', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-control-'));
  const { server } = await serve('source');
  try {
    const socket = join(directory, 'own/control.sock');
    await server.listen(socket);
    t.is(statSync(socket).mode & 0o777, 0o660);
    t.is(statSync(join(directory, 'own')).mode & 0o777, 0o750);
    t.is(await get(socket, '/v1/alarms'), '{"alarms":[]}');
    const { server: second } = await serve('source');
    t.true(hasCode(await t.throwsAsync(second.listen(socket)), 'already-exists'));
    await server.close();
    await t.throwsAsync(get(socket, '/v1/alarms'));
    const open = mkdtempSync(join(directory, 'open-'));
    chmodSync(open, 0o755);
    t.true(hasCode(await t.throwsAsync(second.listen(join(open, 'c.sock'))), 'precondition-failed'));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

function get(socketPath: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = http.get({ socketPath, path, agent: false }, (reply) => {
      let text = '';
      reply.on('data', (chunk: Buffer) => {
        text += chunk.toString();
      });
      reply.on('end', () => resolve(text));
    });
    request.on('error', reject);
  });
}
