import type { ReplicaGroupConfig } from '../config/config-types.ts';
import type {
  BookmarksReply,
  MountRequest,
  PointsReply,
  ReplicaGroupReply,
  RestoreJobReply,
  RestoreReply,
  RestoreRequest,
  ViewReply,
} from '../control/control-api.ts';
import type { PointsQuery } from '../control/control-schemas.ts';

/** Between the replica's control plane and the worker of one group. */

export interface ReplicaWorkerData {
  readonly config: ReplicaGroupConfig;
  readonly stateDir: string;
  /** As the source registers it. */
  readonly replica: string;
}

export interface ReplicaMethods {
  status: { params: null; result: ReplicaGroupReply };
  points: { params: PointsQuery; result: PointsReply };
  bookmarks: { params: null; result: BookmarksReply };
  mount: { params: MountRequest; result: ViewReply };
  unmount: { params: { view: string }; result: ViewReply };
  restore: { params: RestoreRequest; result: RestoreReply };
  restoreJob: { params: { job: string }; result: RestoreJobReply };
  cancelRestore: { params: { job: string }; result: RestoreJobReply };
  /** Resolves when everything is synced and closed. */
  stop: { params: null; result: null };
}
