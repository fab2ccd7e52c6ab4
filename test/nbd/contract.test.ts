import test from 'ava';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { DeviceExport } from '../../daemon/nbd/device-export.ts';
import { blockDeviceContract, type ContractSubject } from '../contract/block-device-contract.ts';
import { MemoryDevice } from '../doubles/memory-device.ts';
import { startServer } from './support.ts';

blockDeviceContract(test, 'memory device', {
  empty: async (size) => ({ device: new MemoryDevice(size) }),
  readOnly: async (size) => ({ device: new MemoryDevice(size, { readOnly: true }) }),
});

/** A memory device behind a server behind a client. */
async function overTheWire(memory: MemoryDevice): Promise<ContractSubject> {
  const server = await startServer({ exports: [new DeviceExport(memory, { name: 'disk' })] });
  const client = await NbdClient.connect(server.address('disk'));
  return {
    device: {
      size: client.size,
      readOnly: client.flags.readOnly,
      read: async (offset, into) => client.read(offset, into),
      write: async (offset, from) => client.write(offset, from),
      zero: async (offset, length, mayUnmap) => client.zero(offset, length, { mayUnmap }),
      flush: async () => client.flush(),
      extents: async (offset, length) => client.extents(offset, length),
      close: async () => client.close(),
    },
    dispose: async () => server.stop(),
  };
}

blockDeviceContract(test, 'client and server', {
  empty: async (size) => overTheWire(new MemoryDevice(size)),
  readOnly: async (size) => overTheWire(new MemoryDevice(size, { readOnly: true })),
});
