import type { FastifyInstance } from 'fastify';
import type {
  AlarmsReply,
  BookmarksReply,
  MountRequest,
  PointsReply,
  ReplicaStatusReply,
  RestoreJobReply,
  RestoreReply,
  RestoreRequest,
  RestoresReply,
  ViewReply,
  ViewsReply,
} from './control-api.ts';
import {
  groupParameter,
  mountRequest,
  type PointsQuery,
  pointsQuery,
  restoreParameters,
  restoreRequest,
  viewParameters,
} from './control-schemas.ts';

/** What the replica's control plane can do; run-replica.ts fills it in. Unknown groups reject with not-found. */
export interface ReplicaControl {
  status(): Promise<ReplicaStatusReply>;
  alarms(): AlarmsReply;
  points(group: string, query: PointsQuery): Promise<PointsReply>;
  bookmarks(group: string): Promise<BookmarksReply>;
  views(group: string): Promise<ViewsReply>;
  mount(group: string, request: MountRequest): Promise<ViewReply>;
  unmount(group: string, view: string): Promise<ViewReply>;
  restores(group: string): Promise<RestoresReply>;
  /** Resolves when the job has been started, or with the plan alone for a dry run. */
  restore(group: string, request: RestoreRequest): Promise<RestoreReply>;
  restoreJob(group: string, job: string): Promise<RestoreJobReply>;
  /** Ends a running job; its target stays, marked as unfinished. */
  cancelRestore(group: string, job: string): Promise<RestoreJobReply>;
}

type OfGroup = { Params: { group: string } };

export function replicaRoutes(control: ReplicaControl): (app: FastifyInstance) => void {
  return (app) => {
    app.get('/v1/status', { schema: { summary: 'Everything that is known, null where it is not' } }, () =>
      control.status(),
    );
    app.get('/v1/alarms', { schema: { summary: 'What needs a person now' } }, () => control.alarms());
    app.get<OfGroup & { Querystring: PointsQuery }>(
      '/v1/groups/:group/points',
      { schema: { summary: 'The timeline', params: groupParameter, querystring: pointsQuery } },
      async (request) => control.points(request.params.group, request.query),
    );
    app.get<OfGroup>(
      '/v1/groups/:group/bookmarks',
      { schema: { summary: 'The named points', params: groupParameter } },
      async (request) => control.bookmarks(request.params.group),
    );
    viewRoutes(app, control);
    restoreRoutes(app, control);
  };
}

function viewRoutes(app: FastifyInstance, control: ReplicaControl): void {
  app.get<OfGroup>(
    '/v1/groups/:group/views',
    { schema: { summary: 'The views that are mounted', params: groupParameter } },
    async (request) => control.views(request.params.group),
  );
  app.post<OfGroup & { Body: MountRequest }>(
    '/v1/groups/:group/views',
    { schema: { summary: 'Mount any point as NBD exports', params: groupParameter, body: mountRequest } },
    async (request, reply) => {
      reply.status(201);
      return control.mount(request.params.group, request.body);
    },
  );
  app.delete<{ Params: { group: string; view: string } }>(
    '/v1/groups/:group/views/:view',
    { schema: { summary: 'Unmount a view; its scratch writes are gone', params: viewParameters } },
    async (request) => control.unmount(request.params.group, request.params.view),
  );
}

function restoreRoutes(app: FastifyInstance, control: ReplicaControl): void {
  app.get<OfGroup>(
    '/v1/groups/:group/restores',
    { schema: { summary: 'Restores of this run of the daemon', params: groupParameter } },
    async (request) => control.restores(request.params.group),
  );
  app.post<OfGroup & { Body: RestoreRequest }>(
    '/v1/groups/:group/restores',
    { schema: { summary: 'Restore a point, or only plan it', params: groupParameter, body: restoreRequest } },
    async (request, reply) => {
      reply.status(request.body.dryRun === true ? 200 : 202);
      return control.restore(request.params.group, request.body);
    },
  );
  app.get<{ Params: { group: string; job: string } }>(
    '/v1/groups/:group/restores/:job',
    { schema: { summary: 'How far a restore is', params: restoreParameters } },
    async (request) => control.restoreJob(request.params.group, request.params.job),
  );
  app.delete<{ Params: { group: string; job: string } }>(
    '/v1/groups/:group/restores/:job',
    { schema: { summary: 'Cancel a restore', params: restoreParameters } },
    async (request) => control.cancelRestore(request.params.group, request.params.job),
  );
}
