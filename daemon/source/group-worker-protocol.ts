import type { SourceGroupConfig } from '../config/config-types.ts';
import type {
  ActionReply,
  BookmarkReply,
  BookmarkRequest,
  GiveUpReply,
  GiveUpRequest,
  SourceGroupReply,
} from '../control/control-api.ts';
import type { DegreeRequest } from '../control/degree-api.ts';

/** Between the source's control plane and the worker of one group. */

export interface SourceWorkerData {
  readonly config: SourceGroupConfig;
  readonly stateDir: string;
}

export interface SourceMethods {
  status: { params: null; result: SourceGroupReply };
  bookmark: { params: BookmarkRequest; result: BookmarkReply };
  detach: { params: { dryRun: boolean }; result: ActionReply };
  release: { params: { dryRun: boolean }; result: ActionReply };
  giveUp: { params: GiveUpRequest; result: GiveUpReply };
  changeDegree: { params: DegreeRequest; result: ActionReply };
  /** Resolves when what is under way is answered, synced, and the journal is marked clean. */
  stop: { params: null; result: null };
}
