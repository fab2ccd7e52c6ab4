import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'ava';
import type {
  AlarmReply,
  AlarmsReply,
  ReplicaStatusReply,
  SourceStatusReply,
} from '../../daemon/control/control-api.ts';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import { TidemarkProcess } from '../servers/tidemark-process.ts';

/*
 * What the plain end-to-end run leaves out: TLS with client certificates on the stream and on NBD over TCP, two volumes
 * of which one is seeded, the metrics endpoint, alarms through status, command and back.
 */

function certificates(directory: string): void {
  const openssl = (...args: string[]): void => {
    execFileSync('openssl', args, { cwd: directory, stdio: 'ignore' });
  };
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  openssl('req', '-x509', ...key, '-subj', '/CN=test authority', '-keyout', 'ca.key', '-out', 'ca.crt');
  for (const name of ['source', 'replica', 'guest']) {
    openssl('req', ...key, '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.csr`);
    fs.writeFileSync(path.join(directory, `${name}.ext`), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
    const from = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', `${name}.ext`];
    openssl('x509', '-req', '-in', `${name}.csr`, ...from, '-out', `${name}.crt`);
  }
}

async function until<T>(what: string, find: () => Promise<T | undefined>): Promise<T> {
  const end = performance.now() + 60_000;
  for (;;) {
    const found = await find();
    if (found !== undefined) return found;
    if (performance.now() > end) throw new Error(`${what}: not in time`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test('two volumes over TLS on every wire; alarms and metrics reach those who listen', async (t) => {
  t.timeout(240_000);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-tls-'));
  const at = (name: string): string => path.join(directory, name);
  certificates(directory);
  const server = (name: string): string =>
    `{ certificate: ${at(`${name}.crt`)}, key: ${at(`${name}.key`)}, authorities: ${at('ca.crt')}, requireClientCertificate: true }`;
  fs.writeFileSync(at('hook'), `#!/bin/sh\ncat >> ${at('alarms')}\n`, { mode: 0o755 });
  fs.writeFileSync(at('old.raw'), Buffer.alloc(4 * 1024 * 1024, 'old content '));
  fs.writeFileSync(at('replica.yaml'), replicaConfig(directory, '127.0.0.1:0', server('replica')));
  const replica = new TidemarkProcess('replica', at('replica.yaml'), at('r/control/c.sock'));
  const source = new TidemarkProcess('source', at('source.yaml'), at('s/control/c.sock'));
  const sourceStatus = async (): Promise<SourceStatusReply> =>
    JSON.parse(await source.command('status', '-o', 'json')) as SourceStatusReply;
  const replicaStatus = async (): Promise<ReplicaStatusReply> =>
    JSON.parse(await replica.command('status', '-o', 'json')) as ReplicaStatusReply;
  const alarm = async (): Promise<AlarmReply | undefined> =>
    (JSON.parse(await source.command('alarms', '-o', 'json')) as AlarmsReply).alarms.find(
      ({ code }) => code === 'stream-away',
    );
  try {
    await replica.start();
    const listen = (await replicaStatus()).groups[0]?.listen ?? '';
    fs.writeFileSync(at('replica.yaml'), replicaConfig(directory, listen, server('replica')));
    fs.writeFileSync(at('source.yaml'), sourceConfig(directory, listen, server('source')));
    await source.start();
    const group = await until('both exports are open', async () => {
      const status = await sourceStatus();
      return status.daemon.ready ? status.groups[0] : undefined;
    });
    t.deepEqual(
      group.volumes.map(({ name, state }) => [name, state]),
      [
        ['old', 'serving'],
        ['new', 'serving'],
      ],
    );
    const uri = group.volumes[1]?.uri ?? '';
    t.regex(uri, /^nbds:\/\/127\.0\.0\.1:\d+\/new$/);
    await t.throwsAsync(NbdClient.connect(parseNbdUri(uri.replace('nbds', 'nbd'))), undefined, 'TLS is required');
    await t.throwsAsync(
      NbdClient.connect(parseNbdUri(uri), { tls: { ca: fs.readFileSync(at('ca.crt')) } }),
      undefined,
      'and a client certificate',
    );
    const tls = {
      ca: fs.readFileSync(at('ca.crt')),
      cert: fs.readFileSync(at('guest.crt')),
      key: fs.readFileSync(at('guest.key')),
    };
    const disk = await NbdClient.connect(parseNbdUri(uri), { tls });
    await disk.write(0, Buffer.alloc(4096, 'new content '));
    await disk.flush();
    await disk.close();
    const head = (await sourceStatus()).groups[0]?.head?.durableLsn ?? 0;
    await until('the replica holds it', async () =>
      ((await replicaStatus()).groups[0]?.head?.lsn ?? 0) >= head ? true : undefined,
    );
    for (const [volume, content] of [
      ['old', 'old content '],
      ['new', 'new content '],
    ] as const) {
      const target = at(`${volume}.restored`);
      await replica.command('restore', 'shop', '--volume', volume, '--at', 'latest', '--to', target);
      t.true(fs.readFileSync(target).subarray(0, 4096).equals(Buffer.alloc(4096, content)), volume);
    }
    const several = await replica.attempt('restore', 'shop', '--at', 'latest', '--to', at('which'));
    t.is(several.code, 2);
    t.regex(several.stderr, /several volumes, name one: /);

    const page = source.child.output.match(/http:\/\/127\.0\.0\.1:\d+\/metrics/)?.[0] ?? '';
    const metrics = await (await fetch(page)).text();
    t.regex(metrics, /^tidemark_ready 1$/m);
    t.regex(metrics, /^tidemark_volume_writes_total\{group="shop",volume="new"\} 1$/m);
    t.regex(metrics, /^tidemark_replica_lag_records\{group="shop",replica="b"\} \d+$/m);

    t.is(await alarm(), undefined);
    await replica.kill();
    t.is((await until('the alarm is raised', alarm)).severity, 'warning');
    await replica.start();
    await until('the alarm is cleared', async () => ((await alarm()) === undefined ? true : undefined));
    const told = await until('the command was told', () => {
      const lines = fs.existsSync(at('alarms')) ? fs.readFileSync(at('alarms'), 'utf8').trim().split('\n') : [];
      const changes = lines.map((line) => JSON.parse(line) as { change: string; code: string });
      const away = changes.filter(({ code }) => code === 'stream-away').map(({ change }) => change);
      return Promise.resolve(away.length >= 2 ? away : undefined);
    });
    t.deepEqual(told.slice(0, 2), ['raised', 'cleared']);
    t.is(await source.stop(), 0);
    t.is(await replica.stop(), 0);
  } catch (error) {
    t.log(source.child.output.slice(-4000));
    t.log(replica.child.output.slice(-4000));
    throw error;
  } finally {
    await source.stopIfRunning();
    await replica.stopIfRunning();
    fs.rmSync(directory, { recursive: true, force: true });
  }
});

function replicaConfig(directory: string, listen: string, tls: string): string {
  return `stateDir: ${directory}/r
name: b
control: { socket: ${directory}/r/control/c.sock }
groups:
  - name: shop
    directory: ${directory}/r/shop
    reserve: 64MiB
    history: { window: 1d }
    stream: { direct: { listen: "${listen}", tls: ${tls} } }
    views: { unix: ${directory}/r/views/v.sock }
`;
}

function sourceConfig(directory: string, connect: string, tls: string): string {
  const client = `{ certificate: ${directory}/source.crt, key: ${directory}/source.key, authorities: ${directory}/ca.crt }`;
  return `stateDir: ${directory}/s
control: { socket: ${directory}/s/control/c.sock }
metrics: { listen: "127.0.0.1:0" }
alarmCommand: [${directory}/hook]
groups:
  - name: shop
    journal: { directory: ${directory}/s/shop, budget: 256MiB, fileSize: 16MiB }
    volumes:
      - { name: old, backing: ${directory}/old.raw, start: seed }
      - { name: new, backing: ${directory}/new.raw, size: 8MiB, start: empty }
    listen: { tcp: "127.0.0.1:0", tls: ${tls} }
    stream: { direct: { replicas: [{ name: b, connect: "${connect}", tls: ${client} }] } }
    replicas: [{ name: b }]
    outOfRoom: block
`;
}
