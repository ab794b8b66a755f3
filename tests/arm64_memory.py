"""ARM64 page tables laid out by hand after Arm's manual (D8.3), in the memory of a machine that holds nothing else."""

from __future__ import annotations

import random
import struct

from tests.hand_dumps import Memory, header64

__all__ = ["ARM64_BLOCK", "ARM64_PAGES", "ARM64_ROOT", "arm64_header", "arm64_memory"]

ARM64_ROOT = 0x46AA000
ARM64_PAGES = {0xFFFFF803_F3A2A000: 0x4701, 0xFFFFF803_F3A2B000: 0x4702, 0x00007FF6_12340000: 0x4703}
"""Where pages of 4 KiB are mapped, and in which frames they lie; the last by the user's half."""
ARM64_BLOCK = (0xFFFFF803_F3C00000, 0x4800)
"""Where a block of 2 MiB is mapped, and the first frame of it. Four frames of it are memory."""
_TABLE, _PAGE, _BLOCK = 0x3, 0x0040000000000703, 0x0060000000000701


def arm64_memory(seed: int = 1) -> dict[int, bytearray]:
    """Pages by frame. The kernel's top table lies 800 behind the user's, as on a real machine."""
    rng = random.Random(seed)
    frames = [*ARM64_PAGES.values(), *range(ARM64_BLOCK[1], ARM64_BLOCK[1] + 4)]
    memory = {frame: bytearray(rng.randbytes(0x1000)) for frame in frames}
    memory[ARM64_ROOT >> 12] = bytearray(0x1000)
    free = iter(range(0x46B0, 0x4700))

    def table(parent: int, slot: int) -> int:
        (entry,) = struct.unpack_from("<Q", memory[parent], 8 * slot)
        if not entry:
            frame = next(free)
            memory[frame] = bytearray(0x1000)
            entry = frame << 12 | _TABLE
            struct.pack_into("<Q", memory[parent], 8 * slot, entry)
        return (entry & 0xFFFF_FFFF_F000) >> 12

    def level2(address: int) -> int:
        # 47 bits of address in each half: 256 entries of the top table, the kernel's in the upper half of the page.
        top = (0x100 if address >> 63 else 0) + (address >> 39 & 0xFF)
        return table(table(ARM64_ROOT >> 12, top), address >> 30 & 0x1FF)

    for address, frame in ARM64_PAGES.items():
        lowest = table(level2(address), address >> 21 & 0x1FF)
        struct.pack_into("<Q", memory[lowest], 8 * (address >> 12 & 0x1FF), frame << 12 | _PAGE)
    address, frame = ARM64_BLOCK
    struct.pack_into("<Q", memory[level2(address)], 8 * (address >> 21 & 0x1FF), frame << 12 | _BLOCK)
    return memory


def arm64_header(kind: int, memory: Memory) -> bytearray:
    """DUMP_HEADER64 that names the machine and its page tables."""
    runs = [(frame, 1) for frame in sorted(memory)]
    header = header64(kind, [(runs[0][0], 1)] if len(runs) > 42 else runs, root=ARM64_ROOT)
    struct.pack_into("<I", header, 0x30, 0xAA64)
    return header
