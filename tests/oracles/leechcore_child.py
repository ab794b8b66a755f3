"""The process in which LeechCore runs: it is told a dump, then page frame numbers, eight bytes each.

It answers the number of its memory ranges and each of them, then for each page a byte 1 and the page, or a byte 0.
"""

from __future__ import annotations

import struct
import sys

import leechcorepyc

PAGE = 4096
out = sys.stdout.buffer
lc = leechcorepyc.LeechCore("file://" + sys.argv[1])
try:
    ranges = [(entry["base"], entry["size"]) for entry in lc.memmap]
    out.write(struct.pack("<I", len(ranges)) + b"".join(struct.pack("<QQ", *entry) for entry in ranges))
    out.flush()
    while request := sys.stdin.buffer.read(8):
        address = struct.unpack("<Q", request)[0] * PAGE
        page = b""
        if any(base <= address < base + size for base, size in ranges):
            try:
                page = bytes(lc.read(address, PAGE))
            except RuntimeError:
                page = b""
        out.write(b"\1" + page if len(page) == PAGE else b"\0")
        out.flush()
finally:
    lc.close()
