import { loadSourceConfig } from './config/load-config.ts';
import { runDaemon } from './run-daemon.ts';
import { runSource } from './source/run-source.ts';

/** `tidemark source --config <file>`. Resolves with the exit code; rejects with config-invalid before anything starts. */
export async function runSourceDaemon(configFile: string): Promise<number> {
  const config = await loadSourceConfig(configFile);
  return runDaemon('source', config.stateDir, (log) => runSource(config, log));
}
