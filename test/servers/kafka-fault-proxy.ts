import net, { type AddressInfo } from 'node:net';

/** Kafka's number of a Produce request. */
const PRODUCE = 0;

/**
 * A TCP proxy that knows where Kafka's requests and responses begin and end, and loses some of them: a Produce the
 * broker never sees, one it has written but whose answer is lost (both by a killed connection), an answer that is
 * swallowed while the connection lives on, and delay.
 */
export class KafkaFaultProxy {
  /** Chance per Produce that the connection is killed before the broker sees it. */
  requestLost = 0;
  /** Chance per Produce that the connection is killed after the broker answered, before the client sees it. */
  responseLost = 0;
  /** How many of the next answers to Produce are swallowed. */
  swallow = 0;
  /** Each way. */
  delayMs = 0;
  /** New connections are closed at once, and the present ones were. */
  refusing = false;
  readonly counts = { connections: 0, produced: 0, requestsLost: 0, responsesLost: 0, swallowed: 0 };
  readonly #server: net.Server;
  readonly #pairs = new Set<() => void>();
  readonly #random: () => number;
  #targetPort = 0;

  private constructor(random: () => number) {
    this.#random = random;
    this.#server = net.createServer((client) => this.#accept(client));
  }

  static async listen(random: () => number): Promise<KafkaFaultProxy> {
    const proxy = new KafkaFaultProxy(random);
    await new Promise<void>((resolve) => {
      proxy.#server.listen(0, '127.0.0.1', resolve);
    });
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  forwardTo(port: number): void {
    this.#targetPort = port;
  }

  /** Kills every connection and refuses new ones until `mend`. */
  cut(): void {
    this.refusing = true;
    for (const kill of this.#pairs) kill();
  }

  mend(): void {
    this.refusing = false;
    this.requestLost = 0;
    this.responseLost = 0;
    this.swallow = 0;
    this.delayMs = 0;
  }

  close(): void {
    this.cut();
    this.#server.close();
  }

  #accept(client: net.Socket): void {
    if (this.refusing) {
      client.destroy();
      return;
    }
    this.counts.connections++;
    const broker = net.connect(this.#targetPort, '127.0.0.1');
    const kinds: number[] = [];
    const kill = (): void => {
      this.#pairs.delete(kill);
      client.destroy();
      broker.destroy();
    };
    this.#pairs.add(kill);
    const requests = messagesOf((message) => {
      const kind = message.readInt16BE(4);
      if (kind === PRODUCE) this.counts.produced++;
      if (kind === PRODUCE && this.#random() < this.requestLost) {
        this.counts.requestsLost++;
        kill();
        return;
      }
      kinds.push(kind);
      this.#forward(broker, message);
    });
    const responses = messagesOf((message) => {
      const kind = kinds.shift();
      if (kind === PRODUCE && this.swallow > 0) {
        this.swallow--;
        this.counts.swallowed++;
        return;
      }
      if (kind === PRODUCE && this.#random() < this.responseLost) {
        this.counts.responsesLost++;
        kill();
        return;
      }
      this.#forward(client, message);
    });
    client.on('data', requests);
    broker.on('data', responses);
    for (const socket of [client, broker]) {
      socket.setNoDelay(true);
      socket.on('error', kill);
      socket.on('close', kill);
    }
  }

  #forward(to: net.Socket, message: Buffer): void {
    if (this.delayMs === 0) {
      if (!to.destroyed) to.write(message);
      return;
    }
    setTimeout(() => {
      if (!to.destroyed) to.write(message);
    }, this.delayMs);
  }
}

/** Cuts a byte stream into messages of a 4-byte length and as many bytes. */
function messagesOf(take: (message: Buffer) => void): (chunk: Buffer) => void {
  let parts: Buffer[] = [];
  let bytes = 0;
  return (chunk) => {
    parts.push(chunk);
    bytes += chunk.length;
    while (bytes >= 8) {
      let first = parts[0] ?? Buffer.alloc(0);
      if (first.length < 8) {
        first = Buffer.concat(parts);
        parts = [first];
      }
      const length = first.readInt32BE(0) + 4;
      if (bytes < length) return;
      const whole = parts.length > 1 ? Buffer.concat(parts) : first;
      parts = [whole.subarray(length)];
      bytes -= length;
      take(whole.subarray(0, length));
    }
  };
}
