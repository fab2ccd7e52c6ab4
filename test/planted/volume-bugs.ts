import type { PlantedBug } from './planted-bug.ts';
import { both, failingBackings, inPieces, striking, zeroing } from './striking.ts';

const GROUP = 'test/volume/group.test.ts';
const ROOM = 'test/volume/room-and-seed.test.ts';

/** Bugs in what guests write to: volumes, overlays, backings. */
export const VOLUME_BUGS: readonly PlantedBug[] = [
  {
    name: 'a bookmark is told before it is durable',
    rules: [1],
    invariant: 'R5',
    changes: [
      {
        file: 'daemon/volume/protected-group.ts',
        find: '    await this.#syncs.sync();\n    return { lsn: appended.firstLsn',
        replace: '    await Promise.resolve();\n    return { lsn: appended.firstLsn',
      },
    ],
    noticedBy: { simulation: striking('power-source') },
    quick: true,
  },
  {
    name: 'what a power loss takes away stands in for what was written out',
    rules: [8],
    invariant: 'D3',
    changes: [
      {
        file: 'daemon/volume/protected-group.ts',
        find: "opened.byId(volume)?.overlay.isNewer(sector, sector + sectors, stamp, marks.address('durable')) === true",
        replace: 'opened.byId(volume)?.overlay.isNewer(sector, sector + sectors, stamp, Infinity) === true',
      },
    ],
    noticedBy: {
      test: 'test/volume/overwritten.test.ts',
      title: 'what is not durable stands in for nothing: a power loss may take it away',
    },
  },
  {
    name: 'a write with FUA is answered like any other',
    rules: [1],
    invariant: 'D3',
    changes: [
      {
        file: 'daemon/volume/volume-client.ts',
        find: '(flags[index]! & CommandFlag.fua) !== 0) {',
        replace: '(flags[index]! & CommandFlag.fua) === CommandFlag.fua + 1) {',
      },
    ],
    noticedBy: { simulation: striking('power-source') },
  },
  {
    name: 'a piece is read before its request is whole',
    rules: [5],
    invariant: 'D6',
    changes: [
      {
        file: 'daemon/volume/volume-client.ts',
        find: '          this.#pieces.push({ start, end, source });\n',
        replace: '          overlay.insert(start, end, source, stamp);\n',
      },
    ],
    noticedBy: { simulation: both(striking('kill-source'), inPieces) },
  },
  {
    name: 'the checkpoint passes an open request',
    rules: [5, 9],
    invariant: 'D1',
    changes: [
      {
        file: 'daemon/volume/destager.ts',
        find: '    const open = this.#positionOpen;',
        replace: '    const open = this.#positionOpen === undefined ? undefined : this.#position;',
      },
    ],
    noticedBy: { simulation: both(striking('kill-source'), inPieces) },
  },
  {
    name: 'a request goes on over a restart of its source',
    rules: [5],
    invariant: 'D8',
    changes: [
      {
        file: 'journal/piece-assembler.ts',
        find: '      this.#open.clear();\n      return [];',
        replace: '      return [];',
      },
    ],
    noticedBy: { simulation: both(striking('kill-source'), inPieces) },
  },
  {
    name: 'a restart replays what the backings hold already',
    rules: [5, 9],
    invariant: 'D1',
    changes: [
      {
        file: 'daemon/volume/recovery-replay.ts',
        find: '        if (effect.stamp < options.applied) return;\n',
        replace: '',
      },
    ],
    noticedBy: {
      test: GROUP,
      title: 'a restart whose replay begins in the middle of a closed request keeps all of it',
    },
    masked: {
      by: 'the overlays, which forget at once what the backings hold',
      changes: [
        {
          file: 'daemon/volume/group-open.ts',
          find: "    volume.overlay.deadBelow = this.#marks.address('applied');",
          replace: "    volume.overlay.deadBelow = this.#marks.address('checkpoint');",
        },
        {
          file: 'daemon/volume/protected-group.ts',
          find: '    if (applied !== this.#forgotten) {',
          replace: '    if (applied !== this.#forgotten && applied > this.#opened.writtenOut.applied.address) {',
        },
      ],
    },
  },
  {
    name: 'writing out begins again and writes over what is newer',
    rules: [5, 9],
    invariant: 'D1',
    changes: [
      {
        file: 'daemon/volume/destager.ts',
        find: '          if (effect.stamp >= this.#applied.address) this.#pending.push(effect);',
        replace: '          this.#pending.push(effect);',
      },
    ],
    noticedBy: {
      test: GROUP,
      title: 'beginning again below an open request does not write again what the backing holds safely',
    },
  },
  {
    name: 'a trim is not read as zeroes before it reaches the disk',
    rules: [10],
    invariant: 'D8',
    changes: [
      {
        file: 'daemon/volume/volume-client.ts',
        find: '        overlay.insert(start, end, ZERO_SOURCE, stamp);',
        replace: '        if (kind[index] !== WindowKind.trim) overlay.insert(start, end, ZERO_SOURCE, stamp);',
      },
    ],
    noticedBy: { simulation: both(striking('kill-source'), zeroing) },
    quick: true,
  },
  {
    name: 'a trim never reaches the backing',
    rules: [10],
    invariant: 'D8',
    changes: [
      {
        file: 'daemon/volume/destager.ts',
        find: '      this.#window.zero(device, effect.sector, effect.sectors, keep);',
        replace:
          '      if (effect.kind === RecordKind.zero) this.#window.zero(device, effect.sector, effect.sectors, keep);',
      },
    ],
    noticedBy: { simulation: both(striking('kill-source'), zeroing) },
  },
  {
    name: 'holes are read one sector at a time: a terabyte of trim holds everybody up',
    rules: [10],
    invariant: 'D8',
    changes: [
      {
        file: 'daemon/backing/file-backing.ts',
        find: '    if (!this.#isBlockDevice && mayUnmap && this.#punches) {',
        replace: '    if (!this.#isBlockDevice && mayUnmap && this.#punches && length < 0) {',
      },
    ],
    noticedBy: {
      test: 'test/backing/backing.test.ts',
      title: 'a trim gives the space of a file back, zeroes that must stay allocated do not',
    },
  },
  {
    name: 'the checkpoint moves before the backings are synced',
    rules: [9],
    invariant: 'D2',
    changes: [
      {
        file: 'daemon/volume/destager.ts',
        find: '[...this.#dirty].map((device) => device.flush())',
        replace: '[...this.#dirty].map((device) => Promise.resolve(device.size))',
      },
    ],
    noticedBy: { simulation: striking('power-source') },
  },
  {
    name: 'a backing that failed does not get again what it forgot',
    rules: [9],
    invariant: 'D2',
    changes: [
      {
        file: 'daemon/volume/destager.ts',
        find: '    this.#reader.seek(this.#checkpoint.address);\n    this.#position = this.#checkpoint;',
        replace: '    this.#checkpoint = this.#position;\n    this.#reader.seek(this.#checkpoint.address);',
      },
    ],
    noticedBy: { test: GROUP, title: 'a backing that fails and forgets gets everything again; guests notice nothing' },
  },
  {
    name: 'a failed sync of a backing counts as done',
    rules: [9, 14],
    invariant: 'D2',
    changes: [
      {
        file: 'daemon/volume/destager.ts',
        find: "    for (const result of results) if (result.status === 'rejected') throw result.reason;\n    const checkpoint",
        replace: '    const checkpoint',
      },
    ],
    noticedBy: { simulation: both(striking('power-source'), failingBackings) },
  },
  {
    name: 'overlapping writes to a backing are under way together',
    rules: [9],
    invariant: 'D1',
    changes: [
      {
        file: 'daemon/volume/destager.ts',
        find: '        if (moved) await this.#writeWindow();',
        replace: '        if (moved) void this.#writeWindow();',
      },
    ],
    noticedBy: { simulation: striking('kill-source') },
  },
  {
    name: 'a slow read of the backing misses what was written meanwhile',
    rules: [9],
    invariant: 'D6',
    changes: [
      {
        file: 'daemon/volume/protected-volume.ts',
        find: '    if (this.changes === changes) return;',
        replace: '    if (this.changes >= changes) return;',
      },
    ],
    noticedBy: { test: GROUP, title: 'a read under way on the backing misses nothing that is acknowledged meanwhile' },
  },
  {
    name: 'the overlay forgets what is not in the backing yet',
    rules: [9],
    invariant: 'D6',
    changes: [
      {
        file: 'daemon/volume/protected-group.ts',
        find: "    const applied = this.#marks.address('applied');",
        replace: "    const applied = this.#marks.address('durable');",
      },
    ],
    noticedBy: { simulation: striking('kill-source') },
  },
  {
    name: 'a disk that was written to behind our back is taken',
    rules: [8],
    invariant: 'D1',
    changes: [
      {
        file: 'daemon/backing/backing-stamp.ts',
        find: "  if (stamp.state !== 'dirty' && identity.modifiedNanos !== found.modifiedNanos) {",
        replace: "  if (stamp.state === 'detached' && identity.modifiedNanos === '') {",
      },
    ],
    noticedBy: {
      test: GROUP,
      title: 'a disk that was written to while nobody looked is refused; one that was not is taken back',
    },
  },
  {
    name: 'a volume is detached before all of it is on its disk',
    rules: [8],
    invariant: 'D1',
    changes: [
      {
        file: 'daemon/volume/group-detach.ts',
        find: '      await destager.drainTo(journal.lastLsn);\n    } catch',
        replace: '    } catch',
      },
    ],
    noticedBy: {
      test: GROUP,
      title: 'a detached volume is a plain disk with everything in it, and comes back if nobody wrote to it',
    },
  },
  {
    name: 'a disk with content is taken without a seed',
    rules: [11],
    invariant: 'P1',
    changes: [
      {
        file: 'daemon/volume/group-open.ts',
        find: '!(await isEmpty(wanted.backing))',
        replace: 'wanted.backing.size < 0',
      },
    ],
    noticedBy: {
      test: ROOM,
      title: 'a disk that is not empty is refused without a seed; with one, all of it but zeroes is journalled first',
    },
  },
  {
    name: 'remote guests are let on after a power loss',
    rules: [12],
    invariant: 'D2',
    changes: [
      {
        file: 'daemon/volume/remote-hold.ts',
        find: 'const lostPower = report.bootChanged && !report.cleanStop;',
        replace: 'const lostPower = report.bootChanged && report.cleanStop;',
      },
    ],
    noticedBy: {
      test: GROUP,
      title: 'after a power loss remote guests stay out until they are released; local ones are let on',
    },
  },
  {
    name: 'the hold on remote guests ends with the next restart',
    rules: [12],
    invariant: 'D2',
    changes: [
      {
        file: 'daemon/volume/remote-hold.ts',
        find: '    if (hold.held && !before) await writeStateFile(host, place, NAME, { afterLsn: report.lastLsn });\n',
        replace: '',
      },
    ],
    noticedBy: {
      test: GROUP,
      title: 'after a power loss remote guests stay out until they are released; local ones are let on',
    },
  },
  {
    name: 'history is given up without noting what changed',
    rules: [13],
    invariant: 'P3',
    changes: [
      {
        file: 'daemon/volume/group-retention.ts',
        find: '          if (changesVolume(record.kind)) markChange(map, record);',
        replace: '          if (!changesVolume(record.kind)) map.mark(record.volume, record.sector, record.sectors);',
      },
    ],
    noticedBy: {
      test: ROOM,
      title: 'out of room with the policy stop-protecting: the guest goes on, what was given up is known and recorded',
    },
  },
  {
    name: 'history that is given up leaves no record of it',
    rules: [13],
    invariant: 'P3',
    changes: [
      {
        file: 'daemon/volume/group-retention.ts',
        find: '    this.#journal.append(RecordKind.gap, { body: encodeGap({ fromLsn, toLsn, reason: GAP_REASON }) });\n',
        replace: '    void [encodeGap({ fromLsn, toLsn, reason: GAP_REASON }), RecordKind.gap];\n',
      },
    ],
    noticedBy: {
      test: ROOM,
      title: 'out of room with the policy stop-protecting: the guest goes on, what was given up is known and recorded',
    },
  },
  {
    name: 'a seed gives history up, its own first',
    rules: [11, 13],
    invariant: 'P3',
    changes: [
      {
        file: 'daemon/volume/group-retention.ts',
        find: "if (this.#options.outOfRoom !== 'stop-protecting') return true;",
        replace: 'if (this.#options.outOfRoom !== undefined) return true;',
      },
    ],
    noticedBy: {
      test: ROOM,
      title:
        'a seed with the policy stop-protecting waits for the stream: it gives up no history, its own least of all',
    },
  },
  {
    name: 'a group that failed by its surroundings is not started again',
    rules: [14],
    invariant: 'D4',
    changes: [
      {
        file: 'daemon/worker/group-host.ts',
        find: "const restarting = operating && error.next !== 'ask-operator' && !this.#stopping;",
        replace: "const restarting = operating && error.next === 'ask-operator' && !this.#stopping;",
      },
    ],
    noticedBy: {
      test: 'test/worker/group-host.test.ts',
      title: 'what the surroundings did is recovered from by a new worker; what needs a person is not',
    },
  },
];
