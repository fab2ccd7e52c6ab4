import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { TidemarkError } from '../../journal/base/errors.ts';
import { readDirectly } from './accepted-socket.ts';
import type { NbdExport } from './export.ts';
import type { NbdLimits } from './limits.ts';
import { type EnterEvent, type ExportCatalogue, Negotiation, type NegotiationEvent } from './negotiation.ts';
import { OptionReply } from './protocol.ts';
import { type ArenaPool, ReplyBuffer } from './reply-buffer.ts';
import { Slab } from './slab.ts';
import type { TlsUpgrader } from './tls.ts';
import { Transmission } from './transmission.ts';

export interface SessionSurroundings {
  readonly catalogue: ExportCatalogue;
  readonly limits: NbdLimits;
  readonly arenas: ArenaPool;
  readonly tls: TlsUpgrader | undefined;
  /** Throws a `TidemarkError` when this listener must not open this export now (DESIGN rule 12). */
  readonly admit: (exportName: string) => void;
  /** The connection is closed; `reason` is empty after a goodbye. */
  readonly closed: (session: NbdSession, reason: string) => void;
}

/** A peer whose machine is gone gives its place back. */
const KEEP_ALIVE_MS = 60_000;

type Phase = 'haggling' | 'securing' | 'serving' | 'ending' | 'closed';

/**
 * One connection from accept to close: handshake, TLS in between if asked for, transmission. It owns the socket and the
 * memory; what the bytes mean is decided by the pure `Negotiation` and the `Transmission`.
 */
export class NbdSession {
  readonly #around: SessionSurroundings;
  readonly #slab: Slab;
  readonly #negotiation: Negotiation;
  /** The handshake's deadline, later that of the last answers. */
  #timer: NodeJS.Timeout;
  #socket: Socket;
  #phase: Phase = 'haggling';
  #transmission: Transmission | undefined;
  #export: NbdExport | undefined;
  #secured: TLSSocket | undefined;
  /** Received through TLS and not in the slab yet. */
  #overflow: Buffer | undefined;
  #lastBytesAt = 0;
  #reason = '';

