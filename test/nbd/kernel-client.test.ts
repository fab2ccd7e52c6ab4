import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { openBacking } from '../../daemon/backing/open-backing.ts';
import { DeviceExport } from '../../daemon/nbd/device-export.ts';
import { NbdServer } from '../../daemon/nbd/server.ts';
import { checkGuestImage, Guest, guestMissing, makeGuestDisk } from '../servers/guest.ts';
import { testUnless } from '../setup/test-unless.ts';

const DISK_BYTES = 64 * 1024 ** 2;
const STEPS = 60;

const missing = guestMissing();

testUnless(missing)("the Linux kernel's own client, two connections, ext4 on it", async (t) => {
  t.timeout(120_000);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-kernel-'));
  const image = path.join(directory, 'disk.raw');
  await makeGuestDisk(image, DISK_BYTES);
  const device = await openBacking(image);
  const disk = new DeviceExport(device, { name: 'disk0' });
  const server = await NbdServer.start({
    listeners: [{ address: { kind: 'tcp', host: '127.0.0.1', port: 0 } }],
    exports: [disk],
  });
  try {
    const address = server.addresses[0];
    const port = address?.kind === 'tcp' ? address.port : 0;
    const guest = Guest.start({
      directory,
      disk: 'driver=null-co,node-name=disk0,size=1048576',
      reconnectDelay: 0,
      steps: STEPS,
      kernelNbd: { address: `10.0.2.2:${port}/disk0`, connections: 2 },
    });
    await guest.child.exited();
    t.regex(guest.serial(), /GUEST done/, guest.serial().slice(-2000));
    t.is(guest.lastDurable(), STEPS);
  } finally {
    await server.close();
    await device.close();
  }
  t.regex(await checkGuestImage(image, directory, STEPS), /PASS/);
  fs.rmSync(directory, { recursive: true, force: true });
});
