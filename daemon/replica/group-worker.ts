import { workerData } from 'node:worker_threads';
import { realHost } from '../../journal/host/real-host.ts';
import type { ReplicaGroupReply } from '../control/control-api.ts';
import { logChannels } from '../telemetry/channel-log.ts';
import { workerSide } from '../worker/worker-side.ts';
import type { ReplicaMethods, ReplicaWorkerData } from './group-worker-protocol.ts';
import { ReplicaDataPath } from './replica-data-path.ts';
import { bookmarkReply, timelineReply } from './timeline-reply.ts';

/** The thread of one group at the replica. */

const STATUS_INTERVAL_MS = 250;

const data = workerData as ReplicaWorkerData;
const side = workerSide<ReplicaGroupReply>();
const quiet = logChannels(side.log);
const path = new ReplicaDataPath(realHost(), data, side);

side.serve<ReplicaMethods>({
  status: () => path.status(),
  points: async (query) => {
    const { group } = path.opened;
    return timelineReply(group, data.config.name, await group.status(), query);
  },
  bookmarks: async () => {
    const { group } = path.opened;
    const { epoch } = (await group.status()).receiver.durable;
    return { bookmarks: group.bookmarks().map((bookmark) => bookmarkReply(epoch, bookmark)) };
  },
  mount: (request) => path.opened.views.mount(request),
  unmount: ({ view }) => path.opened.views.unmount(view),
  restore: (request) => path.opened.restores.start(request),
  restoreJob: ({ job }) => Promise.resolve(path.opened.restores.get(job)),
  cancelRestore: ({ job }) => path.opened.restores.cancel(job),
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
