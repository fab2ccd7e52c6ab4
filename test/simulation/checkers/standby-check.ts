import { type Lsn, SECTOR_BYTES } from '../../../journal/position.ts';
import { STAMP_NAME, type StandbyStamp } from '../../../replica/standby/standby-stamp.ts';
import type { SimulatedMachine } from '../../doubles/simulated-machine.ts';
import type { History } from '../history.ts';
import { REPLICA_DIRECTORY } from '../names.ts';
import { FOREIGN_SECTOR, identifySectors } from '../sector-pattern.ts';
import type { SourceModel } from '../source-model.ts';
import { must } from '../violation.ts';

const DIRECTORY = `${REPLICA_DIRECTORY}/standby`;

/** The standby image as a machine that went down has left it, read without any of the product's code. Only looks. */
export class StandbyCheck {
  readonly #machine: SimulatedMachine;
  readonly #model: SourceModel;
  readonly #isSeeded: (volume: number) => boolean;
  /** What the replica has said is in the image and synced. */
  #toldLsn: Lsn = 0;
  #takenUnder = '';
  looked = 0;
  /** Of these, while it was copied or written again. */
  mixtures = 0;

  /** `isSeeded`: the volume began with content of its own. */
  constructor(machine: SimulatedMachine, model: SourceModel, isSeeded: (volume: number) => boolean = () => false) {
    this.#machine = machine;
    this.#model = model;
    this.#isSeeded = isSeeded;
  }

  get toldLsn(): Lsn {
    return this.#toldLsn;
  }

  told(appliedLsn: Lsn | undefined): void {
    this.#toldLsn = Math.max(this.#toldLsn, appliedLsn ?? 0);
  }

  /** Of what the replica held nothing is left behind this LSN: an image that is begun anew is one of what is left. */
  lostBehind(lsn: Lsn): void {
    this.#toldLsn = Math.min(this.#toldLsn, lsn);
  }

  /** Somebody takes a file away: the stamp that stands there now tells nothing any more. */
  taken(): void {
    this.#takenUnder = JSON.stringify(this.#stamp());
  }

  /** `headLsn`: durable at the replica. `lostPower`: what was not synced may be gone. */
  afterCrash(headLsn: Lsn, lostPower: boolean): void {
    const stamp = this.#stamp();
    if (stamp === undefined || JSON.stringify(stamp) === this.#takenUnder) return;
    this.#takenUnder = '';
    this.#model.keepUp();
    const { history } = this.#model;
    this.looked++;
    if (stamp.state === 'copying' || stamp.state === 'settling') {
      this.mixtures++;
      this.#checkMixture(stamp, Math.max(headLsn, stamp.settleToLsn));
      return;
    }
    const files = this.#files(stamp);
    if (stamp.state === 'settled') {
      must('B2', differences(files, contentAt(history, files, stamp.lsn)).size === 0, () => {
        return `the image is stamped as that of LSN ${stamp.lsn}, and is not`;
      });
      this.#checkVolumes(stamp);
      this.#checkUnsettled(stamp, stamp.lsn);
    } else if (lostPower || stamp.bootId !== this.#machine.bootId) {
      this.#checkSynced(files, Math.max(stamp.lsn, this.#toldLsn), headLsn);
    } else {
      const lsn = positionOf(history, files, stamp.lsn, headLsn);
      must('B2', lsn !== undefined, () => {
        return `the image is that of no LSN from ${stamp.lsn} to ${headLsn}, and not stamped so`;
      });
      this.#checkUnsettled(stamp, lsn);
    }
  }

  /** When it is said that all up to here is applied. `isCertain`: nothing is damaged that may tell of volumes. */
  checkAt(lsn: Lsn, isCertain: boolean): void {
    const stamp = this.#stamp();
    must('B2', stamp !== undefined, () => 'there is no stamp at the end');
    const files = this.#files(stamp);
    this.#checkVolumes(stamp);
    this.#checkUnsettled(stamp, lsn);
    const open = this.#model.history.unsettledAt(lsn, this.#isSeeded);
    const wrong = stamp.volumes.find(({ id, unsettled }) => unsettled !== '' && !open.has(id));
    must(
      'B2',
      !isCertain || wrong === undefined,
      () => `${wrong?.file} is called ${wrong?.unsettled}, and is a point at ${lsn}`,
    );
    const found = differences(files, contentAt(this.#model.history, files, lsn));
    must(
      'B2',
      found.size === 0,
      () => `the image at the end is not that of LSN ${lsn}: ${[...found].slice(0, 5).join(', ')}`,
    );
  }

  /**
   * What was told as synced may be newer now, and never older. One sector that is written later may be nobody's: there a
   * write failed in the middle. What comes behind it is not written before the stamp calls the image a mixture.
   */
  #checkSynced(files: Files, fromLsn: Lsn, headLsn: Lsn): void {
    const { history } = this.#model;
    let torn = 0;
    for (const place of differences(files, contentAt(history, files, fromLsn))) {
      const [volume = 0, sector = 0] = place.split(':').map(Number);
      const allowed = history.idsBetween(volume, sector, fromLsn, Math.min(headLsn, history.lastLsn));
      const id = files.get(volume)?.[sector] ?? 0;
      const isTorn = id === FOREIGN_SECTOR && allowed.size > 1;
      if (isTorn) torn++;
      const mayBe = isTorn ? torn === 1 : allowed.has(id);
      must('B2', mayBe, () => `${place} of the image is ${id}, older than LSN ${fromLsn}, which was synced`);
    }
  }

  /** No volume is left out that was there; one that is about to be written to may be named before. */
  #checkVolumes({ lsn, volumes }: StandbyStamp): void {
    const stamped = volumes.map(({ id }) => id);
    const left = [...this.#model.history.volumesAt(lsn)].filter((id) => !stamped.includes(id));
    must(
      'B2',
      left.length === 0,
      () => `the image of LSN ${lsn} has the volumes ${stamped.join()} and not ${left.join()}`,
    );
  }

  /** Who is no point at this LSN is stamped so. */
  #checkUnsettled({ volumes }: StandbyStamp, lsn: Lsn): void {
    const open = this.#model.history.unsettledAt(lsn, this.#isSeeded);
    const wrong = volumes.find(({ id, unsettled }) => unsettled === '' && open.has(id));
    must('B2', wrong === undefined, () => `${wrong?.file} is no point at LSN ${lsn}, and not stamped so`);
  }

  /** What a stamp counts on, though it calls the image a mixture: the next start writes only what came behind it. */
  #checkMixture(stamp: StandbyStamp, toLsn: Lsn): void {
    const { history } = this.#model;
    const isCopied = ({ id }: { readonly id: number }): boolean =>
      stamp.state !== 'copying' || (stamp.copied[id] ?? 0) > 0;
    const files = this.#files({ ...stamp, volumes: stamp.volumes.filter(isCopied) });
    for (const place of differences(files, contentAt(history, files, stamp.lsn))) {
      const [volume = 0, sector = 0] = place.split(':').map(Number);
      if (stamp.state === 'copying' && sector * SECTOR_BYTES >= (stamp.copied[volume] ?? 0)) continue;
      const id = files.get(volume)?.[sector] ?? 0;
      const allowed = history.idsBetween(volume, sector, stamp.lsn, Math.min(toLsn, history.lastLsn));
      // a write that failed in the middle; what it was is written again
      const isTorn = id === FOREIGN_SECTOR && stamp.state === 'settling' && allowed.size > 1;
      must('B2', isTorn || allowed.has(id), () => {
        return `${place} of the image that is ${stamp.state} from LSN ${stamp.lsn} on is ${id}, older than that`;
      });
    }
  }

