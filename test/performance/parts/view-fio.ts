import path from 'node:path';
import { run } from '../../servers/child.ts';
import { fio } from '../fio.ts';
import { cpuSeconds } from '../process-usage.ts';
import type { Row } from '../rows.ts';
import { type HistorySite, historySite, serveOverlay } from './history-site.ts';
import { type PartContext, type PartRun, Values } from './part.ts';

const LOAD: Row = {
  name: 'view',
  unit: 'IOPS',
  load: ['--rw=randread', '--bs=4k', '--norandommap', '--randrepeat=0', '--iodepth=32'],
  goals: {},
};
const MIB = 1024 ** 2;
/** Fits the cache of unpacked chunks. */
const CACHED_BYTES = 32 * MIB;

async function compare(
  { site, middleLsn, overlay }: HistorySite,
  { quick, repetitions }: PartContext,
  areas: ReadonlyMap<string, number>,
  values: Values,
): Promise<void> {
  const view = await site.mount(String(middleLsn));
  const peer = await serveOverlay(overlay, true);
  const uri = view.uri('disk0');
  await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', uri, peer.uri]);
  const sides = [
    { side: 'view', uri, pid: site.replica.pid },
    { side: 'overlay', uri: peer.uri, pid: peer.child.process.pid as number },
  ];
  for (const [area, bytes] of areas) {
    for (let repetition = 0; repetition < repetitions; repetition++) {
      const rates = new Map<string, number>();
      for (const { side, uri: served, pid } of sides) {
        const before = cpuSeconds(pid);
        const { rate, operations } = await fio(served, LOAD, quick ? 3 : 8, bytes);
        rates.set(side, rate);
        if (side === 'view') values.add(`${area}, view`, rate);
        values.add(`${area}, CPU of a read, ${side}`, ((cpuSeconds(pid) - before) * 1e6) / operations);
      }
      values.add(`${area}, view / overlay`, (rates.get('view') ?? 0) / (rates.get('overlay') ?? 0));
    }
  }
  await peer.child.stop();
  await site.unmount(view);
}

/** fio on a view in the middle of a history, and on qemu-nbd with the same content as a qcow2 overlay, in turn. */
export const viewFio: PartRun = async (context) => {
  const values = new Values();
  const sizeBytes = (context.quick ? 256 : 1024) * MIB;
  for (const packed of [false, true]) {
    const history = await historySite(path.join(context.directory, packed ? 'packed' : 'raw'), sizeBytes, packed);
    try {
      const whole = new Map([[packed ? 'compressed chunks' : 'chunks as they are', sizeBytes]]);
      await compare(history, context, packed ? whole.set('compressed chunks in memory', CACHED_BYTES) : whole, values);
    } finally {
      await history.site.stop();
    }
  }
  return values.all;
};
