import net from 'node:net';

/** A QEMU monitor, as much of it as the tests need: commands in order, events kept. */
export class QmpClient {
  readonly #socket: net.Socket;
  readonly #pending: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = [];
  readonly events: { event: string; data?: unknown }[] = [];
  #text = '';

  private constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#receive(text));
    socket.on('error', (error) => this.#end(error));
    socket.on('close', () => this.#end(new Error('the monitor closed the connection')));
  }

  /** Connects to the unix socket and leaves the capability negotiation behind. */
  static async connect(path: string): Promise<QmpClient> {
    const socket = net.connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    const client = new QmpClient(socket);
    await client.execute('qmp_capabilities');
    return client;
  }

  execute(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#pending.push({ resolve, reject });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #receive(text: string): void {
    this.#text += text;
    for (;;) {
      const end = this.#text.indexOf('\n');
      if (end < 0) return;
      const line = this.#text.slice(0, end);
      this.#text = this.#text.slice(end + 1);
      if (line.trim() !== '') this.#message(JSON.parse(line));
    }
  }

  #message(message: {
    return?: unknown;
    error?: { desc: string };
    event?: string;
    data?: unknown;
    QMP?: unknown;
  }): void {
    if (message.QMP !== undefined) return;
    if (message.event !== undefined) {
      this.events.push({ event: message.event, data: message.data });
      return;
    }
    const waiter = this.#pending.shift();
    if (message.error === undefined) waiter?.resolve(message.return);
    else waiter?.reject(new Error(message.error.desc));
  }

  #end(error: Error): void {
    for (const waiter of this.#pending.splice(0)) waiter.reject(error);
  }
}
