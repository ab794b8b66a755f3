"""A 32-bit machine laid out by hand, with PAE or without, after the published offsets and without our own layouts.

Two processors of a Windows 7 (KDBG of 340 bytes): page tables that map themselves, KPCRs, CONTEXTs, a GDT, two
images and one that is gone. Addresses in its KDBG are sign-extended, as the kernel leaves some of them.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

__all__ = ["CONTEXTS", "KDBG", "MODULES", "NT", "PRCBS", "STACK", "UNLOADED", "X86Machine", "x86_machine"]

NT = 0x80500000
_DATA, _LISTS, _RING = NT + 0x4000, NT + 0x5000, NT + 0x6000
KDBG, _MODULE_HEAD, _PROCESS_HEAD, _PROCESSOR_BLOCK = _DATA + 0x200, _DATA + 0x700, _DATA + 0x710, _DATA + 0x720
_RUNS_AT, _UNLOADED_AT, _LAST_UNLOADED, _LAB, _BUG_CHECK = (_DATA + at for at in (0x730, 0x738, 0x73C, 0x740, 0x7C0))
PRCBS = (0x80510120, 0x80520120)
CONTEXTS = (PRCBS[0] + 0x18, 0x80516400)
"""Of the first in its own KPRCB: `.dump /m` keeps that, and of the second the pointer alone."""
_GDT, STACK, _THREAD, _PROCESS, _SHARED = 0x80517000, 0x80518000, 0x80519000, 0x8051A000, 0xFFDF0000
_CONTEXT_AT, _STATE_AT = 0x3618, 0x18
"""KPRCB.Context and KPRCB.ProcessorState of Windows 7 (kd-protocol 5.5)."""
LAB = b"7601.17514.x86fre.win7sp1_rtm.101119-1850"

MODULES = (
    ("\\SystemRoot\\system32\\ntkrnlpa.exe", "nt", NT, 0x10000, 0x4CE78A09, 0x3D1234),
    ("\\SystemRoot\\System32\\Drivers\\mydrv.sys", "mydrv", 0x80530000, 0x3000, 0x4A5BC123, 0xBEEF),
)
"""Path, what WinDbg calls it, base, size, timestamp, checksum."""
UNLOADED = ("gone.sys", 0x80600000, 0x80608000, 0x01CC0000_12345678)
BUG_CHECK = (0xD1, 0x00000010, 0x00000002, 0x00000001, 0x80530123)


@dataclass(slots=True)
class X86Machine:
    """What it holds: pages by frame; where each virtual page lies; what its processors' registers are."""

    pae: bool
    root: int
    memory: dict[int, bytearray]
    mapped: dict[int, int]
    registers: list[dict[str, int]] = field(default_factory=list)

    def put(self, address: int, data: bytes) -> None:
        """Lay these bytes where the page tables lead."""
        for at, byte in enumerate(data, address):
            self.memory[self.mapped[at & ~0xFFF] >> 12][at & 0xFFF] = byte

    def get(self, address: int, size: int) -> bytes:
        """The bytes at a virtual address."""
        return bytes(self.memory[self.mapped[at & ~0xFFF] >> 12][at & 0xFFF] for at in range(address, address + size))

    def context(self, number: int) -> bytes:
        """A processor's CONTEXT (kd-protocol 5.1)."""
        raw = bytearray(0x2CC)
        for name, value in self.registers[number].items():
            struct.pack_into("<I", raw, _OFFSETS[name], value)
        return bytes(raw)

    @property
    def runs(self) -> list[tuple[int, int]]:
        """(base page, page count), ascending."""
        runs: list[tuple[int, int]] = []
        for frame in sorted(self.memory):
            if runs and sum(runs[-1]) == frame:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((frame, 1))
        return runs


_OFFSETS = {
    "flags": 0, "dr7": 0x18, "gs": 0x8C, "fs": 0x90, "es": 0x94, "ds": 0x98, "edi": 0x9C, "esi": 0xA0, "ebx": 0xA4,
    "edx": 0xA8, "ecx": 0xAC, "eax": 0xB0, "ebp": 0xB4, "eip": 0xB8, "cs": 0xBC, "efl": 0xC0, "esp": 0xC4, "ss": 0xC8,
}  # fmt: skip


