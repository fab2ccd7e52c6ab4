import { type ChildProcess, execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import type { ExecutionContext } from 'ava';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { DeviceExport } from '../../daemon/nbd/device-export.ts';
import { formatNbdUri, type NbdAddress, parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import { NbdServer } from '../../daemon/nbd/server.ts';
import { hasCode } from '../../journal/base/errors.ts';
import { InPlaceExport } from '../doubles/in-place-export.ts';
import { MemoryDevice } from '../doubles/memory-device.ts';
import { type Declare, testUnless } from '../setup/test-unless.ts';
import { option, RawClient, startServer, type TestServer } from './support.ts';

const MIB = 1024 * 1024;
const SIZE = 64 * MIB;
/** libnbd's Python module belongs to the system's Python, whatever comes first in PATH. */
const PYTHON = '/usr/bin/python3';

interface Disk {
  memory: MemoryDevice;
  server: TestServer;
  uri: string;
}

function judgedBy(...tools: string[]): Declare {
  const missing = tools.filter(
    (tool) => !(process.env['PATH'] ?? '').split(delimiter).some((folder) => existsSync(join(folder, tool))),
  );
  return testUnless(missing.length === 0 ? undefined : `needs ${missing.join(', ')}`);
}

/** The JSON a program prints. What it says beside it (nbdinfo: `file: not found` on a small machine) does not belong to it. */
async function json<T>(file: string, ...args: string[]): Promise<T> {
  return JSON.parse((await promisify(execFile)(file, args, { timeout: 120_000, maxBuffer: 16 * MIB })).stdout) as T;
}

/** Runs a program and returns what it printed; rejects with its complaint when it fails. */
async function run(file: string, ...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(file, args, { timeout: 120_000, maxBuffer: 16 * MIB }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout + stderr);
      else reject(new Error(`${file} ${args.join(' ')}: ${error.message}\n${stdout}${stderr}`));
    });
  });
}

/** Starts a program that runs until it is killed. */
function start(file: string, arguments_: string[]): ChildProcess {
  return execFile(file, arguments_);
}

/** Connects as soon as a server that is starting listens: its socket is there before that, and refuses. */
async function connectToStarting(address: NbdAddress): Promise<NbdClient> {
  for (;;) {
    try {
      return await NbdClient.connect(address);
    } catch (error) {
      if (!hasCode(error, 'device-gone')) throw error;
      await new Promise(setImmediate);
    }
  }
}

async function serveDisk(t: ExecutionContext, options: { readOnly?: boolean; fastZero?: boolean } = {}): Promise<Disk> {
  const memory = new MemoryDevice(SIZE, options.readOnly === true ? { readOnly: true } : {});
  const item = new DeviceExport(memory, { name: 'disk', description: 'judged', fastZero: options.fastZero ?? false });
  const server = await startServer({ exports: [item] });
  t.teardown(() => server.stop());
  return { memory, server, uri: server.uri('disk') };
}

/** A raw image: data, zeroes, data, without any structure that helps a copier. */
function makeImage(path: string): Buffer {
  const bytes = Buffer.alloc(SIZE);
  for (let at = 0; at < SIZE; at += 4)
    if (((at >> 20) & 3) !== 3) bytes.writeInt32LE(Math.imul(at ^ 0x9e37, 0x5bd1_e995), at);
  writeFileSync(path, bytes);
  return bytes;
}

