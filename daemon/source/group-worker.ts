import { workerData } from 'node:worker_threads';
import { realHost } from '../../journal/host/real-host.ts';
import type { SourceGroupReply } from '../control/control-api.ts';
import { logChannels } from '../telemetry/channel-log.ts';
import { workerSide } from '../worker/worker-side.ts';
import type { SourceMethods, SourceWorkerData } from './group-worker-protocol.ts';
import { SourceDataPath } from './source-data-path.ts';

/** The thread of one group at the source: its data path, away from the control plane's event loop. */

const STATUS_INTERVAL_MS = 250;

const side = workerSide<SourceGroupReply>();
const quiet = logChannels(side.log);
const path = new SourceDataPath(realHost(), workerData as SourceWorkerData, side);

side.serve<SourceMethods>({
  status: () => Promise.resolve(path.status()),
  bookmark: (request) => path.bookmark(request),
  detach: ({ dryRun }) => path.detach(dryRun),
  release: async ({ dryRun }) => path.release(dryRun),
  giveUp: (request) => path.giveUp(request),
  changeDegree: (request) => path.changeDegree(request),
  stop: async () => {
    await path.close();
    quiet();
    // after the answer has left
    setImmediate(() => side.close());
    return null;
  },
});
side.reportEvery(STATUS_INTERVAL_MS, () => path.status());

path.run().catch(async (error: unknown) => {
  // why it ended is what counts; what else breaks while closing follows from it
  await path.close().catch(() => undefined);
  side.end(error);
});
