import test from 'ava';
import { DirectListener } from '../../daemon/stream/direct/direct-listener.ts';
import { DirectSink } from '../../daemon/stream/direct/direct-sink.ts';
import { TcpDialer, TcpListener } from '../../daemon/stream/direct/tcp-wire.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { damageOnBothSides, GROUP_ID } from './both-sides.ts';

test('over TCP: damage at the replica and at the source is put back from the other side, and both go on', async (t) => {
  const host = realHost();
  const listener = new DirectListener(host.clock, { listener: new TcpListener('127.0.0.1', 0) });
  const port = Number((await listener.listen()).split(':')[1]);
  t.teardown(() => listener.close());
  await damageOnBothSides(t, {
    sink: () => new DirectSink(host, { replica: 'r', dialer: new TcpDialer('127.0.0.1', port), retryMaxMs: 200 }),
    source: () => listener.source({ groupName: 'both', groupId: GROUP_ID }),
  });
});
