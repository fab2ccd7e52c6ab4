import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { crc32, crc32c } from '@node-rs/crc32';
import { ChangeMap } from '../../../daemon/volume/change-map.ts';
import { readStateFile, StateFields, writeStateFile } from '../../../daemon/volume/state-file.ts';
import { BaseImage } from '../../../replica/base/base-image.ts';
import { LookupWindow } from '../../../replica/index/lookup-window.ts';
import { PageCache } from '../../../replica/index/page-cache.ts';
import { RunFile } from '../../../replica/index/run-file.ts';
import { PAGE_BYTES } from '../../../replica/index/run-format.ts';
import { ReplicaGroup } from '../../../replica/replica-group.ts';
import { PositionMark } from '../../../replica/store/position-mark.ts';
import { readReplicaState, StateKeeper } from '../../../replica/store/replica-state.ts';
import { SegmentStore } from '../../../replica/store/segment-store.ts';
import { goldenReplica, goldenReplicaOptions } from '../../golden/make-replica.ts';
import { GROUP } from '../../replica/support/history.ts';
import { MemoryDisk, type MemoryHost, memoryHost, type SeededRandom } from '../../replica/support/memory-host.ts';
import { type FuzzTarget, must, packParts, unpackParts, words } from '../target.ts';
import { fixFrame } from './frames.ts';

const MAGICS = words('TMS1', 'TMSF', 'TMR1', 'TMPM', 'TMSS', 'TMB1', 'TMF1');

function goldenFiles(folder: string): string[] {
  return readdirSync(path.join(goldenReplica, folder)).filter((name) => /\.(?:seg|run|map)$/.test(name));
}