judgedBy('qemu-img')('qemu-img: convert there and back, compare, map', async (t) => {
  const { memory, server, uri } = await serveDisk(t);
  const image = join(server.directory, 'image.raw');
  const bytes = makeImage(image);
  await run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', image, uri);
  t.true(memory.bytes.equals(bytes));
  t.regex(await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', image, uri), /identical/);
  const back = join(server.directory, 'back.qcow2');
  await run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', uri, back);
  t.regex(await run('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', image, back), /identical/);
  await memory.zero(8 * MIB, 4 * MIB, true);
  const map = await json<
    {
      start: number;
      length: number;
      data: boolean;
      zero: boolean;
    }[]
  >('qemu-img', 'map', '--output=json', '-f', 'raw', uri);
  const hole = map.find((extent) => extent.start <= 8 * MIB && extent.start + extent.length >= 12 * MIB);
  t.like(hole, { data: false, zero: true });
});

judgedBy('qemu-io')('qemu-io: patterns, FUA, write zeroes, discard, flush, refusal past the end', async (t) => {
  const { memory, uri } = await serveDisk(t, { fastZero: true });
  const commands = [
    'write -P 0x11 0 1M',
    'write -f -P 0x22 64k 4k',
    'read -P 0x22 64k 4k',
    'write -z 128k 64k',
    'write -z -u 256k 64k',
    'discard 384k 64k',
    'read -P 0 128k 64k',
    'read -P 0 256k 64k',
    'read -P 0 384k 64k',
    'read -P 0x11 448k 512',
    'write -P 0x33 512 512',
    'read -P 0x33 512 512',
    'read -P 0x11 1024 3072',
    'aio_write -P 0x44 2M 4M',
    'aio_read 0 1M',
    'aio_flush',
    'write -P 0x55 16M 32M',
    'read -P 0x55 16M 32M',
    'flush',
  ];
  const output = await run('qemu-io', '-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri);
  t.notRegex(output, /fail|error|Pattern/i);
  t.true(memory.flushes >= 2);
  t.true(memory.bytes.subarray(2 * MIB, 6 * MIB).every((byte) => byte === 0x44));
  await t.throwsAsync(run('qemu-io', '-f', 'raw', '-c', `write ${SIZE} 512`, uri));

  const readOnly = await serveDisk(t, { readOnly: true });
  await t.throwsAsync(run('qemu-io', '-f', 'raw', '-c', 'write 0 512', readOnly.uri));
  await run('qemu-io', '-r', '-f', 'raw', '-c', 'read -P 0 0 1M', readOnly.uri);
});

judgedBy('nbdinfo')('nbdinfo: what is offered, every export, the map', async (t) => {
  const { memory, server, uri } = await serveDisk(t);
  server.server.addExport(new DeviceExport(new MemoryDevice(MIB, { readOnly: true }), { name: 'second' }));
  const info = await json<{ exports: Record<string, unknown>[] }>('nbdinfo', '--json', uri);
  t.like(info.exports[0], {
    'export-name': 'disk',
    description: 'judged',
    'export-size': SIZE,
    is_read_only: false,
    can_cache: true,
    can_df: true,
    can_fast_zero: false,
    can_flush: true,
    can_fua: true,
    can_multi_conn: true,
    can_trim: true,
    can_zero: true,
    block_size_minimum: 512,
    block_size_maximum: 32 * MIB,
  });
  const list = await json<typeof info>('nbdinfo', '--json', '--list', server.uri(''));
  t.deepEqual(
    list.exports.map((item) => item['export-name']),
    ['disk', 'second'],
  );
  t.like(list.exports[1], { is_read_only: true, can_trim: false, can_zero: false });
  await memory.write(4 * MIB, Buffer.alloc(MIB, 1));
  await memory.zero(16 * MIB, MIB, false);
  const map = await json<
    {
      offset: number;
      length: number;
      type: number;
    }[]
  >('nbdinfo', '--map', '--json', uri);
  t.deepEqual(
    map.map(({ offset, length, type }) => [offset / MIB, length / MIB, type]),
    [
      [0, 4, 3],
      [4, 1, 0],
      [5, 11, 3],
      [16, 1, 2],
      [17, 47, 3],
    ],
  );
});

judgedBy('nbdcopy')('nbdcopy: both ways on four connections', async (t) => {
  const { memory, server, uri } = await serveDisk(t);
  const image = join(server.directory, 'image.raw');
  const back = join(server.directory, 'back.raw');
  const bytes = makeImage(image);
  await run('nbdcopy', '--connections=4', '--requests=16', '--flush', image, uri);
  t.true(memory.bytes.equals(bytes));
  t.true(memory.flushes > 0);
  await run('nbdcopy', '--connections=4', '--requests=16', uri, back);
  t.true(readFileSync(back).equals(bytes));
});

const SHELL = String.raw`
import errno, nbd, sys
uri = sys.argv[1]
def connect(structured=True, context=True):
    h = nbd.NBD()
    h.set_request_structured_replies(structured)
    if context: h.add_meta_context("base:allocation")
    h.set_strict_mode(0)
    h.set_handshake_flags(nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE | nbd.HANDSHAKE_FLAG_NO_ZEROES)
    h.connect_uri(uri)
    return h
def refused(number, call):
    try:
        call()
    except nbd.Error as error:
        assert error.errnum == number, "%s instead of %s" % (error.errno, errno.errorcode[number])
        return
    raise AssertionError("not refused")
for structured in (True, False):
    h = connect(structured)
    size = h.get_size()
    assert h.get_structured_replies_negotiated() == structured
    h.pwrite(b"a" * 1024, 512)
    h.pwrite(b"b" * 512, 1024, nbd.CMD_FLAG_FUA)
    assert h.pread(2048, 0) == b"\0" * 512 + b"a" * 512 + b"b" * 512 + b"\0" * 512
    big = bytes(range(256)) * (8 * 4096)
    h.pwrite(big, 4 << 20)
    assert h.pread(len(big), 4 << 20) == big
    assert h.pread(32 << 20, 0)[4 << 20:(4 << 20) + len(big)] == big
    h.zero(4096, 4 << 20)
    h.zero(4096, (4 << 20) + 8192, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
    h.trim(4096, (4 << 20) + 16384, nbd.CMD_FLAG_FUA)
    got = h.pread(24576, 4 << 20)
    assert got[:4096] == bytes(4096) and got[8192:12288] == bytes(4096) and got[16384:20480] == bytes(4096)
    h.cache(1 << 20, 0)
    h.flush()
    refused(errno.EINVAL, lambda: h.pread(512, size))
    refused(errno.EINVAL, lambda: h.pread(512, 1))
    refused(errno.EINVAL, lambda: h.pread(0, 0))
    refused(errno.ENOSPC, lambda: h.pwrite(b"x" * 512, size))
    refused(errno.ENOSPC, lambda: h.pwrite(b"x" * 512, (1 << 63) - 512))
    refused(errno.EINVAL, lambda: h.pwrite(b"x" * 100, 0))
    refused(errno.ENOSPC, lambda: h.zero(1024, size - 512))
    refused(errno.EINVAL, lambda: h.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO))
    refused(errno.EINVAL, lambda: h.trim(1024, size - 512))
    refused(errno.EINVAL, lambda: h.trim(512, 0, nbd.CMD_FLAG_NO_HOLE))
    assert h.pread(512, 512) == b"a" * 512
    h.shutdown()
h = connect()
chunks = []
h.pread_structured(1 << 20, 0, lambda data, offset, status, error: chunks.append((offset, len(data), status)))
assert sum(length for _, length, _ in chunks) == 1 << 20
chunks.clear()
h.pread_structured(65536, 0, lambda data, offset, status, error: chunks.append((offset, len(data), status)), nbd.CMD_FLAG_DF)
assert chunks == [(0, 65536, nbd.READ_DATA)], chunks
extents = []
h.block_status(1 << 20, 0, lambda name, offset, entries, error: extents.extend(entries))
assert len(extents) >= 4 and sum(extents[0::2]) <= 1 << 20
extents.clear()
h.block_status(1 << 20, 0, lambda name, offset, entries, error: extents.extend(entries), nbd.CMD_FLAG_REQ_ONE)
assert extents == [512, 3], extents
refused(errno.EINVAL, lambda: h.block_status(1024, h.get_size() - 512, lambda *args: 0))
cookies = [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([i]) * 4096), i * 4096) for i in range(200)]
while h.aio_in_flight() > 0: h.poll(-1)
for cookie in cookies: assert h.aio_command_completed(cookie)
for i in range(200): assert h.pread(4096, i * 4096) == bytes([i]) * 4096
h.shutdown()
old = nbd.NBD()
old.set_full_info(False)
old.set_opt_mode(True)
old.connect_uri(uri)
names = []
old.opt_list(lambda name, description: names.append(name))
assert names == ["disk"], names
contexts = []
old.add_meta_context("base:")
old.opt_list_meta_context(lambda name: contexts.append(name))
assert contexts == ["base:allocation"], contexts
old.opt_info()
old.opt_abort()
print("everything as expected")
`;

judgedBy('nbdsh')('libnbd: every command with its flags and errors, simple and structured', async (t) => {
  const { server, uri } = await serveDisk(t);
  const script = join(server.directory, 'script.py');
  writeFileSync(script, SHELL);
  t.regex(await run(PYTHON, script, uri), /everything as expected/);
});

judgedBy('fio')('fio: verified random writes on four connections, mixed sizes', async (t) => {
  const { uri } = await serveDisk(t);
  const common = [
    '--ioengine=nbd',
    `--uri=${uri}`,
    '--verify=crc32c',
    '--verify_state_save=0',
    '--verify_fatal=1',
    '--randrepeat=0',
    '--group_reporting',
  ];
  await run(
    'fio',
    '--name=small',
    ...common,
    '--rw=randwrite',
    '--bs=4k',
    '--iodepth=32',
    '--size=8m',
    '--numjobs=4',
    '--offset_increment=16m',
  );
  await run(
    'fio',
    '--name=mixed',
    ...common,
    '--rw=randwrite',
    '--bsrange=512-1m',
    '--bs_unaligned=0',
    '--blockalign=512',
    '--iodepth=16',
    '--size=32m',
    '--fsync=32',
  );
  t.pass();
});

judgedBy(
  'fio',
  'nbdcopy',
  'qemu-io',
)('an export that works in the receive buffer, as a volume does, loses and mixes nothing', async (t) => {
  const item = new InPlaceExport(SIZE);
  const server = await startServer({ exports: [item] });
  const uri = server.uri('in-place');
  const common = [
    '--ioengine=nbd',
    `--uri=${uri}`,
    '--verify=crc32c',
    '--verify_state_save=0',
    '--verify_fatal=1',
    '--randrepeat=0',
  ];
  await run(
    'fio',
    '--name=small',
    ...common,
    '--rw=randwrite',
    '--bs=4k',
    '--iodepth=32',
    '--size=8m',
    '--numjobs=4',
    '--offset_increment=16m',
  );
  await run(
    'fio',
    '--name=mixed',
    ...common,
    '--rw=randwrite',
    '--bsrange=512-2m',
    '--blockalign=512',
    '--iodepth=32',
    '--size=64m',
    '--fsync=16',
  );
  await run('fio', '--name=mix', ...common, '--rw=randrw', '--bs=4k', '--iodepth=32', '--size=8m');
  const image = join(server.directory, 'image.raw');
  const back = join(server.directory, 'back.raw');
  const bytes = makeImage(image);
  await run('nbdcopy', '--connections=4', '--request-size=4194304', '--flush', image, uri);
  t.true(item.bytes.equals(bytes));
  await run('nbdcopy', '--connections=4', '--request-size=2097152', uri, back);
  t.true(readFileSync(back).equals(bytes));
  const together = [
    'aio_write -P 1 0 4M',
    'aio_write -f -P 2 8M 4k',
    'aio_read 16M 8M',
    'aio_write -z 12M 1M',
    'aio_flush',
    'read -P 1 0 4M',
    'read -P 0 12M 1M',
  ];
  t.notRegex(
    await run('qemu-io', '-f', 'raw', ...together.flatMap((command) => ['-c', command]), uri),
    /fail|error|Pattern/i,
  );
  await server.stop();
});

/** A CA, a server certificate for localhost and a client certificate, laid out as QEMU's tls-creds-x509 wants them. */
async function makeCertificates(folder: string): Promise<void> {
  mkdirSync(folder);
  const file = (name: string): string => join(folder, name);
  const newKey = ['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj'];
  await run(
    'openssl',
    ...newKey,
    '/CN=test authority',
    '-x509',
    '-days',
    '2',
    '-keyout',
    file('ca-key.pem'),
    '-out',
    file('ca-cert.pem'),
    '-addext',
    'basicConstraints=critical,CA:TRUE',
    '-addext',
    'keyUsage=critical,keyCertSign',
  );
  writeFileSync(
    file('server.ext'),
    'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\nkeyUsage=digitalSignature\n',
  );
  writeFileSync(file('client.ext'), 'extendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\n');
  for (const who of ['server', 'client']) {
    await run(
      'openssl',
      ...newKey,
      `/CN=${who === 'server' ? 'localhost' : 'tester'}`,
      '-keyout',
      file(`${who}-key.pem`),
      '-out',
      file(`${who}.csr`),
    );
    await run(
      'openssl',
      'x509',
      '-req',
      '-in',
      file(`${who}.csr`),
      '-CA',
      file('ca-cert.pem'),
      '-CAkey',
      file('ca-key.pem'),
      '-CAcreateserial',
      '-days',
      '2',
      '-extfile',
      file(`${who}.ext`),
      '-out',
      file(`${who}-cert.pem`),
    );
  }
}

judgedBy(
  'openssl',
  'qemu-img',
  'qemu-io',
  'nbdinfo',
  'nbdcopy',
)('TLS: QEMU, libnbd and our client with certificates; in the clear, or without one, refused', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-tls-'));
  const pki = join(directory, 'pki');
  await makeCertificates(pki);
  const pem = (name: string): string => readFileSync(join(pki, name), 'utf8');
  const memory = new MemoryDevice(16 * MIB);
  const tls = { cert: pem('server-cert.pem'), key: pem('server-key.pem'), clientCa: pem('ca-cert.pem') };
  const server = await NbdServer.start({
    exports: [new DeviceExport(memory, { name: 'disk' })],
    // Long, so that a connection kept by mistake is noticed.
    limits: { handshakeMs: 120_000 },
    listeners: [
      { address: { kind: 'tcp', host: '127.0.0.1', port: 0 }, tls: { ...tls, mode: 'required' } },
      { address: { kind: 'tcp', host: '127.0.0.1', port: 0 }, tls: { ...tls, mode: 'offered' } },
    ],
  });
  const [forced, offered] = server.addresses;
  if (forced?.kind !== 'tcp' || offered?.kind !== 'tcp') return t.fail();
  const address = { kind: 'tcp', host: 'localhost', port: forced.port, exportName: 'disk', tls: true } as const;

  const credentials = ['--object', `tls-creds-x509,id=tls0,dir=${pki},endpoint=client,verify-peer=on`];
  const qemuUri = (port: number): string =>
    `driver=nbd,server.type=inet,server.host=localhost,server.port=${port},export=disk,tls-creds=tls0`;
  t.regex(await run('qemu-img', 'info', ...credentials, '--image-opts', qemuUri(forced.port)), /16 MiB/);
  const io = ['-c', 'write -P 0x5a 1M 9M', '-c', 'read -P 0x5a 1M 9M', '-c', 'write -P 1 512 512', '-c', 'flush'];
  await run('qemu-io', ...credentials, '--image-opts', ...io, qemuUri(forced.port));
  t.true(memory.bytes.subarray(MIB, 10 * MIB).every((byte) => byte === 0x5a));

  const libnbd = `${formatNbdUri(address)}?tls-certificates=${pki}`;
  t.regex(await run('nbdinfo', libnbd), /with TLS/);
  const copy = join(directory, 'copy.raw');
  await run('nbdcopy', libnbd, copy);
  t.true(readFileSync(copy).equals(memory.bytes));

  const client = await NbdClient.connect(address, {
    tls: { ca: pem('ca-cert.pem'), cert: pem('client-cert.pem'), key: pem('client-key.pem') },
  });
  const big = Buffer.alloc(12 * MIB, 0x77);
  await client.write(2 * MIB, big);
  const got = Buffer.alloc(12 * MIB);
  await client.read(2 * MIB, got);
  t.true(got.equals(big));
  t.like(server.clients('disk')[0], { tls: { protocol: 'TLSv1.3', clientName: 'tester' } });
  await client.close();

  const clear = { ...address, tls: false };
  await t.throwsAsync(NbdClient.connect(clear), { code: 'precondition-failed', message: /TLS/ });
  await t.throwsAsync(run('nbdinfo', formatNbdUri(clear)), { message: /TLS/i });
  await t.throwsAsync(run('nbdinfo', '--list', formatNbdUri(clear)));
  await t.throwsAsync(run('qemu-img', 'info', '-f', 'raw', formatNbdUri(clear)), { message: /TLS|refused|Denied/i });
  await t.throwsAsync(NbdClient.connect(address, { tls: { ca: pem('ca-cert.pem') } }).then(async (c) => c.flush()));
  await t.throwsAsync(NbdClient.connect(address), { code: 'device-gone', message: /certificate|issuer/i });
  t.regex(await run('nbdinfo', formatNbdUri({ ...clear, port: offered.port })), /without TLS/);
  t.regex(
    await run('nbdinfo', `${formatNbdUri({ ...address, port: offered.port })}?tls-certificates=${pki}`),
    /with TLS/,
  );

  // A man in the middle may put plaintext behind STARTTLS: it must not count as if it had come through TLS.
  const injected = new RawClient({ host: '127.0.0.1', port: forced.port });
  await injected.read(18);
  injected.write(Buffer.concat([Buffer.from([0, 0, 0, 3]), option(5, Buffer.alloc(0)), option(3, Buffer.alloc(0))]));
  await injected.closed;
  while (server.clients().length > 0) await new Promise(setImmediate);

  // New certificates count for the next connection: of an authority the client does not know.
  const second = join(directory, 'pki2');
  await makeCertificates(second);
  const other = (name: string): string => readFileSync(join(second, name), 'utf8');
  server.reloadTls(0, { mode: 'required', cert: other('server-cert.pem'), key: other('server-key.pem') });
  await t.throwsAsync(run('nbdinfo', libnbd));
  const reloaded = await NbdClient.connect(address, { tls: { ca: other('ca-cert.pem') } });
  await reloaded.flush();
  await reloaded.close();
  t.throws(
    () => server.reloadTls(0, { mode: 'required', cert: other('server-cert.pem'), key: pem('server-key.pem') }),
    {
      code: 'config-invalid',
    },
  );
  await server.close();
  rmSync(directory, { recursive: true });
});

judgedBy('qemu-nbd', 'nbdkit')('our client: qemu-nbd and nbdkit with errors as upstream servers', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-nbd-'));
  const image = join(directory, 'image.raw');
  const bytes = makeImage(image);
  const socket = join(directory, 's');
  const uri = parseNbdUri(`nbd+unix:///disk?socket=${socket}`);
  const started = run('qemu-nbd', '-f', 'raw', '-x', 'disk', '-k', socket, '--discard=unmap', image);
  const client = await connectToStarting(uri);
  const got = Buffer.alloc(SIZE);
  await client.read(0, got);
  t.true(got.equals(bytes));
  await client.write(4096, bytes.subarray(0, MIB), { fua: true });
  await client.zero(8 * MIB, 2 * MIB);
  await client.trim(16 * MIB, MIB);
  const extents = await client.extents(0, SIZE);
  t.is(
    extents.reduce((sum, extent) => sum + extent.length, 0),
    SIZE,
  );
  t.true(extents.some((extent) => extent.kind === 'hole'));
  await client.close();
  await started;
  t.true(
    readFileSync(image)
      .subarray(4096, 4096 + MIB)
      .equals(bytes.subarray(0, MIB)),
  );

  const broken = join(directory, 'broken');
  const arguments_ = [
    '-f',
    '-U',
    broken,
    '--filter=error',
    'memory',
    '1M',
    'error-pread=ENOSPC',
    'error-pread-rate=100%',
  ];
  const nbdkit = start('nbdkit', arguments_);
  const upstream = await connectToStarting(parseNbdUri(`nbd+unix:///?socket=${broken}`));
  await upstream.write(0, Buffer.alloc(4096, 1));
  await t.throwsAsync(upstream.read(0, Buffer.alloc(4096)), { code: 'no-space', message: /ENOSPC/ });
  const gone = new Promise((done) => upstream.onClosed((reason) => done(reason?.code)));
  nbdkit.kill('SIGKILL');
  t.is(await gone, 'device-gone');
  rmSync(directory, { recursive: true });
});
