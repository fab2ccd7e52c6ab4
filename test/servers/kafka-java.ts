import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import type { KafkaClientOptions } from '../../daemon/stream/kafka/client-options.ts';
import { KafkaLog } from '../../daemon/stream/kafka/kafka-log.ts';

/* What one broker and a cluster of them share: where Kafka lies, how a node is started, and when it answers. */

const VERSION = '4.3.1';
export const CLUSTER_ID = 'MkU3OEVBNTcwNTJENDM2Qk';
/** Of one broker, on a machine with nothing else to do much less. */
const READY_MS = 60_000;

/** Why no broker can be started here, or undefined; in CI that is an error instead. */
export function kafkaMissing(): string | undefined {
  const reason = missingPart();
  if (reason !== undefined && process.env['CI'] === 'true') throw new Error(`CI must run the Kafka tests: ${reason}`);
  return reason;
}

function missingPart(): string | undefined {
  if (spawnSync('java', ['-version']).status !== 0) return 'no Java runtime (java) in PATH';
  const jars = kafkaJars();
  const found = fs.existsSync(path.join(jars, `kafka_2.13-${VERSION}.jar`));
  return found ? undefined : `no Apache Kafka ${VERSION} in ${jars}: run test/setup/kafka.sh`;
}

function kafkaJars(): string {
  const cache = process.env['XDG_CACHE_HOME'] ?? path.join(os.homedir(), '.cache');
  return path.join(process.env['TIDEMARK_KAFKA_HOME'] ?? path.join(cache, 'tidemark', `kafka-${VERSION}`), 'lib');
}

/** A quick start on two shared cores matters more here than throughput. */
const JVM: readonly string[] = ['-Xms64m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xshare:auto'];

/** Arguments of `java` for one of Kafka's programs. */
export function kafkaCommand(heapMiB: number, ...command: readonly string[]): string[] {
  return [...JVM, `-Xmx${heapMiB}m`, '-cp', path.join(kafkaJars(), '*'), ...command];
}

/** Starts a node on its properties; what it prints goes to `logFile`. */
export function startKafkaNode(directory: string, properties: string, logFile: string, heapMiB: number): ChildProcess {
  const output = fs.openSync(logFile, 'w');
  const command = kafkaCommand(heapMiB, 'kafka.Kafka', properties);
  const child = spawn('java', command, { cwd: directory, stdio: ['ignore', output, output] });
  fs.closeSync(output);
  return child;
}

/** Resolves when the node answers an administrator; rejects with its output when it ends or time is up. */
export async function kafkaAnswers(
  child: ChildProcess,
  client: KafkaClientOptions,
  logFile: string,
  readyMs: number = READY_MS,
): Promise<void> {
  const admin = new KafkaLog(client).admin();
  const deadline = Date.now() + readyMs;
  try {
    while (child.exitCode === null && child.signalCode === null && Date.now() < deadline) {
      try {
        await admin.describe('tidemark-ready');
        return;
      } catch {
        admin.reset();
        await new Promise((resolve) => {
          setTimeout(resolve, 100);
        });
      }
    }
  } finally {
    admin.close();
  }
  throw new Error(`Kafka did not start:\n${fs.readFileSync(logFile, 'utf8').slice(-4000)}`);
}

/**
 * A port nobody listens on now, below those that the kernel gives to connections (Linux: from 32768 on): it stays free while a
 * broker that was killed is started again.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(12_000, 32_000);
    const server = net.createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => resolve(true));
    });
    if (!isFree) continue;
    await new Promise((resolve) => {
      server.close(resolve);
    });
    return port;
  }
}

/** Sends the signal and waits for the end. */
export async function endOf(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => {
    child.once('exit', resolve);
  });
  child.kill(signal);
  await ended;
}
