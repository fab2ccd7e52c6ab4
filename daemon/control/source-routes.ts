import type { FastifyInstance } from 'fastify';
import type {
  ActionReply,
  AlarmsReply,
  BookmarkReply,
  BookmarkRequest,
  DryRunRequest,
  GiveUpReply,
  GiveUpRequest,
  SourceStatusReply,
} from './control-api.ts';
import { bookmarkRequest, degreeRequest, dryRunRequest, giveUpRequest, groupParameter } from './control-schemas.ts';
import type { DegreeRequest } from './degree-api.ts';

/** What the source's control plane can do; run-source.ts fills it in. Unknown groups reject with not-found. */
export interface SourceControl {
  status(): Promise<SourceStatusReply>;
  alarms(): AlarmsReply;
  /** Resolves when the bookmark is durable here. */
  bookmark(group: string, request: BookmarkRequest): Promise<BookmarkReply>;
  /** Drains the journal into the backings, stamps them and closes the exports (rule 8). */
  detach(group: string, dryRun: boolean): Promise<ActionReply>;
  /** Opens exports that are held since a power loss (rule 12). */
  release(group: string, dryRun: boolean): Promise<ActionReply>;
  /** Gives up damaged records that nobody holds (invariant R2); the next start carries it out. */
  giveUp(group: string, request: GiveUpRequest): Promise<GiveUpReply>;
  /** What guests' answers wait for, from now on or when no replica relies on the old promise any more. */
  degree(group: string, request: DegreeRequest): Promise<ActionReply>;
}

type InGroup<Body> = { Params: { group: string }; Body: Body };

export function sourceRoutes(control: SourceControl): (app: FastifyInstance) => void {
  return (app) => {
    app.get('/v1/status', { schema: { summary: 'Everything that is known, null where it is not' } }, () =>
      control.status(),
    );
    app.get('/v1/alarms', { schema: { summary: 'What needs a person now' } }, () => control.alarms());
    app.post<InGroup<BookmarkRequest>>(
      '/v1/groups/:group/bookmarks',
      { schema: { summary: 'Name the present moment', params: groupParameter, body: bookmarkRequest } },
      async (request, reply) => {
        reply.status(201);
        return control.bookmark(request.params.group, request.body);
      },
    );
    app.post<InGroup<DryRunRequest>>(
      '/v1/groups/:group/detach',
      { schema: { summary: 'Give the disks back as plain disks', params: groupParameter, body: dryRunRequest } },
      async (request) => control.detach(request.params.group, request.body.dryRun ?? false),
    );
    app.post<InGroup<DryRunRequest>>(
      '/v1/groups/:group/release',
      { schema: { summary: 'Open exports held after a power loss', params: groupParameter, body: dryRunRequest } },
      async (request) => control.release(request.params.group, request.body.dryRun ?? false),
    );
    app.post<InGroup<GiveUpRequest>>(
      '/v1/groups/:group/give-up',
      {
        schema: {
          summary:
            'Go on without damaged records that nobody holds: a gap, and a new seed of every volume at the next start',
          params: groupParameter,
          body: giveUpRequest,
        },
      },
      async (request) => control.giveUp(request.params.group, request.body),
    );
    app.post<InGroup<DegreeRequest>>(
      '/v1/groups/:group/degree',
      { schema: { summary: 'Change what answers to guests wait for', params: groupParameter, body: degreeRequest } },
      async (request) => control.degree(request.params.group, request.body),
    );
  };
}
