import { assert } from '../../journal/base/assert.ts';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import { clearAway, isDirectory } from './clear-away.ts';
import type { PayloadLocation } from './entry-format.ts';
import type { IndexGap, RebuildIndex } from './index-gap.ts';
import { LookupWindow, type VersionPart, WINDOW_SECTORS_MAX } from './lookup-window.ts';
import { Memtable } from './memtable.ts';
import { mergeRuns, pickMerge, writeMemtable } from './merge.ts';
import { PageCache } from './page-cache.ts';
import { RunFile } from './run-file.ts';
import { PAGE_BYTES, parseRunName } from './run-format.ts';
import { paintNow, type Version } from './searched.ts';
import { sortedMemtable, sortedRun, surveyed } from './survey.ts';

export interface VersionIndexOptions {
  readonly directory: string;
  readonly groupId: string;
  /** Everything at or below is in the base. */
  readonly floorLsn: Lsn;
  /** The newest LSN in the segments: a run beyond it was written before they were synced, and is dropped. */
  readonly headLsn: Lsn;
  /** Runs that reach this LSN or beyond lack records, and are built again; absent: none do. */
  readonly unindexedFrom?: Lsn | undefined;
  /** Pages of runs kept in memory. */
  readonly cacheBytesMax: number;
  /** Entries in memory before they become a run: about 45 bytes each, twice (one being written). */
  readonly memtableEntries: number;
}

/**
 * Which bytes are the newest version of a range at or before a position: a log-structured merge tree whose levels are
 * LSN ranges. The newest entries lie in a memtable, older ones in immutable runs; a lookup goes from the newest run to
 * the oldest until every sector has a version, and what none has is in the base. Runs can be rebuilt from the
 * segments at any time: `gaps` says what has to be fed again after opening, and a run found damaged is
 * rebuilt by `rebuild`, which the owner gives in.
 */
export class VersionIndex {
  readonly #host: Host;
  readonly #options: VersionIndexOptions;
  readonly #cache: PageCache;
  #floorLsn: Lsn;
  #version: Version;
  /** Superseded versions that still have readers. */
  readonly #retired = new Set<Version>();
  #flushing: Promise<void> | undefined;
  #merging: Promise<void> | undefined;
  #frozenOpenFrom: Lsn = 0;
  readonly #rebuild: RebuildIndex;
  #closed = false;
  /** Why the last merge in the background failed; empty while all is well. */
  mergeFailure = '';

  private constructor(
    host: Host,
    options: VersionIndexOptions,
    rebuild: RebuildIndex,
    cache: PageCache,
    runs: readonly RunFile[],
  ) {
    this.#host = host;
    this.#rebuild = rebuild;
    this.#options = options;
    this.#cache = cache;
    this.#floorLsn = options.floorLsn;
    const base = runs.at(-1)?.footer.lastLsn ?? options.floorLsn;
    this.#version = { active: new Memtable(base, options.memtableEntries), frozen: undefined, runs, readers: 0 };
  }

  /** Opens the runs that are whole, deletes leftovers of merges and damaged runs. `journal-foreign` is thrown. */
  static async open(host: Host, options: VersionIndexOptions, rebuild: RebuildIndex): Promise<VersionIndex> {
    host.disk.makeDirectory(options.directory);
    const cache = new PageCache(options.cacheBytesMax, PAGE_BYTES);
    const newest = Math.min(options.headLsn, (options.unindexedFrom ?? Number.POSITIVE_INFINITY) - 1);
    const found: { name: string; baseLsn: Lsn; lastLsn: Lsn }[] = [];
    for (const name of host.disk.list(options.directory)) {
      const range = parseRunName(name);
      const wanted = range !== undefined && range.lastLsn > options.floorLsn && range.lastLsn <= newest;
      if (wanted) found.push({ name, ...range });
      else if (range !== undefined || name.endsWith('.tmp')) clearAway(host, `${options.directory}/${name}`);
    }
    // The longest of those that begin at one place is the merge of the others.
    found.sort((a, b) => a.baseLsn - b.baseLsn || b.lastLsn - a.lastLsn);
    const runs: RunFile[] = [];
    for (const { name, baseLsn, lastLsn } of found) {
      const covered = runs.at(-1)?.footer.lastLsn ?? 0;
      const path = `${options.directory}/${name}`;
      if (lastLsn <= covered || (baseLsn < covered && runs.length > 0)) {
        clearAway(host, path);
        continue;
      }
      try {
        runs.push(await RunFile.open(host, path, options.groupId, cache));
      } catch (error) {
        if (!hasCode(error, 'journal-damaged') && !isDirectory(error)) throw error;
        clearAway(host, path);
      }
    }
    // A run that is not wanted may lack records, or have those of a history that was cut: it must not come back.
    await host.disk.syncDirectory(options.directory);
    return new VersionIndex(host, options, rebuild, cache, runs);
  }

