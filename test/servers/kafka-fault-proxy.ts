import net, { type AddressInfo } from 'node:net';

/** Kafka's number of a Produce request. */
const PRODUCE = 0;

/**
 * A TCP proxy that knows where Kafka's requests and responses begin and end, and mistreats some of them: a Produce the
 * broker never sees, one it has written but whose answer is lost (both by a killed connection), an answer that is
 * swallowed while the connection lives on, delay, a message cut in its middle, a reset, a standstill, a flipped bit.
 */
export class KafkaFaultProxy {
  /** Chance per Produce that the connection is killed before the broker sees it. */
  requestLost = 0;
  /** Chance per Produce that the connection is killed after the broker answered, before the client sees it. */
  responseLost = 0;
  /** How many of the next answers to Produce are swallowed. */
  swallow = 0;
  /** How many of the next answers end the connection in their middle. */
  cutAnswers = 0;
  /** Each way. */
  delayMs = 0;
  /** What all Produce together may take of the way to the broker, as on a slow line; 0: as much as there is. */
  producedBytesPerSecond = 0;
  /** Chance per message, each way, that the connection ends in its middle. */
  cutMidFrame = 0;
  /** Chance per message, each way, that both connections are reset instead. */
  reset = 0;
  /** Chance per message, each way, that one bit behind its length is another. */
  bitFlip = 0;
  readonly counts = {
    connections: 0,
    produced: 0,
    requestsLost: 0,
    responsesLost: 0,
    swallowed: 0,
    cutMidFrame: 0,
    resets: 0,
    bitFlips: 0,
  };
  readonly #server: net.Server;
  /** Ends a pair of connections; by the client id that the client's first request gave. */
  readonly #pairs = new Map<() => void, string>();
  readonly #lanes = new Set<Lane>();
  #frozen = false;
  #closed = false;
  readonly #random: () => number;
  #targetPort = 0;
  #producedUntilMs = 0;

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

  /** Kills every connection, or those of one client id. */
  cut(clientId?: string): void {
    for (const [kill, id] of this.#pairs) if (clientId === undefined || id === clientId) kill();
  }

  /** Accepts connections and bytes, and passes nothing on before `thaw`. */
  freeze(): void {
    this.#frozen = true;
  }

  thaw(): void {
    this.#frozen = false;
    for (const lane of this.#lanes) lane.pump();
  }

  mend(): void {
    this.requestLost = 0;
    this.responseLost = 0;
    this.swallow = 0;
    this.cutAnswers = 0;
    this.delayMs = 0;
    this.producedBytesPerSecond = 0;
    this.cutMidFrame = 0;
    this.reset = 0;
    this.bitFlip = 0;
    this.thaw();
  }

  close(): void {
    this.#closed = true;
    this.cut();
    this.#server.close();
  }

  #accept(client: net.Socket): void {
    if (this.#closed) {
      client.destroy();
      return;
    }
    this.counts.connections++;
    const broker = net.connect(this.#targetPort, '127.0.0.1');
    const kinds: number[] = [];
    const isFrozen = (): boolean => this.#frozen;
    const [toBroker, toClient] = [new Lane(broker, isFrozen), new Lane(client, isFrozen)];
    this.#lanes.add(toBroker).add(toClient);
    const kill = (): void => {
      this.#pairs.delete(kill);
      this.#lanes.delete(toBroker);
      this.#lanes.delete(toClient);
      client.destroy();
      broker.destroy();
    };
    this.#pairs.set(kill, '');
    const requests = messagesOf((message) => {
      const kind = message.readInt16BE(4);
      if (this.#pairs.has(kill)) this.#pairs.set(kill, clientIdOf(message));
      if (kind === PRODUCE) this.counts.produced++;
      if (kind === PRODUCE && this.#random() < this.requestLost) {
        this.counts.requestsLost++;
        kill();
        return;
      }
      kinds.push(kind);
      const waitMs = kind === PRODUCE ? this.#lineMs(message.length) : 0;
      this.#forward(toBroker, message, [client, broker], kill, waitMs);
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
      if (this.cutAnswers > 0) {
        this.cutAnswers--;
        this.counts.cutMidFrame++;
        toClient.add(half(message), this.delayMs, kill);
        return;
      }
      this.#forward(toClient, message, [client, broker], kill);
    });
    client.on('data', requests);
    broker.on('data', responses);
    for (const socket of [client, broker]) {
      socket.setNoDelay(true);
      socket.on('error', kill);
      socket.on('close', kill);
    }
  }

  /** How long until the slow line has taken so many bytes more. */
  #lineMs(bytes: number): number {
    if (this.producedBytesPerSecond === 0) return 0;
    const now = performance.now();
    const lasts = (bytes / this.producedBytesPerSecond) * 1000;
    this.#producedUntilMs = Math.max(this.#producedUntilMs, now) + lasts;
    return this.#producedUntilMs - now;
  }

  #forward(lane: Lane, message: Buffer, pair: readonly net.Socket[], kill: () => void, waitMs = 0): void {
    const delayMs = this.delayMs + waitMs;
    if (this.#random() < this.reset) {
      this.counts.resets++;
      for (const socket of pair) socket.resetAndDestroy();
      kill();
    } else if (this.#random() < this.cutMidFrame) {
      this.counts.cutMidFrame++;
      lane.add(half(message), delayMs, kill);
    } else if (message.length > 4 && this.#random() < this.bitFlip) {
      this.counts.bitFlips++;
      const flipped = Buffer.from(message);
      const at = 4 + Math.floor(this.#random() * (message.length - 4));
      flipped[at] = (flipped[at] ?? 0) ^ (1 << Math.floor(this.#random() * 8));
      lane.add(flipped, delayMs);
    } else {
      lane.add(message, delayMs);
    }
  }
}

/** One direction of one connection: what is delayed stays in order, as in TCP, whatever becomes of the delay. */
class Lane {
  readonly #to: net.Socket;
  readonly #frozen: () => boolean;
  readonly #waiting: { readonly bytes: Buffer; readonly dueMs: number; readonly written?: (() => void) | undefined }[] =
    [];

  #ends = false;

  constructor(to: net.Socket, frozen: () => boolean) {
    this.#to = to;
    this.#frozen = frozen;
  }

  /** Nothing follows what was added with `written`: the connection ends with it. */
  add(bytes: Buffer, delayMs: number, written?: () => void): void {
    if (this.#ends) return;
    this.#ends = written !== undefined;
    this.#waiting.push({ bytes, dueMs: performance.now() + delayMs, written });
    if (delayMs === 0) this.pump();
    else setTimeout(() => this.pump(), delayMs + 1);
  }

  /** Writes what is due. */
  pump(): void {
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      if (this.#frozen() || first.dueMs > performance.now()) return;
      this.#waiting.shift();
      if (!this.#to.destroyed) this.#to.write(first.bytes, () => first.written?.());
      else first.written?.();
    }
  }
}

function half(message: Buffer): Buffer {
  return message.subarray(0, Math.ceil(message.length / 2));
}

/** Header of a request: length int32, kind int16, version int16, number int32, then the client id behind its int16 length. */
function clientIdOf(message: Buffer): string {
  if (message.length < 14) return '';
  const length = message.readInt16BE(12);
  return length < 0 ? '' : message.toString('utf8', 14, 14 + length);
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