  #stamp(): StandbyStamp | undefined {
    const bytes = this.#read(STAMP_NAME);
    if (bytes === undefined) return undefined;
    return JSON.parse(Buffer.from(bytes).toString('utf8').split('\n')[0] ?? '') as StandbyStamp;
  }

  #files(stamp: StandbyStamp): Files {
    return new Map(
      stamp.volumes.map(({ id, file, sizeBytes }) => {
        const bytes = this.#read(file) ?? new Uint8Array(0);
        must('B2', bytes.length === sizeBytes, () => `${file} has ${bytes.length} bytes, its volume ${sizeBytes}`);
        return [id, identifySectors(bytes, id, 0)];
      }),
    );
  }

  #read(name: string): Uint8Array | undefined {
    const content = this.#machine.disk.files.get(`${DIRECTORY}/${name}`);
    if (content === undefined) return undefined;
    const bytes = new Uint8Array(content.size);
    content.read(bytes, 0);
    return bytes;
  }
}

/** By volume: whose bytes stand in each sector. */
type Files = ReadonlyMap<number, Uint32Array>;

function contentAt(history: History, files: Files, lsn: Lsn): Map<number, Uint32Array> {
  return new Map(
    [...files].map(([id, ids]) => [id, history.rangeAt(Math.min(lsn, history.lastLsn), id, 0, ids.length)]),
  );
}

/** `volume:sector` of every sector that is another one. */
function differences(files: Files, expected: Files): Set<string> {
  const found = new Set<string>();
  for (const [id, ids] of files) {
    const wanted = expected.get(id) as Uint32Array;
    for (let sector = 0; sector < ids.length; sector++)
      if (ids[sector] !== wanted[sector]) found.add(`${id}:${sector}`);
  }
  return found;
}

/** Right behind which record it is so; the record behind that may have come in part. Undefined: behind none. */
function positionOf(history: History, files: Files, fromLsn: Lsn, headLsn: Lsn): Lsn | undefined {
  const content = contentAt(history, files, fromLsn);
  const wrong = differences(files, content);
  if (wrong.size === 0) return fromLsn;
  for (let lsn = fromLsn + 1; lsn <= Math.min(headLsn, history.lastLsn); lsn++) {
    const changes = history.record(lsn)?.changes ?? [];
    const touched = new Set(
      changes.flatMap(({ volume, sector, ids }) => Array.from(ids, (_, at) => `${volume}:${sector + at}`)),
    );
    if ([...wrong].every((place) => touched.has(place))) return lsn - 1;
    for (const { volume, sector, ids } of changes) {
      const [file, known] = [files.get(volume), content.get(volume)];
      if (file === undefined || known === undefined) continue;
      known.set(ids, sector);
      for (let at = sector; at < sector + ids.length; at++) {
        if (file[at] === known[at]) wrong.delete(`${volume}:${at}`);
        else wrong.add(`${volume}:${at}`);
      }
    }
    if (wrong.size === 0) return lsn;
  }
  return undefined;
}
