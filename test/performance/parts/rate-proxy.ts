import net, { type AddressInfo } from 'node:net';

/** A way to a server that takes so many bytes per second towards it; the way back is free. */
export class RateProxy {
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();

  private constructor(port: number, bytesPerSecond: number) {
    let busyUntil = 0;
    this.#server = net.createServer((client) => {
      const server = net.connect(port, '127.0.0.1');
      for (const socket of [client, server]) {
        this.#sockets.add(socket);
        socket.setNoDelay(true);
        socket.on('error', () => undefined);
        socket.on('close', () => {
          this.#sockets.delete(socket);
          client.destroy();
          server.destroy();
        });
      }
      server.pipe(client);
      client.on('data', (bytes) => {
        // as a wire does: nothing more is taken before this has gone
        busyUntil = Math.max(busyUntil, performance.now()) + (bytes.length / bytesPerSecond) * 1000;
        client.pause();
        setTimeout(() => {
          server.write(bytes);
          client.resume();
        }, busyUntil - performance.now());
      });
    });
  }

  static async listen(port: number, bytesPerSecond: number): Promise<RateProxy> {
    const proxy = new RateProxy(port, bytesPerSecond);
    await new Promise<void>((resolve) => {
      proxy.#server.listen(0, '127.0.0.1', resolve);
    });
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}
