import net, { type AddressInfo } from 'node:net';

/** A TCP proxy that hands every byte on a fixed time later, each way: a longer line of any rate, without loss. */
export class DelayProxy {
  /** Each way. */
  delayMs = 0;
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();

  private constructor(target: { host: string; port: number }) {
    this.#server = net.createServer((near) => {
      const far = net.connect(target);
      this.#hand(near, far);
      this.#hand(far, near);
    });
  }

  /** `target`: `host:port`. */
  static async listen(target: string): Promise<DelayProxy> {
    const at = target.lastIndexOf(':');
    const proxy = new DelayProxy({ host: target.slice(0, at), port: Number(target.slice(at + 1)) });
    await new Promise<void>((resolve) => {
      proxy.#server.listen(0, '127.0.0.1', resolve);
    });
    return proxy;
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }

  #hand(from: net.Socket, to: net.Socket): void {
    this.#sockets.add(from);
    from.setNoDelay(true);
    from.on('error', () => undefined);
    from.on('data', (bytes) => this.#later(() => to.write(bytes)));
    from.on('close', () => {
      this.#sockets.delete(from);
      this.#later(() => to.destroy());
    });
  }

  #later(run: () => void): void {
    if (this.delayMs === 0) run();
    else setTimeout(run, this.delayMs);
  }
}
