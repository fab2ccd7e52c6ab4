/**
 * The numbers of the NBD protocol (NetworkBlockDevice/nbd, doc/proto.md). All integers on the wire are big endian.
 * 64-bit magics are written as two 32-bit halves: the codecs never touch a BigInt.
 */

/** "NBDMAGIC", "IHAVEOPT" and the option reply magic (sections "Newstyle negotiation", "Fixed newstyle negotiation"). */
export const NBDMAGIC = { high: 0x4e42_444d, low: 0x4147_4943 } as const;
export const IHAVEOPT = { high: 0x4948_4156, low: 0x454f_5054 } as const;
export const OPTION_REPLY_MAGIC = { high: 0x0003_e889, low: 0x0455_65a9 } as const;

/** Section "Transmission phase": request, simple reply, structured reply chunk. */
export const REQUEST_MAGIC = 0x2560_9513;
export const SIMPLE_REPLY_MAGIC = 0x6744_6698;
export const STRUCTURED_REPLY_MAGIC = 0x668e_33ef;

export const REQUEST_BYTES = 28;
export const SIMPLE_REPLY_BYTES = 16;
export const CHUNK_HEADER_BYTES = 20;
export const OPTION_HEADER_BYTES = 16;
export const OPTION_REPLY_HEADER_BYTES = 20;
export const GREETING_BYTES = 18;

/** Section "Handshake flags": server's, then client's. */
export const HandshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;
export const ClientFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

/** Section "Option types". */
export const Option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

/** Section "Option reply types"; errors have bit 31 set. */
export const OptionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errUnsupported: 0x8000_0001,
  errPolicy: 0x8000_0002,
  errInvalid: 0x8000_0003,
  errPlatform: 0x8000_0004,
  errTlsRequired: 0x8000_0005,
  errUnknown: 0x8000_0006,
  errShutdown: 0x8000_0007,
  errBlockSizeRequired: 0x8000_0008,
  errTooBig: 0x8000_0009,
} as const;

/** Section "Option reply types", NBD_REP_INFO. */
export const Info = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** Section "Transmission flags". */
export const TransmissionFlag = {
  hasFlags: 0x1,
  readOnly: 0x2,
  sendFlush: 0x4,
  sendFua: 0x8,
  rotational: 0x10,
  sendTrim: 0x20,
  sendWriteZeroes: 0x40,
  sendDf: 0x80,
  canMultiConn: 0x100,
  sendResize: 0x200,
  sendCache: 0x400,
  sendFastZero: 0x800,
} as const;

/** Section "Request types". */
export const Command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

/** Section "Structured reply flags" and "Structured reply types"; errors have bit 15 set. */
export const CHUNK_DONE = 1;
export const Chunk = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;
export const CHUNK_ERROR_BIT = 0x8000;

/** Section "Error values": the only numbers that may appear on the wire. */
export const Errno = {
  none: 0,
  eperm: 1,
  eio: 5,
  enomem: 12,
  einval: 22,
  enospc: 28,
  eoverflow: 75,
  enotsup: 95,
  eshutdown: 108,
} as const;
export type NbdErrno = Exclude<(typeof Errno)[keyof typeof Errno], 0>;

/** Section "Metadata querying": the one context offered, and its status bits. */
export const BASE_ALLOCATION = 'base:allocation';
export const AllocationFlag = { hole: 1, zero: 2 } as const;

/** Section "Block size constraints": what must work without negotiation, and the most that is taken. */
export const PAYLOAD_BYTES_MAX: number = 32 * 1024 * 1024;
/** Section "String encoding". */
export const STRING_BYTES_MAX = 4096;
/** Extents in one block status reply: the protocol allows 2^20, a reply buffer of 256 KiB holds these. */
export const EXTENTS_PER_REPLY_MAX: number = 1 << 15;
/** IANA. */
export const NBD_PORT = 10809;
