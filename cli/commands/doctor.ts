import { type Command, Option } from 'commander';
import type { Finding } from '../../daemon/doctor/finding.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { outputOption } from '../command-options.ts';
import { type OutputFormat, print, printJson } from '../output.ts';
import { paint } from '../table.ts';

interface DoctorOptions {
  readonly config?: string;
  readonly role: 'source' | 'replica';
  readonly output: OutputFormat;
}

const MARKS = {
  ok: paint('green', 'ok     '),
  warning: paint('yellow', 'warning'),
  problem: paint('red', 'problem'),
} as const;

/** `tidemark doctor`: what would go wrong, found before it does. */
export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .description(
      'check configuration, directories, sockets, stream and the guests of this host; exit code 4 on a problem',
    )
    .option('--config <file>', 'the configuration to check; without it only the guests are looked at')
    .addOption(
      new Option('--role <role>', 'whose configuration it is').choices(['source', 'replica']).default('source'),
    )
    .addOption(outputOption())
    .action(async (options: DoctorOptions) => {
      const { examine } = await import('../../daemon/doctor/examine.ts');
      const findings = await examine(options.config, options.role);
      if (options.output === 'json') printJson({ findings });
      else print(findings.map(line).join('\n'));
      const problems = findings.filter((finding) => finding.verdict === 'problem').length;
      if (problems > 0)
        throw new TidemarkError('precondition-failed', `${problems} of ${findings.length} checks found a problem`);
    });
}

function line(finding: Finding): string {
  const advice = finding.advice === '' ? '' : `\n         ${finding.advice}`;
  return `${MARKS[finding.verdict]}  ${finding.subject}: ${finding.message}${advice}`;
}
