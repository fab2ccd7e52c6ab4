import type { SourceGroupConfig } from '../../../daemon/config/config-types.ts';
import type { ShipStatus } from '../../../daemon/ship/ship-status.ts';
import { sourceGroupReply } from '../../../daemon/source/source-status.ts';
import { LOCAL_POLICY } from '../../../daemon/synchrony/degree-policy.ts';
import { sourceConditions } from '../../../daemon/telemetry/alarm-conditions.ts';
import type { ProtectedGroup } from '../../../daemon/volume/protected-group.ts';
import { hasCode } from '../../../journal/base/errors.ts';
import type { SimulatedDisk } from '../../doubles/simulated-disk.ts';
import { GROUP_ID, GROUP_NAME, JOURNAL_DIRECTORY } from '../names.ts';
import type { RunOptions } from '../run-options.ts';
import { must } from '../violation.ts';

/** Alarms that say to a person that the journal is short of room, or why nothing leaves it. */
const ROOM_ALARMS: readonly string[] = [
  'journal-space',
  'group-blocked',
  'unprotected',
  'group-failed',
  'backing-failed',
];

/** What a journal says whose file system has room: the reserve is beside the budget. */
const SPENT = 'it has used its budget';

/**
 * A journal that runs out of room: while a guest is held back for that an alarm is raised, by the product’s
 * own words about its status, and what is kept in reserve is there for control records. Only looks.
 */
export class RoomTold {
  readonly #disk: SimulatedDisk;
  readonly #options: RunOptions;
  readonly #config: SourceGroupConfig;

  constructor(disk: SimulatedDisk, options: RunOptions) {
    this.#disk = disk;
    this.#options = options;
    const { journalFileBytes: fileBytes, journalFiles, overlayBytesMax, life } = options;
    this.#config = {
      name: GROUP_NAME,
      journal: { directory: JOURNAL_DIRECTORY, fileBytes, budgetBytes: journalFiles * fileBytes, syncIntervalMs: 25 },
      volumes: [],
      listen: { unix: '', tcp: null } as unknown as SourceGroupConfig['listen'],
      afterPowerLoss: 'serve',
      stream: { direct: null, kafka: null } as unknown as SourceGroupConfig['stream'],
      replicas: [],
      outOfRoom: life.outOfRoom,
      overlayMemoryBytes: overlayBytesMax,
      settleTimeoutMs: 3000,
      heartbeatMs: 1000,
      shipDelayMs: 0,
      degree: LOCAL_POLICY,
    };
  }

  look(group: ProtectedGroup, shipping: () => ShipStatus | undefined): void {
    const status = group.status();
    const { reason } = status;
    must('V5', !(reason.startsWith('history cannot be given up') && reason.includes(SPENT)), () => reason);
    const overlays = status.volumes.reduce((sum, { overlayBytes }) => sum + overlayBytes, 0);
    const byMemory = overlays / this.#options.overlayBytesMax;
    // a guest that waits is let go below nine tenths; what memory holds back is no matter of the journal
    const isHeld = status.clientsHeldBack > 0 && status.pressure >= 0.9 && byMemory < 0.9;
    const ship = isHeld ? shipping() : undefined;
    if (ship === undefined) return;
    const facts = { config: this.#config, groupId: GROUP_ID, journal: group.journal, group: status, ship };
    const counters = {} as Parameters<typeof sourceGroupReply>[0]['counters'];
    const none = {
      exports: new Map(),
      uriOf: () => '',
      listen: '',
      clients: 0,
      notes: [],
      counters,
      bytesPerSecond: null,
      nowMicros: 0,
    };
    const codes = sourceConditions([sourceGroupReply({ ...facts, ...none })]).map(({ code }) => code);
    must(
      'V5',
      codes.some((code) => ROOM_ALARMS.includes(code)),
      () => {
        const { journalFreeBytes, journalUsedBytes, pressure } = status;
        const room = `${journalUsedBytes} bytes used, ${journalFreeBytes} free, pressure ${pressure.toFixed(2)}`;
        return `guests wait for room in the journal (${room}); alarms: ${codes.join() || 'none'}`;
      },
    );
  }

  /** A control record could not be appended: it may use the reserve, and the file system has room. */
  controlRefused(error: unknown): void {
    if (!hasCode(error, 'journal-full')) return;
    const free = this.#disk.freeBytes();
    must('V5', free < this.#options.journalFileBytes, () => `${error.message}; ${free} bytes are free`);
  }
}
