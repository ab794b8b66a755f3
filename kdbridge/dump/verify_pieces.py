"""Checking the pieces of a small dump against what they were made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdbridge.memory.blocks import BlockMemory
from kdbridge.memory.files import DumpFile
from kdbridge.source import VirtualMemory
from kdbridge.target import Target
from protocol.address import VirtualAddress
from protocol.arch import architecture_of

from .patchwork import available
from .small import told_pieces

__all__ = ["Pieces", "compare_pieces"]


@dataclass(frozen=True, slots=True)
class Pieces:
    """What the comparison found."""

    count: int
    size: int
    """Bytes of the dump's pieces."""
    compared: int
    """Bytes that the witness has, too."""
    differing: tuple[int, ...]
    """Addresses (the first 64) of bytes that are neither the witness's nor what the target told by another way:
    registers, a decoded KDBG."""


async def compare_pieces(dump: DumpFile, witness: VirtualMemory, target: Target) -> Pieces:
    """Hold every piece against the memory of the Snapshot that it came from. `dump` must be a small one."""
    architecture = architecture_of(target.version.machine_type)
    told = told_pieces(target, architecture)[0] if architecture is not None else []
    known = BlockMemory((address, len(data), _give(data)) for address, data in reversed(told))
    count = total = compared = 0
    differing: list[int] = []
    ranges = dump.small.memory.ranges() if dump.small is not None else ()
    for start, size in ranges:
        count, total = count + 1, total + size
        data = await dump.virtual.read(VirtualAddress(start), size)
        for address, truth in await available(witness, start, size):
            compared += len(truth)
            piece = data[address - start : address - start + len(truth)]
            if piece == truth:
                continue
            for at in [at for at in range(len(truth)) if piece[at] != truth[at]]:
                told_byte = [(address + at, piece[at : at + 1])] == await available(known, address + at, 1)
                if not told_byte and len(differing) < 64:
                    differing.append(address + at)
    return Pieces(count, total, compared, tuple(differing))


def _give(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: data[offset : offset + size]
