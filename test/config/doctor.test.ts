import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { examineBrokerTiming } from '../../daemon/doctor/broker-timing.ts';
import { examine } from '../../daemon/doctor/examine.ts';
import { examineGuests } from '../../daemon/doctor/guests.ts';
import { LOCAL_POLICY } from '../../daemon/synchrony/degree-policy.ts';

const DEGREE = { ...LOCAL_POLICY, ack: 'stream' } as const;

test('broker settings that stop the stream for longer than a group waits are named, with what to set', (t) => {
  const tuned = new Map([
    ['broker.session.timeout.ms', '3000'],
    ['replica.lag.time.max.ms', '3000'],
    ['controller.quorum.fetch.timeout.ms', '1000'],
    ['controller.quorum.election.timeout.ms', '500'],
  ]);
  t.like(examineBrokerTiming('x', tuned, DEGREE), [{ verdict: 'ok' }]);
  t.deepEqual(examineBrokerTiming('x', new Map(), LOCAL_POLICY), [], 'nobody waits');
  const [slow] = examineBrokerTiming('x', new Map([...tuned, ['replica.lag.time.max.ms', '30000']]), DEGREE);
  t.is(slow?.verdict, 'warning');
  t.is(slow?.advice, 'on every broker: replica.lag.time.max.ms=3000 (now 30000); or a longer stallAfter');
  const [defaults] = examineBrokerTiming('x', new Map(), { ...DEGREE, stallAfterMs: 60_000 });
  t.is(defaults?.verdict, 'ok', 'who waits long enough rides through it');
  const [short] = examineBrokerTiming('x', new Map(), DEGREE);
  t.regex(short?.message ?? '', /dies stops the stream for about 13\.5 s.*30 s.*degrade comes first/);
});

/** A /proc with these command lines, by pid. */
function withProc(commandLines: Record<string, string[]>, run: (proc: string) => Promise<void>): Promise<void> {
  const proc = mkdtempSync(join(tmpdir(), 'tidemark-proc-'));
  for (const [pid, words] of Object.entries(commandLines)) {
    mkdirSync(join(proc, pid));
    writeFileSync(join(proc, pid, 'cmdline'), `${words.join('\0')}\0`);
  }
  return run(proc).finally(() => rmSync(proc, { recursive: true, force: true }));
}

const LIBVIRT_NBD = JSON.stringify({
  driver: 'nbd',
  server: { type: 'unix', path: '/run/tidemark/nbd.sock' },
  export: 'root',
  'node-name': 'libvirt-1-storage',
});

test('guests without reconnect-delay are found, whatever the spelling of their command line', async (t) => {
  const qemu = '/usr/bin/qemu-system-x86_64';
  await withProc(
    {
      '1': ['/sbin/init'],
      '10': [qemu, '-name', 'guest=web,debug-threads=on', '-blockdev', LIBVIRT_NBD],
      '11': [
        qemu,
        '-blockdev',
        'driver=nbd,server.type=unix,server.path=/a.sock,export=x,reconnect-delay=300,node-name=n',
      ],
      '12': [qemu, '-drive', 'file=nbd+unix:///x?socket=/b.sock,format=raw'],
      '13': [
        qemu,
        '-blockdev',
        'driver=raw,node-name=r,file.driver=nbd,file.server.type=inet,file.server.host=h,file.server.port=1,file.reconnect-delay=5',
      ],
      '14': [qemu, '-drive', 'file=/images/x.raw'],
    },
    async (proc) => {
      const found = (await examineGuests(proc)).map(({ subject, verdict, message, advice }) => ({
        subject,
        verdict,
        text: `${message} ${advice}`,
      }));
      t.deepEqual(
        found.map(({ subject, verdict }) => `${subject}: ${verdict}`).toSorted((a, b) => a.localeCompare(b)),
        ['QEMU (pid 11): ok', 'QEMU (pid 12): problem', 'QEMU (pid 13): warning', 'QEMU web (pid 10): problem'],
      );
      t.regex(found.find(({ subject }) => subject.includes('web'))?.text ?? '', /libvirt dropped <reconnect>/);
      t.regex(found.find(({ subject }) => subject.includes('13'))?.text ?? '', /h:1/);
    },
  );
});

test('a configuration is compared with the machine', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-doctor-'));
  try {
    const file = join(directory, 'source.yaml');
    const image = join(directory, 'root.raw');
    writeFileSync(image, Buffer.alloc(4096));
    writeFileSync(
      file,
      `stateDir: ${directory}/state
control: { socket: ${directory}/control/c.sock }
groups:
  - name: shop
    journal: { directory: ${directory}/journal, budget: 64MiB, fileSize: 16MiB }
    volumes:
      - { name: root, backing: ${image}, size: 8192B, start: seed }
      - { name: missing, backing: ${directory}/none.raw, start: empty }
    listen: { tcp: "192.0.2.1:10809" }
    stream: { direct: { replicas: [{ name: b, connect: "127.0.0.1:1" }] } }
    replicas: [{ name: b }]
    outOfRoom: block
`,
    );
    const found = await examine(file, 'source');
    const of = (subject: string): string | undefined =>
      found.find((finding) => finding.subject === `shop: ${subject}`)?.verdict;
    t.is(of('volume root'), 'problem');
    t.is(of('volume missing'), 'problem');
    t.is(of('listen'), 'warning');
    t.is(of('replica b'), 'warning');
    t.not(of('journal.directory'), 'problem');
    for (const finding of found) if (finding.verdict === 'problem') t.not(finding.advice, '', finding.message);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
