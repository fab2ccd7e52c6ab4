import { resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { JournalAudit } from '../../journal/journal-audit.ts';
import { outputOption } from '../command-options.ts';
import type { OutputFormat } from '../output.ts';
import { bytes, count, print, printJson } from '../output.ts';
import { pairs, table } from '../table.ts';
import type { JournalDamageReport } from './journal-damage.ts';
import type { JournalSummary, ListedRecord } from './journal-reading.ts';

interface ReadOptions {
  readonly output: OutputFormat;
}

interface InspectOptions extends ReadOptions {
  readonly records?: boolean;
  readonly from: number;
  readonly limit: number;
}

interface ReplayOptions extends ReadOptions {
  readonly volume: string;
  readonly into: string;
  readonly dryRun?: boolean;
}

/** `tidemark journal ...`: on a source's journal directory, without a daemon. */
export function addJournalCommands(program: Command): void {
  const journal = program.command('journal').description('look at a journal directory without a daemon');
  journal
    .command('inspect')
    .description('files, range, volumes, records by kind; with --records every record')
    .argument('<directory>')
    .option('--records', 'list records instead')
    .addOption(new Option('--from <lsn>', 'first record to list').argParser(whole).default(1))
    .addOption(new Option('--limit <count>', 'how many records to list').argParser(whole).default(100))
    .addOption(outputOption())
    .action(async (directory: string, options: InspectOptions) => {
      const { listRecords, summarize } = await import('./journal-reading.ts');
      if (options.records === true) {
        const records = listRecords(resolve(directory), options.from, options.limit);
        if (options.output === 'json') printJson({ records });
        else print(recordTable(records));
        return;
      }
      const summary = summarize(resolve(directory));
      if (options.output === 'json') printJson(summary);
      else print(summaryText(summary));
    });
  journal
    .command('audit')
    .description('read and check everything again; exit code 1 when something does not hold')
    .argument('<directory>')
    .addOption(outputOption())
    .action(async (directory: string, options: ReadOptions) => {
      const { audit } = await import('./journal-reading.ts');
      const found = audit(resolve(directory));
      if (options.output === 'json') printJson(found);
      else print(auditText(found));
      if (found.damage.length > 0) {
        throw new TidemarkError('journal-damaged', `${count(found.damage.length, 'damaged stretch')} found`);
      }
    });
  journal
    .command('damage')
    .description('which records cannot be read, whom that concerns, and the way on; changes nothing')
    .argument('<directory>')
    .addOption(outputOption())
    .action(async (directory: string, options: ReadOptions) => {
      const { explainDamage } = await import('./journal-damage.ts');
      const report = explainDamage(resolve(directory));
      if (options.output === 'json') printJson(report);
      else print(damageText(report));
    });
  journal
    .command('replay')
    .description(
      "write what the journal holds into a volume's disk and give it back as a plain disk; the source must be down",
    )
    .argument('<directory>')
    .requiredOption('--volume <name>', 'as the journal knows it')
    .requiredOption('--into <backing>', "the volume's own disk: a path or an nbd URI")
    .option('--dry-run', 'say what would be done and change nothing')
    .addOption(outputOption())
    .action(async (directory: string, options: ReplayOptions) => {
      const into = options.into.includes('://') ? options.into : resolve(options.into);
      const { replay } = await import('./journal-replay.ts');
      const done = await replay(resolve(directory), options.volume, into, options.dryRun ?? false);
      if (options.output === 'json') printJson(done);
      else print(done.steps.join('\n'));
    });
}

function whole(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) throw new InvalidArgumentError('must be a whole number');
  return value;
}

function summaryText(summary: JournalSummary): string {
  const head = pairs([
    ['directory', summary.directory],
    ['group id', summary.groupId],
    ['records', `${summary.firstLsn}-${summary.lastLsn}`],
    ['proven durable', `up to ${summary.durableLsn}`],
    ['time', `${summary.firstTime ?? '-'} to ${summary.lastTime ?? '-'}`],
    ['incarnation', String(summary.incarnation)],
    [
      'breaks',
      summary.breaks.length === 0 ? 'none' : summary.breaks.map((item) => `${item.address}: ${item.reason}`).join('; '),
    ],
  ]);
  const files = table(
    ['file', 'state', 'first lsn', 'size'],
    summary.files.map((file) => [
      file.name,
      file.reason ?? file.state,
      String(file.firstLsn ?? '-'),
      bytes(file.bytes),
    ]),
  );
  const kinds = table(
    ['kind', 'records', 'payload'],
    summary.kinds.map((kind) => [kind.kind, kind.records.toLocaleString('en'), bytes(kind.payloadBytes)]),
  );
  const volumes = table(
    ['volume', 'id', 'size'],
    summary.volumes.map((volume) => [volume.name, String(volume.id), bytes(volume.sizeBytes)]),
  );
  return [head, files, volumes, kinds].join('\n\n');
}

function recordTable(records: readonly ListedRecord[]): string {
  return table(
    ['lsn', 'time', 'kind', 'volume', 'offset', 'length', 'detail'],
    records.map((record) => [
      String(record.lsn),
      record.time,
      record.kind,
      record.volume === 0 ? '-' : String(record.volume),
      record.volume === 0 ? '-' : `${record.offsetBytes} B`,
      record.volume === 0 ? '-' : `${record.lengthBytes} B`,
      record.detail,
    ]),
  );
}

function damageText(report: JournalDamageReport): string {
  const { damage, groupId, replicas, volumes, writtenOutLsn } = report;
  const held = replicas.map(({ name, acknowledgedLsn }) => `${name} up to ${acknowledgedLsn}`).join(', ');
  const head = pairs([
    ['group id', groupId],
    ['disks', `${volumes.join(', ') || 'none'}: hold everything up to ${writtenOutLsn}`],
    ['replicas', held || 'none has acknowledged anything'],
    ['verdict', damage.length === 0 ? 'no record is lost' : `${count(damage.length, 'damaged stretch')}`],
  ]);
  const stretches = damage.map((lost) =>
    [
      pairs([
        ['lost', `records ${lost.fromLsn}-${lost.toLsn}, which of the disks' places they wrote is lost with them`],
        ['written', `between ${lost.afterTime ?? 'the beginning'} and ${lost.beforeTime ?? 'the end'}`],
        ['where', `${lost.file} at ${lost.offset}: ${lost.reason}`],
        ['disks', lost.writtenOut ? 'hold these records' : 'LACK these records'],
      ]),
      ...lost.wayOn.map((step, at) => `  ${at + 1}. ${step}`),
    ].join('\n'),
  );
  return [head, ...stretches].join('\n\n');
}

function auditText(audit: JournalAudit): string {
  const lines = [
    pairs([
      ['group id', audit.groupId],
      ['records', `${audit.firstLsn}-${audit.lastLsn}, ${count(audit.records, 'record')} read`],
      ['proven durable', `up to ${audit.durableLsn}`],
      ['read', `${count(audit.files, 'file')}, ${audit.batches.toLocaleString('en')} batches, ${bytes(audit.bytes)}`],
      ['verdict', audit.damage.length === 0 ? 'everything holds' : 'DAMAGED'],
    ]),
  ];
  if (audit.damage.length > 0) {
    const rows = audit.damage.map((item) => [
      `${item.fromLsn}-${item.toLsn}`,
      item.file,
      String(item.offset),
      item.reason,
    ]);
    lines.push('', table(['lost records', 'file', 'offset', 'reason'], rows));
  }
  return lines.join('\n');
}
