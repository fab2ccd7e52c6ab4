#!/usr/bin/env python3
"""What a volume held at given LSNs, worked out from a replica's segment files by a program that shares no code with the
product: written from journal/FORMAT.md only, in another language, with its own checksums and the system's libzstd.

usage: independent_replay.py SEGMENT_DIRECTORY VOLUME_ID SIZE_BYTES LSN [LSN ...]

Prints one line per LSN in rising order: "LSN SHA256", the digest of the whole volume as of that record; then
"RECORDS first last count". Any checksum that does not hold ends the program with exit status 1 and the place.
"""
import ctypes
import hashlib
import os
import struct
import sys

SECTOR = 512
BLOCK = 1 << 20
KIND_WRITE, KIND_ZERO, KIND_TRIM, KIND_SEED, KIND_INCARNATION, KIND_BLANK = 1, 2, 3, 8, 7, 18
FLAG_PIECE, FLAG_CLOSES = 1, 2
FRAME_HEADER = 160

_zstd = ctypes.CDLL("libzstd.so.1")
_zstd.ZSTD_decompress.restype = ctypes.c_size_t
_zstd.ZSTD_decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]


def unpack_zstd(data, plain_bytes):
    out = ctypes.create_string_buffer(plain_bytes)
    got = _zstd.ZSTD_decompress(out, plain_bytes, data, len(data))
    if got != plain_bytes:
        raise SystemExit(f"zstd gave {got} bytes instead of {plain_bytes}")
    return out.raw


# The CRC-32C of e2fsprogs: neither the product's nor slow.
_ext2fs = ctypes.CDLL("libext2fs.so.2")
_ext2fs.ext2fs_crc32c_le.restype = ctypes.c_uint32
_ext2fs.ext2fs_crc32c_le.argtypes = [ctypes.c_uint32, ctypes.c_char_p, ctypes.c_size_t]


def crc32c(data):
    return _ext2fs.ext2fs_crc32c_le(0xFFFFFFFF, data, len(data)) ^ 0xFFFFFFFF


class Volume:
    """The image and, per MiB, a digest that is worked out again only when the MiB has changed."""

    def __init__(self, size):
        self.image = bytearray(size)
        self.digests = [None] * ((size + BLOCK - 1) // BLOCK)

    def put(self, offset, data):
        self.image[offset:offset + len(data)] = data
        for block in range(offset // BLOCK, (offset + len(data) - 1) // BLOCK + 1):
            self.digests[block] = None

    def digest(self):
        view = memoryview(self.image)
        for block, known in enumerate(self.digests):
            if known is None:
                self.digests[block] = hashlib.sha256(view[block * BLOCK:(block + 1) * BLOCK]).digest()
        return hashlib.sha256(b"".join(self.digests)).hexdigest()


def frames(directory):
    """Every frame of every segment file, in the order of its first LSN."""
    found = []
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        if not os.path.isfile(path) or os.path.getsize(path) < 4096 + FRAME_HEADER:
            continue
        with open(path, "rb") as file:
            data = file.read()
        at = 4096
        while at + FRAME_HEADER <= len(data) and data[at:at + 4] == b"TMF1":
            frame_bytes, = struct.unpack_from("<I", data, at + 8)
            frame = data[at:at + frame_bytes]
            if len(frame) < frame_bytes:
                break
            first_lsn, = struct.unpack_from("<Q", frame, 32)
            found.append((first_lsn, path, at, frame))
            at += frame_bytes
    found.sort(key=lambda entry: entry[0])
    return found


def records(frame, where):
    """(lsn, kind, flags, volume, sector, sectors, request, payload) of one frame; every checksum is checked."""
    stated, = struct.unpack_from("<I", frame, 12)
    if crc32c(frame[:12] + b"\0\0\0\0" + frame[16:FRAME_HEADER]) != stated:
        raise SystemExit(f"{where}: header checksum")
    first_lsn, count = struct.unpack_from("<QI", frame, 32)
    list_plain, list_stored, list_crc, list_codec = struct.unpack_from("<IIIB", frame, 104)
    chunk_bytes, chunk_count, payload_plain, _stored, _table_crc = struct.unpack_from("<IIIII", frame, 120)
    at = FRAME_HEADER
    listing = frame[at:at + list_stored]
    if crc32c(listing) != list_crc:
        raise SystemExit(f"{where}: record list checksum")
    if list_codec == 1:
        listing = unpack_zstd(listing, list_plain)
    at += list_stored
    table = at
    at += 8 * chunk_count
    payload = bytearray()
    for chunk in range(chunk_count):
        stored, crc = struct.unpack_from("<II", frame, table + 8 * chunk)
        packed, stored = stored >> 31, stored & 0x7FFFFFFF
        data = frame[at:at + stored]
        if crc32c(data) != crc:
            raise SystemExit(f"{where}: chunk {chunk} checksum")
        plain = min(chunk_bytes, payload_plain - chunk * chunk_bytes)
        payload += unpack_zstd(data, plain) if packed else data
        at += stored
    offset = 0
    for index in range(count):
        kind, flags, volume, length, sector, sectors, crc, _time, request = struct.unpack_from(
            "<BBHIQIIQI", listing, 40 * index)
        data = bytes(payload[offset:offset + length])
        if crc32c(data) != crc:
            raise SystemExit(f"{where}: record {first_lsn + index} checksum")
        yield first_lsn + index, kind, flags, volume, sector, sectors, request, data
        offset += length


def main():
    directory, volume_id, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    wanted = sorted({int(argument) for argument in sys.argv[4:]})
    volume, pieces, expected, first, count = Volume(size), {}, None, None, 0
    for _, path, at, frame in frames(directory):
        for lsn, kind, flags, owner, sector, sectors, request, payload in records(frame, f"{path} at {at}"):
            if expected is not None and lsn < expected:
                continue  # a frame sent again with other borders
            if expected is not None and lsn > expected:
                raise SystemExit(f"{path} at {at}: record {expected} is missing, {lsn} follows")
            while wanted and wanted[0] < lsn:
                print(wanted.pop(0), volume.digest(), flush=True)
            first, expected, count = first or lsn, lsn + 1, count + 1
            if kind == KIND_INCARNATION:
                pieces.clear()
            if owner != volume_id or kind not in (KIND_WRITE, KIND_ZERO, KIND_TRIM, KIND_SEED, KIND_BLANK):
                continue
            data = payload if kind in (KIND_WRITE, KIND_SEED) else bytes(sectors * SECTOR)
            if flags & FLAG_PIECE:
                pieces.setdefault(request, []).append((sector * SECTOR, data))
                if not flags & FLAG_CLOSES:
                    continue
            elif flags & FLAG_CLOSES:
                pieces.setdefault(request, []).append((sector * SECTOR, data))
            if flags & FLAG_CLOSES:
                for offset, part in pieces.pop(request):
                    volume.put(offset, part)
            else:
                volume.put(sector * SECTOR, data)
    last = (expected or 1) - 1
    for lsn in wanted:
        if lsn > last:
            raise SystemExit(f"record {lsn} is beyond the last one, {last}")
        print(lsn, volume.digest(), flush=True)
    print("RECORDS", first, last, count)


if __name__ == "__main__":
    main()
