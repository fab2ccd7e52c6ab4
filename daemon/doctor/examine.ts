import { constants } from 'node:fs';
import { access, stat, statfs } from 'node:fs/promises';
import net from 'node:net';
import { dirname } from 'node:path';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { KafkaConfig, NbdListen, ReplicaConfig, SourceConfig } from '../config/config-types.ts';
import { loadReplicaConfig, loadSourceConfig } from '../config/load-config.ts';
import { formatSize } from '../config/units.ts';
import type { DegreePolicy } from '../synchrony/degree-policy.ts';
import { type Finding, ok, problem, warning } from './finding.ts';
import { examineGuests } from './guests.ts';

/** All checks of `tidemark doctor`. Nothing is changed; every trouble is a finding with what to do. */
export async function examine(configFile: string | undefined, role: 'source' | 'replica'): Promise<Finding[]> {
  const guests = role === 'source' ? await examineGuests() : [];
  if (configFile === undefined) return guests;
  try {
    const found = role === 'source' ? await examineSource(configFile) : await examineReplica(configFile);
    return [ok('configuration', `${configFile} is valid`), ...found, ...guests];
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    const lines = error.message.split('\n');
    return [...lines.map((line) => problem('configuration', line, 'mend the file: nothing starts with it')), ...guests];
  }
}

async function examineSource(file: string): Promise<Finding[]> {
  const config: SourceConfig = await loadSourceConfig(file);
  const findings = await examineShared(config.stateDir, config.control.socket);
  for (const group of config.groups) {
    const at = (key: string): string => `${group.name}: ${key}`;
    findings.push(
      ...(await examineDirectory(at('journal.directory'), group.journal.directory, group.journal.budgetBytes)),
    );
    for (const volume of group.volumes) {
      if (volume.backing.startsWith('/'))
        findings.push(await examineBacking(at(`volume ${volume.name}`), volume.backing, volume.size));
    }
    findings.push(examineListen(at('listen'), group.listen));
    for (const replica of group.stream.direct?.replicas ?? []) {
      findings.push(await examineReach(at(`replica ${replica.name}`), replica.connect.host, replica.connect.port));
    }
    if (group.stream.kafka !== null)
      findings.push(...(await examineKafka(at('stream.kafka'), group.stream.kafka, group.degree)));
  }
  return findings;
}

async function examineReplica(file: string): Promise<Finding[]> {
  const config: ReplicaConfig = await loadReplicaConfig(file);
  const findings = await examineShared(config.stateDir, config.control.socket);
  for (const group of config.groups) {
    const at = (key: string): string => `${group.name}: ${key}`;
    const wanted = group.reserveBytes + (group.history.bytesMax ?? 0);
    findings.push(...(await examineDirectory(at('directory'), group.directory, wanted)));
    findings.push(examineListen(at('views'), group.views));
    if (
      group.stream.direct !== null &&
      group.stream.direct.tls === null &&
      !isLoopback(group.stream.direct.listen.host)
    ) {
      const advice = 'give stream.direct.tls, with requireClientCertificate: whoever connects could write history';
      findings.push(warning(at('stream.direct'), 'takes sources without TLS', advice));
    }
    if (group.stream.kafka !== null) findings.push(...(await examineKafka(at('stream.kafka'), group.stream.kafka)));
  }
  return findings;
}

async function examineShared(stateDir: string, socket: string): Promise<Finding[]> {
  return [...(await examineDirectory('stateDir', stateDir, 0)), await examineSocketDirectory(socket)];
}

/** File systems on which a lock or an fdatasync proves nothing (rule 15). Magic numbers of statfs(2). */
const NETWORK_FILE_SYSTEMS: Readonly<Record<number, string>> = {
  0x6969: 'NFS',
  0xff534d42: 'CIFS',
  0xfe534d42: 'SMB2',
  0x517b: 'SMB',
  0x01021997: '9p',
  0x65735546: 'FUSE',
  0x00c36400: 'Ceph',
};
const TMPFS = 0x01021994;