  /** Stretches before the newest run that have to be rebuilt, in order. What comes behind `indexedLsn` is simply fed. */
  gaps(): IndexGap[] {
    const gaps: IndexGap[] = [];
    let covered = this.#floorLsn;
    let fromLsn = 0;
    for (const run of this.#version.runs) {
      if (run.footer.baseLsn > covered) gaps.push({ baseLsn: covered, lastLsn: run.footer.baseLsn, fromLsn });
      covered = run.footer.lastLsn;
      fromLsn = run.footer.openFromLsn;
    }
    return gaps;
  }

  /** Everything at or below is in runs; feeding begins behind it. */
  get durableLsn(): Lsn {
    return this.#version.runs.at(-1)?.footer.lastLsn ?? this.#floorLsn;
  }

  /** Where to begin reading so that what is fed behind `durableLsn` has all its pieces; 0: at the oldest segment. */
  get feedFromLsn(): Lsn {
    return this.#version.runs.at(-1)?.footer.openFromLsn ?? 0;
  }

  get floorLsn(): Lsn {
    return this.#floorLsn;
  }

  /** One version of a range; extents come in LSN order. `location` absent: zeroes. */
  add(volume: number, sector: number, sectors: number, lsn: Lsn, location: PayloadLocation | undefined): void {
    this.#version.active.add(volume, sector, sectors, lsn, location);
  }

  /** Everything up to `lsn` has been added. */
  advance(lsn: Lsn): void {
    this.#version.active.lastLsn = lsn;
  }

  get memtableFull(): boolean {
    return this.#version.active.count >= this.#options.memtableEntries;
  }

  /**
   * Turns the memtable into a run in the background; waits for the one before, and tries again when that failed
   * (no-space). `openFromLsn`: the lowest LSN of a piece whose request is still open at the last LSN added, else the
   * LSN behind it.
   */
  async rotate(openFromLsn: Lsn): Promise<void> {
    await this.settled();
    const { active, runs } = this.#version;
    if (active.lastLsn === active.baseLsn) return;
    this.#frozenOpenFrom = openFromLsn;
    this.#replace({ active: new Memtable(active.lastLsn, this.#options.memtableEntries), frozen: active, runs });
    this.#startFlush();
  }