def _wide(address: int) -> int:
    """Sign-extended to 64 bits."""
    return address | 0xFFFFFFFF_00000000 if address >> 31 else address


def _pages() -> list[int]:
    pages = [NT + at for at in range(0, 0x10000, 0x1000)]
    pages += [prcb - 0x120 + at for prcb in PRCBS for at in range(0, 0x4000, 0x1000)]
    pages += [
        0x80516000,
        _GDT,
        STACK,
        _THREAD,
        _PROCESS,
        _SHARED,
        *(0x80530000 + at for at in range(0, 0x3000, 0x1000)),
    ]
    return pages


def x86_machine(*, pae: bool, seed: int = 1) -> X86Machine:
    """The machine. Frames are shuffled, so that no page lies where its neighbour's place would tell."""
    rng = random.Random(seed)
    frames = [*range(0x10, 0x60), *range(0x100, 0x111)]
    memory = {frame: bytearray(rng.randbytes(0x1000)) for frame in frames}
    free = rng.sample(frames, len(frames))
    made = X86Machine(pae, 0, memory, {})
    for page in _pages():
        made.mapped[page] = free.pop() << 12
    (_pae_tables if pae else _flat_tables)(made, free)
    _kernel(made)
    return made


def _flat_tables(made: X86Machine, free: list[int]) -> None:
    top = free.pop()
    made.root = top << 12
    directory = made.memory[top] = bytearray(0x1000)
    struct.pack_into("<I", directory, 0x300 * 4, top << 12 | 0x63)
    # Physical 0 on, once more: a large page of 4 MiB at 81000000.
    struct.pack_into("<I", directory, 0x204 * 4, 0x1E3)
    for page, place in sorted(made.mapped.items()):
        slot = page >> 22
        (entry,) = struct.unpack_from("<I", directory, 4 * slot)
        if not entry & 1:
            entry = free.pop() << 12 | 0x63
            made.memory[entry >> 12] = bytearray(0x1000)
            struct.pack_into("<I", directory, 4 * slot, entry)
        struct.pack_into("<I", made.memory[entry >> 12], 4 * (page >> 12 & 0x3FF), place | 0x63)


def _pae_tables(made: X86Machine, free: list[int]) -> None:
    holder = free.pop()
    made.root = (holder << 12) + 0x1A0  # the four pointers lie within a page of others' (kd-protocol 7.5)
    directories = [free.pop() for _ in range(4)]
    for frame in directories:
        made.memory[frame] = bytearray(0x1000)
    struct.pack_into("<4Q", made.memory[holder], 0x1A0, *(frame << 12 | 1 for frame in directories))
    struct.pack_into("<4Q", made.memory[directories[3]], 0, *(frame << 12 | 0x63 for frame in directories))
    # Physical 0 on, once more: a large page of 2 MiB at 81000000.
    struct.pack_into("<Q", made.memory[directories[2]], 8 * 8, 0x1E3)
    for page, place in sorted(made.mapped.items()):
        directory, slot = made.memory[directories[page >> 30]], page >> 21 & 0x1FF
        (entry,) = struct.unpack_from("<Q", directory, 8 * slot)
        if not entry & 1:
            entry = free.pop() << 12 | 0x63
            made.memory[entry >> 12] = bytearray(0x1000)
            struct.pack_into("<Q", directory, 8 * slot, entry)
        table = made.memory[(entry & 0xFFFFF000) >> 12]
        struct.pack_into("<Q", table, 8 * (page >> 12 & 0x1FF), place | 0x63 | 1 << 63)


