"""Dump files laid out by hand after the published offsets (dump-formats 1 to 4), by no line of our own writer."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from tests.x86_machine import BUG_CHECK, KDBG, MODULES, NT, PRCBS, STACK, UNLOADED, X86Machine

__all__ = ["Memory", "bitmap", "complete", "header32", "header64", "old_small32", "ranges", "summary"]

Memory = Mapping[int, bytes] | Mapping[int, bytearray]
"""Pages by frame."""

_PAGE = b"PAGE"
HEAD = NT + 0x4700


def header32(machine: X86Machine, kind: int, space: int = 0) -> bytearray:
    """DUMP_HEADER32 of a machine (dump-formats 1.2)."""
    raw = bytearray(_PAGE * 0x400)
    raw[4:8] = b"DUMP"
    struct.pack_into(
        "<8I", raw, 8, 0xF, 7601, machine.root, NT + 0x47E0, HEAD, HEAD + 0x10, 0x14C, 2,
    )  # fmt: skip
    struct.pack_into("<5I", raw, 0x28, *BUG_CHECK)
    raw[0x5C] = machine.pae
    struct.pack_into("<I", raw, 0x60, KDBG)
    _runs(raw, 0x64, "<II", machine.runs)
    raw[0x320:0x7D0] = machine.context(0).ljust(1200, b"\0")
    struct.pack_into("<5I", raw, 0x7D0, 0x80000003, 1, 0, machine.registers[0]["eip"], 0)
    struct.pack_into("<I", raw, 0xF88, kind)
    struct.pack_into("<II", raw, 0xF94, 1, 0x110)
    struct.pack_into("<Q", raw, 0xFA0, space)
    struct.pack_into("<QQ", raw, 0xFB8, 36_000_000_000, 0x01CC1111_22223333)
    return raw


def header64(kind: int, runs: list[tuple[int, int]], root: int = 0x1AD000, space: int = 0) -> bytearray:
    """DUMP_HEADER64 of a machine of which there is only memory (dump-formats 1.1)."""
    raw = bytearray(_PAGE * 0x800)
    raw[4:8] = b"DU64"
    struct.pack_into("<IIQ", raw, 8, 0xF, 19041, root)
    struct.pack_into("<II", raw, 0x30, 0x8664, 1)
    struct.pack_into("<I", raw, 0x38, 0xD1)
    _runs(raw, 0x88, "<QQ", runs)
    raw[0x348:0xF00] = bytes(3000)
    struct.pack_into("<I", raw, 0xF98, kind)
    struct.pack_into("<Q", raw, 0xFA0, space)
    return raw


def _runs(raw: bytearray, at: int, form: str, runs: list[tuple[int, int]]) -> None:
    size = struct.calcsize(form)
    pages = sum(count for _, count in runs)
    head = struct.pack("<II", len(runs), pages) if size == 8 else struct.pack("<IIQ", len(runs), 0, pages)
    body = head + b"".join(struct.pack(form, *run) for run in runs)
    raw[at : at + len(body)] = body


def _in_order(memory: Memory) -> bytes:
    return b"".join(bytes(memory[frame]) for frame in sorted(memory))


def _bits(memory: Memory, count: int) -> bytes:
    bits = bytearray(count // 8)
    for frame in memory:
        bits[frame >> 3] |= 1 << (frame & 7)
    return bytes(bits)


def complete(header: bytearray, memory: Memory) -> bytes:
    """Type 1: the pages of every run, ascending."""
    return bytes(header) + _in_order(memory)


def bitmap(header: bytearray, memory: Memory, signature: bytes = b"FDMP") -> bytes:
    """Types 5 and 6 (2.3)."""
    start, count = len(header), -(-(max(memory) + 1) // 64) * 64
    first = -(-(start + 0x38 + count // 8) // 0x1000) * 0x1000
    head = struct.pack("<4s4sI20xQQQ", signature, b"DUMP", 0, first, len(memory), count)
    at = 0xFA0
    struct.pack_into("<Q", header, at, first + 0x1000 * len(memory))
    return (bytes(header) + head + _bits(memory, count)).ljust(first, b"\0") + _in_order(memory)


def summary(header: bytearray, memory: Memory) -> bytes:
    """Type 2 (2.4): bits begin at 20 behind a 32-bit header, at 28 behind a 64-bit one."""
    start, count = len(header), -(-(max(memory) + 1) // 64) * 64
    skip = 0x20 if start == 0x1000 else 0x28
    first = -(-(start + skip + count // 8) // 0x1000) * 0x1000
    head = struct.pack("<4s4s5I", b"SDMP", b"DUMP", 1, first, count, len(memory), count).ljust(skip, b"\0")
    struct.pack_into("<Q", header, 0xFA0, first + 0x1000 * len(memory))
    return (bytes(header) + head + _bits(memory, count)).ljust(first, b"\0") + _in_order(memory)


def ranges(header: bytearray, memory: Memory, kind: int) -> bytes:
    """Types 8, 9 and A (2.5), 64-bit alone."""
    table: list[list[int]] = []
    for frame in sorted(memory):
        if table and table[-1][0] + table[-1][1] == frame:
            table[-1][1] += 1
        else:
            table.append([frame, 1])
    body = b"".join(struct.pack("<QQ", *entry) for entry in table)
    if kind == 0xA:
        head = struct.pack("<IIQ", len(table), 0, len(memory))
    else:
        head, body = bytes(16), body + bytes(16)
    size = len(head) + len(body)
    front = struct.pack("<I4s4sIQQ", 0x40, b"RDMP", b"DUMP", 0, size, size + 0x2020)
    return bytes(header) + front + head + body + _in_order(memory)


def old_small32(machine: X86Machine) -> bytes:
    """Type 4 as it was before there were data blocks (4.1): the header's registers, sections, and one data page."""
    header = header32(machine, 4)
    struct.pack_into("<I", header, 0xF8C, 0x7FF & ~0x80)
    raw = bytearray(header) + bytes(0x68)
    fields = {0x0C: 0x320, 0x10: 0x7D0, 0x44: 0xFFFFFFFF}

    def add(data: bytes) -> int:
        raw.extend(bytes(-len(raw) % 8))
        raw.extend(data)
        return len(raw) - len(data)

    name, start, end, _ = UNLOADED
    text = name.encode("utf-16-le")
    fields[0x18] = add(struct.pack("<IHHI24sII", 1, len(text), len(text), 0, text, start, end))
    fields[0x1C] = add(machine.get(PRCBS[0], 0x3628))
    stack = STACK + 0xD00
    fields[0x28], fields[0x2C], fields[0x48] = add(machine.get(stack, 0x300)), 0x300, stack
    fields[0x50], fields[0x54], fields[0x4C] = add(machine.get(NT + 0x1000, 0x1000)), 0x1000, NT + 0x1000
    fields[0x58], fields[0x5C] = add(machine.get(KDBG, 0x340)), 0x340
    names = [add(struct.pack("<I", len(path)) + path.encode("utf-16-le") + b"\0\0") for path, *_ in MODULES]
    entries = b""
    for place, (_, _, base, size, stamp, check) in zip(names, MODULES, strict=True):
        entry = bytearray(0x4C)
        struct.pack_into("<I", entry, 0, place)
        struct.pack_into("<III", entry, 4 + 0x18, base, base + 0x1000, size)
        struct.pack_into("<II", entry, 4 + 0x40, check, stamp)
        entries += entry
    fields[0x30], fields[0x34] = add(entries), len(MODULES)
    fields[0x08] = add(b"TRGD")
    fields[0x04] = len(raw)
    for at, value in fields.items():
        struct.pack_into("<I", raw, 0x1000 + at, value)
    return bytes(raw)