function golden(name: string): Buffer {
  return readFileSync(path.join(goldenReplica, name));
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** crc32c over all of `bytes` with the field 0. */
function sealCrc(bytes: Uint8Array, field: number): void {
  if (bytes.length < field + 4) return;
  viewOf(bytes).setUint32(field, 0, true);
  viewOf(bytes).setUint32(field, crc32c(bytes), true);
}

function hostWith(files: Readonly<Record<string, Uint8Array>>): MemoryHost {
  const disk = new MemoryDisk();
  for (const [name, bytes] of Object.entries(files)) {
    disk.files.set(name, { bytes: Buffer.from(bytes), length: bytes.length });
  }
  return memoryHost(1, disk);
}

function sealSegment(bytes: Uint8Array, random: SeededRandom): void {
  if (bytes.length < PAGE_BYTES) return;
  sealCrc(bytes.subarray(0, PAGE_BYTES), 8);
  const view = viewOf(bytes);
  for (let at = PAGE_BYTES; at + 160 <= bytes.length && view.getUint32(at, true) === 0x3146_4d54; ) {
    const length = Math.min(view.getUint32(at + 8, true), bytes.length - at);
    if (length < 160) break;
    if (random.below(4) > 0) fixFrame(bytes.subarray(at, at + length), random);
    at += length;
  }
  const footer = bytes.subarray(bytes.length - 64);
  if (viewOf(footer).getUint32(0, true) !== 0x4653_4d54) return;
  const from = viewOf(footer).getUint32(16, true);
  const to = from + viewOf(footer).getUint32(12, true) * 48;
  if (to <= bytes.length - 64) viewOf(footer).setUint32(8, crc32c(bytes.subarray(from, to)), true);
  sealCrc(footer, 4);
}

/** Segments as parts, then one byte: how much is proven durable. */
export const replicaSegments: FuzzTarget = {
  name: 'replica-segments',
  testRuns: 1500,
  parts: true,
  inputBytesMax: 40_000,
  allocatedBytesMax: 48 * 1024 * 1024,
  words: MAGICS,
  seeds: () => {
    const files = goldenFiles('segments').map((name) => golden(`segments/${name}`));
    const sealed = files[0]!;
    const unsealed = sealed.subarray(0, sealed.length - 64 - sealed.readUInt32LE(sealed.length - 52) * 48);
    return [
      packParts([...files.slice(0, 3), Buffer.from([50])]),
      packParts([unsealed, Buffer.from([10])]),
      packParts([sealed, files[1]!.subarray(0, 5000), Buffer.from([200])]),
    ];
  },
  fix: (input, random) => {
    for (const part of unpackParts(input)) sealSegment(part, random);
  },
  run: async (input) => {
    const parts = unpackParts(input);
    const files: Record<string, Uint8Array> = {};
    for (const [i, part] of parts.slice(0, 4).entries()) {
      if (part.length > 1) files[`/s/${String(i + 1).padStart(12, '0')}.seg`] = part;
    }
    const durableLsn = parts.at(-1)?.[0] ?? 0;
    const host = hostWith(files);
    const options = { directory: '/s', groupId: GROUP, segmentBytes: 64 * 1024, durableLsn };
    const store = await SegmentStore.open(host, options);
    let last = 0;
    try {
      let frames = 0;
      for await (const frame of store.frames(store.oldestLsn, store.lastLsn)) {
        must(frame.firstLsn > last || frames === 0, 'frames go on');
        last = frame.lastLsn;
        await store.read(frame.segment, frame.offset, new Uint8Array(Math.min(frame.bytes, 160)));
        if (++frames > 500) break;
      }
      await store.findTime(1_700_000_000_000_000);
    } finally {
      await store.close();
    }
    // what is proven durable is kept beside the segments: without it frames behind damage would be a torn tail
    const again = await SegmentStore.open(host, options);
    must(again.lastLsn >= Math.min(last, store.lastLsn), 'a second start holds what the first held');
    await again.close();
  },
};

function sealRun(bytes: Uint8Array): void {
  if (bytes.length < PAGE_BYTES || bytes.length % PAGE_BYTES !== 0) return;
  const footer = bytes.subarray(bytes.length - PAGE_BYTES);
  const topBytes = viewOf(footer).getUint32(64, true) * 24;
  const topAt = bytes.length - PAGE_BYTES - Math.ceil(topBytes / PAGE_BYTES) * PAGE_BYTES;
  if (topAt >= 0) viewOf(footer).setUint32(12, crc32c(bytes.subarray(topAt, topAt + topBytes)), true);
  for (let at = 0; at < Math.max(topAt, 0); at += PAGE_BYTES) sealCrc(bytes.subarray(at, at + PAGE_BYTES), 0);
  sealCrc(footer, 8);
}

export const indexRun: FuzzTarget = {
  name: 'index-run',
  testRuns: 4000,
  inputBytesMax: 6 * PAGE_BYTES,
  words: MAGICS,
  seeds: () => goldenFiles('index').map((name) => golden(`index/${name}`)),
  fix: sealRun,
  run: async (input) => {
    const host = hostWith({ '/i/x.run': input });
    const run = await RunFile.open(host, '/i/x.run', GROUP, new PageCache(64 * 1024, PAGE_BYTES));
    try {
      for (const volume of [1, 2]) {
        const window = new LookupWindow(0, 512);
        await run.paint(window, volume, Number.MAX_SAFE_INTEGER, 0);
        let sectors = 0;
        for (const part of window.parts()) {
          must(part.sectors > 0 && part.sector === sectors, 'parts cover the window');
          sectors += part.sectors;
        }
        must(sectors === 512, 'parts cover the window');
      }
    } finally {
      await run.close();
    }
  },
};

export const replicaState: FuzzTarget = {
  name: 'replica-state',
  testRuns: 20_000,
  words: [
    ...MAGICS,
    ...words('null', '[]', '{}', '"floorLsn":', '"catalog":', '"orphans":', '-1', '1e999', '""', '"groupId":'),
  ],
  seeds: () => [golden('state')],
  fix: (input) => {
    if (input.length < 16) return;
    viewOf(input).setUint32(12, input.length - 16, true);
    viewOf(input).setUint32(8, crc32c(input.subarray(16)), true);
  },
  run: async (input) => {
    const host = hostWith({ '/r/state': input });
    const state = await readReplicaState(host, '/r', GROUP);
    must(state !== undefined, 'a state that is there is read');
    if (state === undefined) return;
    await new StateKeeper(host, '/r', state).update(() => ({}));
    must(
      JSON.stringify(await readReplicaState(host, '/r', GROUP)) === JSON.stringify(state),
      'a state is written as read',
    );
  },
};

export const positionMark: FuzzTarget = {
  name: 'replica-position',
  testRuns: 20_000,
  inputBytesMax: 8192,
  words: MAGICS,
  seeds: () => [golden('position'), golden('position').subarray(0, 5000), Buffer.alloc(8192)],
  fix: (input) => {
    for (const at of [0, 4096]) if (input.length >= at + 512) sealCrc(input.subarray(at, at + 512), 4);
  },
  run: async (input) => {
    const host = hostWith({ '/r/position': input });
    const mark = await PositionMark.open(host, '/r', GROUP);
    const position = mark.initial;
    if (position !== undefined) {
      must(/^[0-9a-f]{16}$/.test(position.chain) && position.resumeOffset.length <= 400, 'a position makes sense');
      await mark.write({ ...position, durableLsn: position.durableLsn });
      const again = await PositionMark.open(host, '/r', GROUP);
      must(JSON.stringify(again.initial) === JSON.stringify(position), 'a position is written as it was read');
      await again.close();
    }
    await mark.close();
  },
};

export const baseMap: FuzzTarget = {
  name: 'base-map',
  testRuns: 20_000,
  words: MAGICS,
  seeds: async () => {
    const host = hostWith({});
    const base = await BaseImage.open(host, { directory: '/b', groupId: GROUP }, 1);
    await base.write(65_536, new Uint8Array(4096));
    await base.sync();
    await base.close();
    const map = host.disk.files.get('/b/1.map')!;
    return [map.bytes.subarray(0, map.length), ...goldenFiles('base').map((name) => golden(`base/${name}`))];
  },
  fix: (input) => {
    if (input.length >= 16) viewOf(input).setUint32(4, crc32c(input.subarray(8)), true);
  },
  run: async (input) => {
    const base = await BaseImage.open(
      hostWith({ '/b/1.map': input, '/b/1.img': new Uint8Array(8192).fill(1) }),
      { directory: '/b', groupId: GROUP },
      1,
    );
    const bytes = new Uint8Array(512);
    await base.read(4096, bytes);
    must(bytes.every((byte) => byte === bytes[0]) && base.dataBytes >= 0, 'a base is read');
    await base.close();
  },
};

const PLACE = { directory: '/s', groupId: GROUP };

/** The state files of a source: any value, asked for fields as a checkpoint asks. */
export const sourceState: FuzzTarget = {
  name: 'source-state',
  testRuns: 30_000,
  words: [...MAGICS, ...words('address', 'lsn', '\xdf\xff\xff\xff\xff', '\xdd\x7f\xff\xff\xff', '\xd4r', '\xc9')],
  seeds: async () => {
    const host = hostWith({});
    await writeStateFile(host, PLACE, 'x.state', {
      address: 4096,
      lsn: 7,
      name: 'n',
      list: [1, { a: 1 }],
      state: 'on',
    });
    const file = host.disk.files.get('/s/x.state')!;
    return [file.bytes.subarray(0, file.length)];
  },
  fix: (input) => {
    if (input.length >= 8) viewOf(input).setUint32(4, crc32(input.subarray(8)), true);
  },
  run: (input) => {
    const fields = new StateFields('x', readStateFile(hostWith({ '/s/x.state': input }), PLACE, 'x.state'));
    fields.count('lsn');
    fields.text('name');
    fields.list('list');
    fields.oneOf('state', ['on', 'off']);
  },
};

const VOLUMES = [
  { id: 1, size: 8 * 1024 * 1024 },
  { id: 2, size: 4 * 1024 * 1024 },
];

export const changeMap: FuzzTarget = {
  name: 'change-map',
  testRuns: 15_000,
  inputBytesMax: 16_384,
  words: words('TMC1', 'TMC2', 'TMC4'),
  seeds: async () => {
    const host = hostWith({});
    const map = await ChangeMap.open(host, PLACE, VOLUMES);
    map.mark(1, 200, 4000);
    await map.save({ fromLsn: 3, toLsn: 9, address: 4096, announcedLsn: 0 });
    await map.close();
    const file = host.disk.files.get('/s/change-map.state')!;
    return [file.bytes.subarray(0, file.length)];
  },
  fix: (input) => {
    const half = Math.floor(input.length / 2);
    for (const at of [0, half]) {
      const slot = input.subarray(at, at + half);
      if (slot.length >= 56) viewOf(slot).setUint32(4, crc32(slot.subarray(8)), true);
    }
  },
  run: async (input) => {
    const map = await ChangeMap.open(hostWith({ '/s/change-map.state': input }), PLACE, VOLUMES);
    must(map.markedGranules <= 8 * 1024, 'no more is marked than there is');
    map.mark(2, 0, 8);
    await map.save(map.givenUp);
    await map.close();
  },
};

const GROUP_FILES = ['position', 'state', 'segments', 'index', 'base'];

/** A whole replica directory: every file a part, in the order of `wholeFiles`. */
export const replicaDirectory: FuzzTarget = {
  name: 'replica-directory',
  testRuns: 150,
  parts: true,
  inputBytesMax: 300_000,
  allocatedBytesMax: 256 * 1024 * 1024,
  words: MAGICS,
  seeds: () => [packParts(wholeFiles().map((name) => golden(name)))],
  fix: (input, random) => {
    const names = wholeFiles();
    for (const [i, part] of unpackParts(input).entries()) {
      if (names[i]?.endsWith('.seg') === true) sealSegment(part, random);
      if (names[i]?.endsWith('.run') === true) sealRun(part);
      if (names[i] === 'position') positionMark.fix?.(part, random);
    }
  },
  run: async (input) => {
    const names = wholeFiles();
    const files: Record<string, Uint8Array> = {};
    for (const [i, part] of unpackParts(input).entries()) {
      const name = names[i];
      if (name !== undefined && part.length > 0) files[`/r/${name}`] = part;
    }
    const host = hostWith(files);
    const group = await ReplicaGroup.open(host, goldenReplicaOptions('/r'));
    try {
      const { headLsn, floorLsn } = group;
      const view = group.openView({ lsn: Math.max(floorLsn, headLsn - 3), owner: 'fuzz', scratchBytesMax: 0 });
      for (const { device } of view.volumes) await device.read(0, Buffer.alloc(32 * 1024));
      await group.status();
    } finally {
      await group.close();
    }
  },
};

function wholeFiles(): string[] {
  return GROUP_FILES.flatMap((name) =>
    name === 'position' || name === 'state' ? [name] : goldenFiles(name).map((file) => `${name}/${file}`),
  );
}
