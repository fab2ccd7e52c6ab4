import test, { type ExecutionContext } from 'ava';
import { DirectListener } from '../../daemon/stream/direct/direct-listener.ts';
import { DirectSink } from '../../daemon/stream/direct/direct-sink.ts';
import { TcpDialer, TcpListener } from '../../daemon/stream/direct/tcp-wire.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { damageOnBothSides, GROUP_ID, type Streams } from './both-sides.ts';
import { giveUpLostRecords } from './lost-records.ts';

async function streams(t: ExecutionContext): Promise<Streams> {
  const host = realHost();
  const listener = new DirectListener(host.clock, { listener: new TcpListener('127.0.0.1', 0) });
  const port = Number((await listener.listen()).split(':')[1]);
  t.teardown(() => listener.close());
  return {
    sink: () => new DirectSink(host, { replica: 'r', dialer: new TcpDialer('127.0.0.1', port), retryMaxMs: 200 }),
    source: () => listener.source({ groupName: 'both', groupId: GROUP_ID }),
  };
}

test('over TCP: damage at the replica and at the source is put back from the other side, and both go on', async (t) => {
  await damageOnBothSides(t, await streams(t));
});

test('over TCP: records that rotted at the source before the replica had them are given up, and history goes on', async (t) => {
  await giveUpLostRecords(t, await streams(t), false);
});