def _kernel(made: X86Machine) -> None:
    for page in _pages():
        if page != STACK and page not in range(0x80530000, 0x80533000):
            made.put(page, bytes(0x1000))
    _images(made)
    _debugger_data(made)
    for number, (prcb, context) in enumerate(zip(PRCBS, CONTEXTS, strict=True)):
        made.registers.append(
            {
                "flags": 0x1003F, "dr7": 0x400, "gs": 0, "fs": 0x30, "es": 0x23, "ds": 0x23, "edi": 0xD1 + number,
                "esi": 0x11223344, "ebx": 0x55667788 + number, "edx": 0x99AABBCC, "ecx": 0xDDEEFF00, "eax": 0xA,
                "ebp": STACK + 0xE00, "eip": NT + 0x1010 + 0x20 * number, "cs": 8, "efl": 0x246,
                "esp": STACK + 0xD00 - 0x80 * number, "ss": 0x10,
            }
        )  # fmt: skip
        pcr = prcb - 0x120
        made.put(pcr + 0x1C, struct.pack("<II", pcr, prcb))
        made.put(prcb + 4, struct.pack("<I", _THREAD if not number else 0))
        made.put(prcb + 0x3CC, struct.pack("<I", number))
        special = bytearray(0x54)
        struct.pack_into("<4I", special, 0, 0x8001003B, 0, made.root, 0x6F9 if made.pae else 0x6D9)
        struct.pack_into("<HIHHI", special, 0x2A, 0x3FF, _GDT, 0, 0x7FF, _GDT + 0x400)
        struct.pack_into("<HH", special, 0x38, 0x28, 0)
        made.put(prcb + _STATE_AT, made.context(number) + bytes(special))
        made.put(prcb + _CONTEXT_AT, struct.pack("<I", context))
        made.put(context, made.context(number))
    flat = (0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF)
    pcr = 0x80510000
    own = 0x00C09300_00000001 | (pcr & 0xFFFFFF) << 16 | (pcr >> 24) << 56
    made.put(_GDT, struct.pack("<7Q", *flat, 0, own))
    made.put(_THREAD, struct.pack("<I", 6))
    made.put(_THREAD + 0x50, struct.pack("<I", _PROCESS))
    made.put(_PROCESS, struct.pack("<I", 3))
    made.put(_PROCESS + 0x18, struct.pack("<I", made.root))
    made.put(_PROCESS + 0xB4, struct.pack("<III", 4, _PROCESS_HEAD, _PROCESS_HEAD))
    made.put(_SHARED + 8, struct.pack("<QI", 36_000_000_000, 8))
    made.put(_SHARED + 0x14, struct.pack("<QI", 0x01CC1111_22223333, 0x01CC1111))
    made.put(_SHARED + 0x30, "C:\\Windows".encode("utf-16-le"))
    made.put(_SHARED + 0x264, struct.pack("<IIII", 1, 1, 6, 1))
    made.put(_SHARED + 0x2D0, struct.pack("<I", 0x110))
    made.put(_SHARED + 0x3C0, struct.pack("<I", 2))


def _images(made: X86Machine) -> None:
    for base in (NT, 0x80530000):
        header = bytearray(0x400)
        header[:2] = b"MZ"
        struct.pack_into("<I", header, 0x3C, 0x80)
        size, stamp, check = next((size, stamp, check) for _, _, at, size, stamp, check in MODULES if at == base)
        struct.pack_into("<4sHHIIIHH", header, 0x80, b"PE\0\0", 0x14C, 0, stamp, 0, 0, 0xE0, 0x102)
        struct.pack_into("<H", header, 0x98, 0x10B)
        struct.pack_into("<IIII", header, 0x98 + 0x38, size, 0x400, check, 0)
        made.put(base, bytes(header))
    made.put(NT + 0x1000, b"\x90" * 0x10 + b"\xcc" + b"\x90" * 0x3F)
    entry = _LISTS
    names = _LISTS + 0x200
    entries = [_LISTS + 0x80 * at for at in range(len(MODULES))]
    ring = [_MODULE_HEAD, *entries, _MODULE_HEAD]
    made.put(_MODULE_HEAD, struct.pack("<II", entries[0], entries[-1]))
    for number, (path, _, base, size, _, check) in enumerate(MODULES):
        raw = bytearray(0x5C)
        text, short = path.encode("utf-16-le"), path.rpartition("\\")[2].encode("utf-16-le")
        struct.pack_into("<II", raw, 0, ring[number + 2], ring[number])
        struct.pack_into("<III", raw, 0x18, base, base + 0x1000, size)
        struct.pack_into("<HHI", raw, 0x24, len(text), len(text) + 2, names)
        struct.pack_into("<HHI", raw, 0x2C, len(short), len(short) + 2, names + len(text) - len(short))
        struct.pack_into("<I", raw, 0x40, check)
        struct.pack_into("<I", raw, 0x58, 0x0BADBAD0)  # before Windows 8 the stamp is the image's own
        made.put(entries[number], bytes(raw))
        made.put(names, text)
        names += len(text) + 2
    assert entry < names