  /** Waits until what was rotated is a durable run. */
  async settled(): Promise<void> {
    if (this.#flushing === undefined && this.#version.frozen !== undefined) this.#startFlush();
    await this.#flushing;
  }

  /** Waits until no merge runs. */
  async quiet(): Promise<void> {
    await this.settled();
    while (this.#merging !== undefined) await this.#merging;
  }

  /** The newest version at or below `atLsn` of every sector; parts in order that cover the range exactly. */
  async lookup(volume: number, sector: number, sectors: number, atLsn: Lsn): Promise<VersionPart[]> {
    assert(sectors > 0 && sectors <= WINDOW_SECTORS_MAX, 'a lookup spans 1 to 512 sectors');
    const window = new LookupWindow(sector, sectors);
    const version = this.#acquire();
    const floorLsn = this.#floorLsn;
    try {
      version.active.paint(window, volume, atLsn, floorLsn);
      if (!window.complete) version.frozen?.paint(window, volume, atLsn, floorLsn);
      for (let i = version.runs.length - 1; i >= 0 && !window.complete; i -= 1) {
        const run = version.runs[i];
        if (run === undefined || run.footer.baseLsn >= atLsn) continue;
        try {
          await run.paint(window, volume, atLsn, floorLsn);
        } catch (error) {
          await this.#repair(run, error);
          return await this.lookup(volume, sector, sectors, atLsn);
        }
      }
      return window.parts();
    } finally {
      await this.#release(version);
    }
  }

  /** As `lookup` when nothing has to be waited for, else undefined. */
  lookupNow(volume: number, sector: number, sectors: number, atLsn: Lsn): VersionPart[] | undefined {
    const window = new LookupWindow(sector, sectors);
    return paintNow(this.#version, window, volume, atLsn, this.#floorLsn) ? window.parts() : undefined;
  }

  /** As `lookup` for a range of any length, part by part; empty stretches of any size cost one step each. */
  async *survey(volume: number, sector: number, sectors: number, atLsn: Lsn): AsyncGenerator<VersionPart> {
    const end = sector + sectors;
    for (let at = sector; at < end; ) {
      const version = this.#acquire();
      const { active, frozen, runs } = version;
      try {
        const sources = [sortedMemtable(active), ...(frozen === undefined ? [] : [sortedMemtable(frozen)])];
        for (const run of runs) if (run.footer.baseLsn < atLsn) sources.push(sortedRun(run));
        for await (const part of surveyed(sources, volume, at, end, atLsn, this.#floorLsn)) {
          yield part;
          at = part.sector + part.sectors;
        }
      } catch (error) {
        const damaged = damagedOf(runs, error);
        if (damaged === undefined) throw error;
        await this.#repair(damaged, error);
      } finally {
        await this.#release(version);
      }
    }
  }

  /** Fills a gap that `gaps` named. */
  async fill(gap: IndexGap): Promise<void> {
    const built = await this.#build(gap);
    const { active, frozen, runs } = this.#version;
    const at = runs.findIndex((run) => run.footer.baseLsn >= gap.lastLsn);
    const place = at < 0 ? runs.length : at;
    this.#replace({ active, frozen, runs: [...runs.slice(0, place), ...built, ...runs.slice(place)] });
  }

  /**
   * The floor has moved: versions at or below it are the base's now. Whole runs below it go at once; a run that is
   * mostly below it is written again.
   */
  async moveFloor(lsn: Lsn): Promise<void> {
    assert(lsn >= this.#floorLsn, 'the floor of an index never goes back');
    this.#floorLsn = lsn;
    await this.quiet();
    const { active, frozen, runs } = this.#version;
    const kept = runs.filter((run) => run.footer.lastLsn > lsn);
    if (kept.length < runs.length) {
      this.#replace({ active, frozen, runs: kept });
      for (const run of runs) if (!kept.includes(run)) this.#host.disk.unlink(run.path);
    }
    const oldest = kept[0];
    if (oldest !== undefined) {
      const { baseLsn, lastLsn } = oldest.footer;
      if (lsn - baseLsn > (lastLsn - baseLsn) / 2) {
        this.#startMerge([oldest]);
        await this.quiet();
      }
    }
  }

  status(): { runs: number; runBytes: number; entries: number; memtableEntries: number } {
    const { active, frozen, runs } = this.#version;
    return {
      runs: runs.length,
      runBytes: runs.reduce((sum, run) => sum + run.bytes, 0),
      entries: runs.reduce((sum, run) => sum + run.footer.entries, 0),
      memtableEntries: active.count + (frozen?.count ?? 0),
    };
  }

  /** Waits for flushes and merges, closes the runs. What is only in the memtable is fed again after the next open. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#flushing?.catch(() => undefined);
    await this.#merging;
    for (const run of this.#version.runs) await run.close();
  }

  #acquire(): Version {
    this.#version.readers += 1;
    return this.#version;
  }

  async #release(version: Version): Promise<void> {
    version.readers -= 1;
    if (version.readers === 0 && this.#retired.delete(version)) await this.#closeUnused(version);
  }

  #replace(next: Omit<Version, 'readers'>): void {
    const before = this.#version;
    this.#version = { ...next, readers: 0 };
    if (before.readers > 0) this.#retired.add(before);
    else void this.#closeUnused(before);
  }

  /** Closes the runs of a version that no other version has. */
  async #closeUnused(version: Version): Promise<void> {
    for (const run of version.runs) {
      const used = [this.#version, ...this.#retired].some((other) => other.runs.includes(run));
      if (!used) await run.close();
    }
  }

  #startFlush(): void {
    const flushing = this.#flush().finally(() => {
      this.#flushing = undefined;
    });
    // The failure is seen by whoever waits in `settled`; the memtable stays and is tried again.
    flushing.catch(() => undefined);
    this.#flushing = flushing;
  }

  async #flush(): Promise<void> {
    const { frozen } = this.#version;
    assert(frozen !== undefined, 'nothing to flush');
    const { directory, groupId } = this.#options;
    const path = await writeMemtable(this.#host, directory, groupId, frozen, this.#frozenOpenFrom);
    const run = await RunFile.open(this.#host, path, groupId, this.#cache);
    this.#replace({ active: this.#version.active, frozen: undefined, runs: [...this.#version.runs, run] });
    this.#startMerge();
  }

  #startMerge(picked = pickMerge(this.#version.runs, this.#options.memtableEntries)): void {
    if (this.#merging !== undefined || this.#closed || picked === undefined) return;
    const merged = this.#merge(picked).then(
      () => {
        this.mergeFailure = '';
      },
      (error: unknown) => {
        const damaged = damagedOf(picked, error);
        if (damaged === undefined) throw error;
        return this.#rebuildRun(damaged);
      },
    );
    // a damaged run that cannot be built again now is built by the next who needs it
    const failed = (error: unknown): boolean => {
      if (!(error instanceof TidemarkError)) throw error;
      this.mergeFailure = error.message;
      return false;
    };
    const ended = (again: boolean): void => {
      this.#merging = undefined;
      if (again) this.#startMerge();
    };
    this.#merging = merged.then(() => true, failed).then(ended);
  }

  async #merge(picked: readonly RunFile[]): Promise<void> {
    const { directory, groupId } = this.#options;
    const path = await mergeRuns(this.#host, directory, groupId, picked, this.#floorLsn);
    const merged = await RunFile.open(this.#host, path, groupId, this.#cache);
    const { active, frozen, runs } = this.#version;
    const at = runs.indexOf(picked[0] as RunFile);
    assert(at >= 0, 'a merged run left the index meanwhile');
    this.#replace({ active, frozen, runs: [...runs.slice(0, at), merged, ...runs.slice(at + picked.length)] });
    for (const run of picked) if (run.path !== path) this.#host.disk.unlink(run.path);
  }

  /** Builds a damaged run again from the segments; anything but damage is thrown on. */
  async #repair(run: RunFile, error: unknown): Promise<void> {
    if (!hasCode(error, 'journal-damaged')) throw error;
    while (this.#merging !== undefined) await this.#merging;
    // Somebody else has repaired or merged it meanwhile: look again.
    if (!this.#version.runs.includes(run)) return;
    const repairing = this.#rebuildRun(run).finally(() => {
      this.#merging = undefined;
    });
    this.#merging = repairing.catch(() => undefined);
    await repairing;
  }

  async #rebuildRun(run: RunFile): Promise<void> {
    const at = this.#version.runs.indexOf(run);
    const fromLsn = this.#version.runs[at - 1]?.footer.openFromLsn ?? 0;
    const { baseLsn, lastLsn } = run.footer;
    const built = await this.#build({ baseLsn: Math.max(baseLsn, this.#floorLsn), lastLsn, fromLsn });
    const { active, frozen, runs } = this.#version;
    this.#replace({ active, frozen, runs: runs.flatMap((other) => (other === run ? built : [other])) });
    if (!built.some((other) => other.path === run.path)) this.#host.disk.unlink(run.path);
  }

  async #build(gap: IndexGap): Promise<RunFile[]> {
    const { directory, groupId } = this.#options;
    const built: RunFile[] = [];
    await this.#rebuild(gap, async (memtable, openFromLsn) => {
      const path = await writeMemtable(this.#host, directory, groupId, memtable, openFromLsn);
      built.push(await RunFile.open(this.#host, path, groupId, this.#cache));
    });
    assert(built.at(-1)?.footer.lastLsn === gap.lastLsn, 'a rebuilt run ends elsewhere');
    return built;
  }
}

function damagedOf(runs: readonly RunFile[], error: unknown): RunFile | undefined {
  return runs.find((run) => hasCode(error, 'journal-damaged') && error.message.startsWith(run.path));
}
