import { TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice } from '../../journal/block-device.ts';
import type { ReplicaGroup } from '../../replica/replica-group.ts';
import { parseRestoreTarget } from '../../replica/restore/restore-target.ts';
import type { MountRequest, ViewReply } from '../control/control-api.ts';
import { DeviceExport } from '../nbd/device-export.ts';
import type { NbdListenAddress, NbdServer } from '../nbd/server.ts';
import { exportUri } from '../nbd-setup.ts';
import { isoNow, isoTime } from '../times.ts';

/** Scratch writes of one volume of a writable view, on disk. */
const SCRATCH_BYTES_MAX = 16 * 1024 ** 3;

interface Mounted {
  readonly id: number;
  readonly reply: ViewReply;
}

/** Where views are served. */
export interface ViewServer {
  readonly server: NbdServer;
  readonly address: NbdListenAddress;
  readonly tls: boolean;
}

/** Views of one group that are served over NBD, by name. */
export class MountedViews {
  readonly #group: ReplicaGroup;
  readonly #server: ViewServer;
  readonly #mounted = new Map<string, Mounted>();

  constructor(group: ReplicaGroup, server: ViewServer) {
    this.#group = group;
    this.#server = server;
  }

  list(): ViewReply[] {
    return [...this.#mounted.values()].map(({ reply }) => reply);
  }

  /** Rejects with not-found, trimmed, precondition-failed, already-exists (the name), invalid-argument (the position). */
  async mount(request: MountRequest): Promise<ViewReply> {
    const choice = await this.#group.resolve(parseRestoreTarget(request.at));
    const name = request.name ?? this.#freeName(`at-${choice.lsn}`);
    if (this.#mounted.has(name)) throw new TidemarkError('already-exists', `a view "${name}" is mounted`);
    const writable = request.writable ?? false;
    const view = this.#group.openView({
      lsn: choice.lsn,
      ...(request.volume === undefined ? {} : { volumes: [request.volume] }),
      owner: name,
      scratchBytesMax: writable ? SCRATCH_BYTES_MAX : 0,
    });
    const exports: ViewReply['exports'][number][] = [];
    try {
      for (const { volume, device } of view.volumes) exports.push(this.#serve(name, volume.name, device, writable));
    } catch (error) {
      // nobody could unmount it, and it would hold history for good
      for (const { volume } of exports) await this.#server.server.removeExport(exportName(name, volume));
      await this.#group.views.close(view.id);
      throw error;
    }
    const time = choice.at === undefined ? null : isoTime(choice.at.time);
    const reply: ViewReply = {
      name,
      at: { epoch: choice.epoch, lsn: choice.lsn, time },
      writable,
      createdAt: isoNow(),
      exports,
      scratchBytes: writable ? SCRATCH_BYTES_MAX : null,
    };
    this.#mounted.set(name, { id: view.id, reply });
    return reply;
  }

  /** Its clients get what they wait for and are disconnected. Rejects with not-found. */
  async unmount(name: string): Promise<ViewReply> {
    const mounted = this.#mounted.get(name);
    if (mounted === undefined) throw new TidemarkError('not-found', `no view "${name}" is mounted`);
    this.#mounted.delete(name);
    for (const entry of mounted.reply.exports) await this.#server.server.removeExport(exportName(name, entry.volume));
    await this.#group.views.close(mounted.id);
    return mounted.reply;
  }

  #serve(view: string, volume: string, device: BlockDevice, writable: boolean): ViewReply['exports'][number] {
    const name = exportName(view, volume);
    this.#server.server.addExport(new DeviceExport(device, { name, readOnly: !writable }));
    return { volume, sizeBytes: device.size, uri: exportUri(this.#server.address, this.#server.tls, name) };
  }

  #freeName(wanted: string): string {
    let name = wanted;
    for (let number = 2; this.#mounted.has(name); number += 1) name = `${wanted}-${number}`;
    return name;
  }
}

function exportName(view: string, volume: string): string {
  return `${view}.${volume}`;
}