  /** `accepted` comes from a server with `pauseOnConnect`. */
  constructor(accepted: Socket, around: SessionSurroundings) {
    this.#around = around;
    this.#slab = new Slab(around.limits.windowBytes);
    this.#negotiation = new Negotiation(around.catalogue, around.tls?.mode ?? 'off', around.limits);
    this.#timer = setTimeout(() => this.#fail('no handshake in time'), around.limits.handshakeMs);
    this.#socket = readDirectly(accepted, {
      room: () => this.#slab.room(),
      filled: (bytes, into) => {
        this.#slab.filled(bytes, into);
        return this.#take();
      },
    });
    this.#listen(this.#socket);
    this.#socket.write(this.#negotiation.greeting());
    this.#socket.resume();
  }

  /** The export in use; undefined while haggling. */
  get export(): NbdExport | undefined {
    return this.#export;
  }

  /** The TLS connection, when there is one. */
  get tls(): TLSSocket | undefined {
    return this.#secured;
  }

  /** Takes no further request, answers what was taken, closes. What was not taken a client sends again elsewhere. */
  shutdown(): void {
    if (this.#phase !== 'serving') this.#fail('shutting down');
    else this.#end('shutting down');
  }

  /** Closes at once. */
  destroy(reason: string): void {
    this.#fail(reason);
  }

  /** Closes the connection when a request has begun and not grown for too long. */
  checkProgress(now: number): void {
    const transmission = this.#transmission;
    if (this.#phase !== 'serving' || transmission === undefined) return;
    // what nobody takes cannot grow: its time begins when it may go on
    if (transmission.blocked) this.#lastBytesAt = now;
    if (!transmission.midRequest || now - this.#lastBytesAt < this.#around.limits.requestProgressMs) return;
    this.#fail('a request stopped in the middle');
  }

  #listen(socket: Socket): void {
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.on('drain', () => {
      this.#transmission?.drained();
      this.#progress();
    });
    socket.on('error', (error) => this.#fail(error.message));
    socket.on('close', () => this.#closed());
    socket.on('end', () => {
      if (socket === this.#socket) this.#end(this.#phase === 'serving' ? '' : 'the client left during the handshake');
    });
  }

  /** Acts on what the slab holds; false: the socket must pause. */
  #take(): boolean {
    if (this.#phase === 'haggling') this.#haggle();
    const transmission = this.#transmission;
    if (this.#phase !== 'serving' || transmission === undefined) return this.#phase === 'haggling';
    transmission.run();
    if (transmission.violation !== undefined) this.#end(transmission.violation);
    else if (transmission.goodbye) this.#end('');
    else if (transmission.midRequest) this.#lastBytesAt = performance.now();
    return this.#phase === 'serving' && !transmission.blocked;
  }

  #haggle(): void {
    while (this.#phase === 'haggling') {
      const slab = this.#slab;
      const step = this.#negotiation.step(slab.buffer.subarray(slab.readAt, slab.writeAt));
      slab.readAt += step.consumed;
      for (const part of step.send) this.#socket.write(part);
      if (step.event !== undefined) this.#negotiated(step.event);
      else if (step.consumed === 0) return;
    }
  }

  #negotiated(event: NegotiationEvent): void {
    if (event.kind === 'enter') this.#enter(event);
    else if (event.kind === 'close') this.#end(event.abort ? '' : event.reason);
    else if (this.#slab.unparsedBytes > 0) this.#fail('bytes behind STARTTLS');
    else void this.#secure();
  }

  #enter(event: EnterEvent): void {
    const { limits, arenas } = this.#around;
    try {
      this.#around.admit(event.export.name);
      const output = new ReplyBuffer(this.#socket, arenas, limits.outputBytesMax);
      this.#transmission = new Transmission(event.export, event, this.#slab, output, limits, {
        progress: () => this.#progress(),
        broken: (reason) => this.#fail(reason),
      });
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      const stopping = error.code === 'shutting-down';
      const refusal = event.refuse(stopping ? OptionReply.errShutdown : OptionReply.errPolicy, error.message);
      if (refusal === undefined) this.#end(error.message);
      else this.#socket.write(refusal);
      return;
    }
    clearTimeout(this.#timer);
    this.#export = event.export;
    this.#phase = 'serving';
    for (const part of event.accept) this.#socket.write(part);
  }

  /** The transmission may go on, or has given its last answer. */
  #progress(): void {
    const transmission = this.#transmission;
    if (transmission === undefined) return;
    if (this.#phase === 'ending') this.#finish();
    if (this.#phase !== 'serving' || transmission.blocked) return;
    if (this.#slab.unparsedBytes > 0 && !this.#take()) return;
    if (this.#overflow !== undefined) {
      const bytes = this.#overflow;
      this.#overflow = undefined;
      if (!this.#takeCopied(bytes)) return;
    }
    this.#socket.resume();
  }

  async #secure(): Promise<void> {
    const { tls, limits } = this.#around;
    if (tls === undefined) return;
    this.#phase = 'securing';
    this.#socket.pause();
    // A client that dislikes our certificate just leaves: half-open, that would look like one that is thinking.
    this.#socket.allowHalfOpen = false;
    try {
      const secured = await tls.upgrade(this.#socket, limits.handshakeMs);
      if (this.#phase !== 'securing') {
        secured.destroy();
        return;
      }
      this.#socket = secured;
      this.#secured = secured;
      this.#listen(secured);
      this.#phase = 'haggling';
      this.#negotiation.secured();
      secured.on('data', (bytes: Buffer) => {
        if (!this.#takeCopied(bytes)) secured.pause();
      });
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      this.#fail(error.message);
    }
  }

  /** Bytes that TLS has decrypted into memory of its own; false: the socket must pause. */
  #takeCopied(bytes: Buffer): boolean {
    for (let at = 0; at < bytes.length; ) {
      const taken = this.#slab.append(bytes.subarray(at));
      at += taken;
      if (this.#take()) continue;
      if (at < bytes.length) this.#overflow = bytes.subarray(at);
      return false;
    }
    return true;
  }

  /** No more requests; closes when all answers are on their way. */
  #end(reason: string): void {
    if (this.#phase === 'ending' || this.#phase === 'closed') return;
    this.#phase = 'ending';
    this.#reason = reason;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fail(reason), this.#around.limits.drainMs);
    this.#socket.pause();
    this.#finish();
  }

  #finish(): void {
    if ((this.#transmission?.inFlight ?? 0) > 0) return;
    this.#transmission?.drained();
    const socket = this.#socket;
    if (!socket.writableEnded) socket.end(() => socket.destroy());
  }

  #fail(reason: string): void {
    if (this.#phase === 'closed') return;
    this.#reason ||= reason;
    this.#socket.destroy();
    this.#closed();
  }

  #closed(): void {
    if (this.#phase === 'closed') return;
    if (this.#phase === 'securing') this.#reason ||= 'the client left during the TLS handshake';
    this.#phase = 'closed';
    clearTimeout(this.#timer);
    this.#transmission?.detach();
    this.#around.closed(this, this.#reason);
  }
}
