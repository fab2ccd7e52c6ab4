import type { GiveUpReply } from '../../daemon/control/control-api.ts';
import { type GivenWord, readGivenWord, writeGivenWord } from '../../daemon/ship/given-word.ts';
import type { SettleOptions } from '../../daemon/ship/settle.ts';
import type { Shipper } from '../../daemon/ship/shipper.ts';
import { damageBehind, planGiveUp } from '../../daemon/source/give-up-plan.ts';
import { anchorsOf, readCheckpoint } from '../../daemon/volume/checkpoint.ts';
import type { ProtectedGroup } from '../../daemon/volume/protected-group.ts';
import { VolumeRegistry } from '../../daemon/volume/volume-registry.ts';
import type { Host } from '../../journal/host/host.ts';
import { GROUP_ID, JOURNAL_DIRECTORY } from './names.ts';

const PLACE = { directory: JOURNAL_DIRECTORY, groupId: GROUP_ID };

/** A source that runs, as its control API sees it. */
export interface RunningSource {
  readonly host: Host;
  readonly group: ProtectedGroup;
  readonly shipper: Shipper;
  readonly streamNames: readonly string[];
}

/** `tidemark give-up`: the steps of the source's control API, in its order. Rejects as that refuses. */
export async function sayGiveUp(
  { host, group, shipper, streamNames }: RunningSource,
  reason: string,
  dryRun: boolean,
): Promise<{ readonly word: GivenWord; readonly reply: GiveUpReply }> {
  const known = shipper.damage.map(({ address }) => address);
  if (known.length > 0) {
    for (const address of await damageBehind(host, group.journal, Math.min(...known))) shipper.mendAt(address);
  }
  const damage = await shipper.askAgain();
  const plan = planGiveUp({
    journal: group.journal,
    damage,
    replicas: shipper.status().replicas,
    streams: shipper.streams,
    streamNames,
    writtenOutTo: group.writtenOut.checkpoint.address,
    volumes: group.status().volumes.map(({ name }) => name),
    reason,
  });
  if (!dryRun) await writeGivenWord(host, PLACE, plan.word);
  return plan;
}

/** What a start of the source tells the far side's settlement beside the journal: the operator's word, when there is one. */
export function wordFor(
  host: Host,
  seedAllAnew: () => Promise<void>,
  replicas: readonly string[],
): Pick<SettleOptions, 'anchors' | 'giveUp'> {
  const writtenOut = readCheckpoint(host, PLACE);
  const word = readGivenWord(host, PLACE);
  const writtenOutTo = writtenOut?.checkpoint.address ?? 0;
  return {
    anchors: writtenOut === undefined ? [] : anchorsOf(writtenOut),
    ...(word === undefined ? {} : { giveUp: { word, writtenOutTo, seedAllAnew, replicas } }),
  };
}

/** Everything on the source's disk that a word, or what carries it out, would change beside the journal itself. */
export function standingOf(host: Host): string {
  const volumes = VolumeRegistry.load(host, PLACE).all.map(({ name, standing, reseedFromLsn }) => {
    return { name, standing, reseedFromLsn };
  });
  return JSON.stringify({ word: readGivenWord(host, PLACE), volumes });
}

export function isWordGiven(host: Host): boolean {
  return readGivenWord(host, PLACE) !== undefined;
}
