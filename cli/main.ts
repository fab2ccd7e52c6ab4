#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { version } from '../daemon/version.ts';
import { TidemarkError } from '../journal/base/errors.ts';
import { addDaemonCommands } from './commands/daemons.ts';
import { addDoctorCommand } from './commands/doctor.ts';
import { addGroupActions } from './commands/group-actions.ts';
import { addJournalCommands } from './commands/journal.ts';
import { addPointCommands } from './commands/points.ts';
import { addRestoreCommand } from './commands/restore.ts';
import { addStatusCommands } from './commands/status.ts';
import { addViewCommands } from './commands/views.ts';
import { DaemonUnreachableError } from './control-client.ts';
import { EXIT_CODE_HELP, ExitCode, exitCodeOf } from './exit-codes.ts';
import { say } from './output.ts';

/** The command line. Nothing heavy is imported before a command needs it: `tidemark status` must be quick. */
async function main(argv: readonly string[]): Promise<number> {
  const program = new Command('tidemark')
    .description('Continuous data protection for virtual machines: every guest write is a point to mount or restore.')
    .version(version())
    .addHelpText('after', EXIT_CODE_HELP)
    .showHelpAfterError('(add --help for the arguments)')
    .exitOverride();
  addDaemonCommands(program);
  addStatusCommands(program);
  addPointCommands(program);
  addViewCommands(program);
  addRestoreCommand(program);
  addGroupActions(program);
  addJournalCommands(program);
  addDoctorCommand(program);
  for (const command of program.commands) command.copyInheritedSettings(program);
  try {
    await program.parseAsync(argv as string[]);
    return typeof process.exitCode === 'number' ? process.exitCode : ExitCode.ok;
  } catch (error) {
    return report(error);
  }
}

/** Says what went wrong, on stderr, and how a script can tell. What is not an operating error is a bug and is thrown. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.ok : ExitCode.usage;
  if (error instanceof DaemonUnreachableError) {
    say(`tidemark: ${error.message}`);
    return ExitCode.unreachable;
  }
  if (error instanceof TidemarkError) {
    say(error.code === 'config-invalid' ? error.message : `tidemark: ${error.message} (${error.code})`);
    return exitCodeOf(error.code);
  }
  throw error;
}

// a reader that has enough (`tidemark points | head`) closes the pipe
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(ExitCode.ok);
  throw error;
});

process.exitCode = await main(process.argv);
