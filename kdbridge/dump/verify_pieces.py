"""Checking the pieces of a small dump against what they were made of: a Snapshot, or another dump."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdbridge.discovery import discover
from kdbridge.memory.blocks import BlockMemory
from kdbridge.memory.files import DumpFile
from kdbridge.snapshot import Snapshot
from kdbridge.target import Target
from protocol.address import VirtualAddress
from protocol.arch import architecture_of

from .patchwork import available
from .small import told_pieces

__all__ = ["Pieces", "compare_pieces"]


_MOST_NAMED = 64


@dataclass(frozen=True, slots=True)
class Pieces:
    """What the comparison found."""

    count: int
    size: int
    """Bytes of the dump's pieces."""
    compared: int
    """Bytes that the witness has, too."""
    laid_over: int
    """Bytes that differ from the witness's memory, but are what the target told by another way: registers, a decoded
    KDBG."""
    differing: tuple[int, ...]
    """Addresses (the first 64) of bytes that differ, and are nothing of that kind."""


async def compare_pieces(dump: DumpFile, found: Target, against: Snapshot | DumpFile) -> Pieces:
    """Hold every piece of a small dump against the memory that it came from; `found` is what is found in the dump."""
    target = against.target if isinstance(against, Snapshot) else await discover(against)
    architecture = architecture_of(target.version.machine_type)
    told = told_pieces(target, architecture)[0] if architecture is not None else []
    if isinstance(against, DumpFile):
        # Its target's debugger told these; a dump of pages has only what memory held of them.
        told += _special_registers(found)
    known = BlockMemory((address, len(data), _give(data)) for address, data in reversed(told))
    count = total = compared = laid_over = 0
    differing: list[int] = []
    ranges = dump.small.memory.ranges() if dump.small is not None else ()
    for start, size in ranges:
        count, total = count + 1, total + size
        data = await dump.virtual.read(VirtualAddress(start), size)
        for address, truth in await available(against.virtual, start, size):
            compared += len(truth)
            piece = data[address - start : address - start + len(truth)]
            if piece == truth:
                continue
            for at in (at for at in range(len(truth)) if piece[at] != truth[at]):
                if len(differing) == _MOST_NAMED:
                    break
                if [(address + at, piece[at : at + 1])] == await available(known, address + at, 1):
                    laid_over += 1
                else:
                    differing.append(address + at)
    return Pieces(count, total, compared, laid_over, tuple(differing))


def _special_registers(target: Target) -> list[tuple[int, bytes]]:
    """Where each processor's KPRCB keeps them, and what they are."""
    offset = 0 if target.kdbg is None else target.kdbg.block["offset_prcb_proc_state_special_reg"]
    return [
        (processor.prcb + offset, processor.special_registers.raw)
        for processor in target.processors
        if offset and processor.prcb is not None and processor.special_registers is not None
    ]


def _give(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: data[offset : offset + size]