async function examineDirectory(subject: string, directory: string, wantedBytes: number): Promise<Finding[]> {
  const present = await nearestExisting(directory);
  const writable = await access(present, constants.W_OK).then(
    () => true,
    () => false,
  );
  if (!writable)
    return [
      problem(subject, `${present} is not writable for this user`, 'run as the daemon, or give it the directory'),
    ];
  const fs = await statfs(present);
  const network = NETWORK_FILE_SYSTEMS[fs.type];
  if (network !== undefined) {
    return [
      problem(
        subject,
        `${directory} lies on ${network}`,
        'use a local file system: locks and syncs prove nothing there',
      ),
    ];
  }
  const findings: Finding[] = [];
  if (fs.type === TMPFS) {
    findings.push(warning(subject, `${directory} lies in memory (tmpfs)`, 'nothing there survives a power loss'));
  }
  const free = fs.bavail * fs.bsize;
  if (free < wantedBytes) {
    const message = `${formatSize(free)} free, ${formatSize(wantedBytes)} are configured`;
    findings.push(warning(subject, message, 'add space, or lower the configured bytes'));
  } else {
    findings.push(ok(subject, `${directory}: ${formatSize(free)} free`));
  }
  return findings;
}

async function nearestExisting(path: string): Promise<string> {
  for (let at = path; ; at = dirname(at)) {
    if (
      await stat(at).then(
        () => true,
        () => false,
      )
    )
      return at;
    if (at === '/') return at;
  }
}

async function examineSocketDirectory(socket: string): Promise<Finding> {
  const directory = dirname(socket);
  const found = await stat(directory).catch(() => undefined);
  if (found === undefined) return ok('control.socket', `${directory} will be made (0750)`);
  if ((found.mode & 0o007) !== 0) {
    return problem(
      'control.socket',
      `${directory} is open to every user`,
      'give the socket a directory of its own, mode 0750',
    );
  }
  return ok('control.socket', socket);
}

async function examineBacking(subject: string, path: string, size: number | null): Promise<Finding> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) {
    if (size !== null) return ok(subject, `${path} will be made, ${formatSize(size)}`);
    return problem(
      subject,
      `${path} does not exist`,
      'give the path of the disk, or a size so that an empty one is made',
    );
  }
  if (!found.isFile() && !found.isBlockDevice())
    return problem(subject, `${path} is neither a file nor a block device`, 'give a disk');
  if (size !== null && found.isFile() && found.size !== size) {
    return problem(
      subject,
      `${path} has ${found.size} bytes, the configuration says ${size}`,
      'leave size out, or correct it',
    );
  }
  const usable = await access(path, constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  return usable
    ? ok(subject, path)
    : problem(subject, `${path} cannot be read and written`, 'run as the daemon, or give it the disk');
}

function examineListen(subject: string, listen: NbdListen): Finding {
  if (listen.unix !== null) return ok(subject, listen.unix);
  const at = `${listen.tcp?.host}:${listen.tcp?.port}`;
  if (listen.tls === null && !isLoopback(listen.tcp?.host ?? '')) {
    return warning(
      subject,
      `${at} speaks NBD without TLS`,
      'give listen.tls, with requireClientCertificate: whoever connects has the disk',
    );
  }
  return ok(subject, at);
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}

const REACH_TIMEOUT_MS = 3000;

async function examineReach(subject: string, host: string, port: number): Promise<Finding> {
  const reason = await new Promise<string | undefined>((resolve) => {
    const socket = net.connect({ host, port, timeout: REACH_TIMEOUT_MS });
    const end = (why: string | undefined): void => {
      socket.destroy();
      resolve(why);
    };
    socket.once('connect', () => end(undefined));
    socket.once('timeout', () => end(`no answer within ${REACH_TIMEOUT_MS} ms`));
    socket.once('error', (error) => end(error.message));
  });
  if (reason === undefined) return ok(subject, `${host}:${port} answers`);
  return warning(
    subject,
    `${host}:${port} cannot be reached: ${reason}`,
    'start it, or look at routes and firewalls; the journal keeps what is missing',
  );
}

async function examineKafka(subject: string, config: KafkaConfig, degree?: DegreePolicy): Promise<Finding[]> {
  const findings = await Promise.all(
    config.brokers.map((broker) => {
      const at = broker.lastIndexOf(':');
      return examineReach(
        `${subject} ${broker}`,
        broker.slice(0, at).replace(/^\[(.*)\]$/, '$1'),
        Number(broker.slice(at + 1)),
      );
    }),
  );
  if (findings.every((finding) => finding.verdict !== 'ok')) return findings;
  const { examineTopic } = await import('./kafka-topic.ts');
  return [...findings, ...(await examineTopic(subject, config, degree))];
}
