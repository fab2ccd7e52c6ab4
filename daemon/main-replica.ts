import { loadReplicaConfig } from './config/load-config.ts';
import { runReplica } from './replica/run-replica.ts';
import { runDaemon } from './run-daemon.ts';

/** `tidemark replica --config <file>`. Resolves with the exit code; rejects with config-invalid before anything starts. */
export async function runReplicaDaemon(configFile: string): Promise<number> {
  const config = await loadReplicaConfig(configFile);
  return runDaemon('replica', config.stateDir, (log) => runReplica(config, log));
}
