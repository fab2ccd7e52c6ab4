import type { Command } from 'commander';

/** `tidemark source`, `tidemark replica`: the long-running roles. Their code is loaded only here. */
export function addDaemonCommands(program: Command): void {
  program
    .command('source')
    .description('run the source: serve protected disks over NBD, journal and ship every write')
    .requiredOption('--config <file>', 'YAML; docker/examples/source.yaml is a commented one')
    .action(async (options: { config: string }) => {
      const { runSourceDaemon } = await import('../../daemon/main-source.ts');
      process.exitCode = await runSourceDaemon(options.config);
    });
  program
    .command('replica')
    .description('run the replica: receive, keep history, show and restore any point')
    .requiredOption('--config <file>', 'YAML; docker/examples/replica.yaml is a commented one')
    .action(async (options: { config: string }) => {
      const { runReplicaDaemon } = await import('../../daemon/main-replica.ts');
      process.exitCode = await runReplicaDaemon(options.config);
    });
}
