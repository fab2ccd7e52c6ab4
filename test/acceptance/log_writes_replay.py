#!/usr/bin/env python3
"""What a guest's disk held after the first N entries of QEMU's `blklogwrites` log (the dm-log-writes format).

usage: log_writes_replay.py LOG IMAGE ENTRIES [ENTRIES ...]   prints "ENTRIES SHA256" for each; IMAGE: before the log
       log_writes_replay.py LOG --length                      prints the number of whole entries

Digest as in independent_replay.py: SHA-256 over the SHA-256 of each MiB. Format: Documentation/admin-guide/
device-mapper/log-writes.rst of Linux: a super block {magic, version, entries, sector size}, then per entry one sector
{sector, sectors, flags, data length} followed by the data, all in units of the log's sector size.
"""
import os
import struct
import sys

from independent_replay import Volume

MAGIC = 0x6A736677736872
FLAG_DISCARD = 4
FLAG_ZEROES = 32


def entries(path):
    with open(path, "rb") as log:
        magic, _version, _count, unit = struct.unpack("<QQQI", log.read(28))
        if magic != MAGIC:
            raise SystemExit(f"{path} is no write log")
        size, at = os.path.getsize(path), unit
        while at + unit <= size:
            log.seek(at)
            sector, sectors, flags, length = struct.unpack("<QQQQ", log.read(32))
            if sector == 0 and sectors == 0 and flags == 0:
                return
            at += unit
            data = b""
            if not flags & FLAG_DISCARD and sectors:
                log.seek(at)
                data = log.read(sectors * unit)
                if len(data) < sectors * unit:
                    return
                at += sectors * unit
            yield sector * unit, sectors * unit, flags, data


def main():
    path = sys.argv[1]
    if sys.argv[2] == "--length":
        print(sum(1 for _ in entries(path)))
        return
    volume, wanted, seen = Volume(os.path.getsize(sys.argv[2])), sorted({int(a) for a in sys.argv[3:]}), 0
    with open(sys.argv[2], "rb") as image:
        volume.image[:] = image.read()
    for offset, length, flags, data in entries(path):
        while wanted and wanted[0] <= seen:
            print(wanted.pop(0), volume.digest(), flush=True)
        if length:
            volume.put(offset, data if not flags & FLAG_DISCARD else bytes(length))
        seen += 1
    for count in wanted:
        if count > seen:
            raise SystemExit(f"the log has {seen} entries, not {count}")
        print(count, volume.digest(), flush=True)


if __name__ == "__main__":
    main()