def _debugger_data(made: X86Machine) -> None:
    raw = bytearray(0x340)
    struct.pack_into("<III", raw, 0, KDBG, KDBG, 0)
    struct.pack_into("<II", raw, 0x10, 0x4742444B, 0x340)
    struct.pack_into("<H", raw, 0x36, int(made.pae))
    for at, value in {
        0x18: NT, 0x20: NT + 0x1010, 0x48: _MODULE_HEAD, 0x50: _PROCESS_HEAD, 0x88: _BUG_CHECK, 0xC0: _DATA + 0x7E0,
        0x138: 0x1000, 0x1C8: _DATA + 0x7E4, 0x1D0: _DATA + 0x7E8, 0x208: _LAB, 0x218: _PROCESSOR_BLOCK,
        0x220: _UNLOADED_AT, 0x228: _LAST_UNLOADED, 0x270: _RUNS_AT, 0x268: _DATA + 0x7EC,
    }.items():  # fmt: skip
        struct.pack_into("<Q", raw, at, _wide(value))
    for at, value in {
        0x298: 0x120, 0x29A: 0x88, 0x29C: 0x30, 0x29E: 0x28, 0x2A0: 0x50, 0x2A2: 0x68, 0x2A8: 0x2C8, 0x2AA: 0x1A8,
        0x2AC: 0x140, 0x2AE: 0x18, 0x2B0: 0x3628, 0x2B4: 4, 0x2BC: _STATE_AT, 0x2BE: 0x3CC, 0x2C0: 0x2B8, 0x2E0: 0x3748,
        0x2E2: 0x1C, 0x2E4: 0x20, 0x2E6: 0x120, 0x2F2: _STATE_AT + 0x2CC, 0x2F4: 8, 0x2F6: 0x10, 0x2F8: 0x30,
        0x2FA: 0x18, 0x2FC: 0x20, 0x2FE: 0x38, 0x300: 0x48, 0x302: 0x28, 0x338: _CONTEXT_AT,
    }.items():  # fmt: skip
        struct.pack_into("<H", raw, at, value)
    made.put(KDBG, bytes(raw))
    made.put(_PROCESS_HEAD, struct.pack("<II", _PROCESS + 0xB8, _PROCESS + 0xB8))
    made.put(_PROCESSOR_BLOCK, struct.pack("<III", *PRCBS, 0))
    made.put(_RUNS_AT, struct.pack("<I", _RING + 0x800))
    made.put(_UNLOADED_AT, struct.pack("<II", _RING, 1))
    made.put(_LAB, LAB)
    made.put(_BUG_CHECK, struct.pack("<5I", *BUG_CHECK))
    made.put(_DATA + 0x7E4, struct.pack("<II", 0x7FFEFFFF, 0x80000000))
    name, start, end, time = UNLOADED
    text = name.encode("utf-16-le")
    made.put(_RING, struct.pack("<HHIIIQ", len(text), len(text), _RING + 0x7C0, start, end, time))
    made.put(_RING + 0x7C0, text)
    runs = made.runs
    made.put(_RING + 0x800, struct.pack("<II", len(runs), sum(count for _, count in runs)))
    made.put(_RING + 0x808, b"".join(struct.pack("<II", *run) for run in runs))
