import { readdir, readFile } from 'node:fs/promises';
import { type Finding, ok, problem, warning } from './finding.ts';

/**
 * The QEMU processes of this host and how they use NBD. Without `reconnect-delay` a restart of the source is an I/O
 * error in the guest; libvirt 9.0 drops `<reconnect>` without a word, so only the command line tells the truth.
 */

/** One NBD disk on a QEMU command line. */
export interface NbdUse {
  /** Socket path or host:port, for people. */
  readonly address: string;
  /** Seconds; 0 when it is not there. */
  readonly reconnectDelay: number;
  readonly libvirt: boolean;
}

/** Reconnect tries come after 1, 2, 4, 8, 16 s: below this a restart may be missed. */
const RECONNECT_SECONDS_MIN = 30;

export async function examineGuests(proc = '/proc'): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const pid of (await readdir(proc)).filter((name) => /^\d+$/.test(name))) {
    // a process may end while it is looked at
    const commandLine = await readFile(`${proc}/${pid}/cmdline`, 'utf8').catch(() => '');
    const words = commandLine.split('\0').filter((word) => word !== '');
    if (!/qemu-system-|\/qemu-kvm$|^kvm$/.test(words[0] ?? '')) continue;
    const uses = nbdUses(words);
    const subject = `QEMU ${guestName(words) ?? ''} (pid ${pid})`.replace('  ', ' ');
    for (const use of uses) findings.push(judge(subject, use));
  }
  return findings.length === 0 ? [ok('guests', 'no running QEMU uses NBD by its command line')] : findings;
}

function judge(subject: string, use: NbdUse): Finding {
  if (use.reconnectDelay >= RECONNECT_SECONDS_MIN) {
    return ok(subject, `${use.address} with reconnect-delay=${use.reconnectDelay}`);
  }
  if (use.reconnectDelay > 0) {
    const advice = `give reconnect-delay=300: retries come after 1, 2, 4, 8, 16 s`;
    return warning(
      subject,
      `${use.address} has reconnect-delay=${use.reconnectDelay}: a slow restart is an I/O error`,
      advice,
    );
  }
  const how = use.libvirt
    ? 'libvirt dropped <reconnect> (9.0 does so silently): add the disk by <qemu:commandline> with -blockdev ... reconnect-delay=300, see the README'
    : 'start QEMU with -blockdev driver=nbd,...,reconnect-delay=300,open-timeout=60 and werror=stop,rerror=stop on the device';
  return problem(
    subject,
    `${use.address} has no reconnect-delay: a restart of the source is an I/O error in the guest`,
    how,
  );
}

/** The NBD disks among the words of a QEMU command line: -blockdev (JSON or key=value), -drive. */
function nbdUses(words: readonly string[]): NbdUse[] {
  const libvirt = words.some((word) => word.startsWith('guest=') || word.includes('/var/lib/libvirt/'));
  const uses: NbdUse[] = [];
  for (const [index, word] of words.entries()) {
    if (word !== '-blockdev' && word !== '-drive') continue;
    const value = words[index + 1] ?? '';
    const use = value.startsWith('{') ? fromJson(value) : fromPairs(value);
    if (use !== undefined) uses.push({ ...use, libvirt });
  }
  return uses;
}

function fromJson(text: string): Omit<NbdUse, 'libvirt'> | undefined {
  let node: unknown;
  try {
    node = JSON.parse(text);
  } catch {
    return undefined;
  }
  return findNbd(node);
}

/** The nbd node itself, or the one inside `file`. */
function findNbd(node: unknown): Omit<NbdUse, 'libvirt'> | undefined {
  if (typeof node !== 'object' || node === null) return undefined;
  const fields = node as Record<string, unknown>;
  if (fields['driver'] !== 'nbd') return findNbd(fields['file']);
  const server = (fields['server'] ?? {}) as Record<string, unknown>;
  const address =
    typeof server['path'] === 'string' ? server['path'] : `${String(server['host'])}:${String(server['port'])}`;
  return { address, reconnectDelay: Number(fields['reconnect-delay'] ?? 0) };
}

function fromPairs(text: string): Omit<NbdUse, 'libvirt'> | undefined {
  const values = new Map(text.split(',').map((pair) => [pair.split('=')[0] ?? '', pair.slice(pair.indexOf('=') + 1)]));
  const file = values.get('file') ?? values.get('file.filename') ?? '';
  const isNbd = /^nbd(\+unix)?:/.test(file) || values.get('driver') === 'nbd' || values.get('file.driver') === 'nbd';
  if (!isNbd) return undefined;
  const find = (name: string): string | undefined => values.get(name) ?? values.get(`file.${name}`);
  const host = find('server.host') ?? find('host');
  const address =
    find('server.path') ??
    find('path') ??
    (host === undefined ? file : `${host}:${find('server.port') ?? find('port') ?? ''}`);
  return { address, reconnectDelay: Number(find('reconnect-delay') ?? 0) };
}

function guestName(words: readonly string[]): string | undefined {
  const value = words[words.indexOf('-name') + 1];
  return words.includes('-name') ? /^(?:guest=)?([^,]+)/.exec(value ?? '')?.[1] : undefined;
}
