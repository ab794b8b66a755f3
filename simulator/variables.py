"""The kernel's variables: what the KDBG points to holds what a debugger expects to read there."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from protocol.layouts.kdbg import KdbgKey
from protocol.layouts.kernel import encode_physical_memory_descriptor
from protocol.layouts.version import GetVersion64

from .space import SYSTEM_RANGE_START, KernelSpace

__all__ = ["PRINT_BUFFER_SIZE", "lay_variables", "link_debugger_data"]

PRINT_BUFFER_SIZE = 0x1000
"""Bytes of what was printed that the kernel keeps."""


def lay_variables(
    space: KernelSpace,
    symbols: Mapping[str, int],
    version: GetVersion64,
    bug_check: tuple[int, int, int, int, int],
    build_lab: str,
    *,
    encoded: bool,
    database: bool = False,
    rolled_over: bool = False,
) -> KdbgKey | None:
    """Values of the variables that the KDBG points to; returns the key if the block is to be encoded.

    Where there is no PFN `database` yet, a page takes its place. `rolled_over`: the buffer of prints was too small.
    """
    runs = space.image.runs
    descriptor = encode_physical_memory_descriptor(list(runs))
    buffer = symbols["KdPrintDefaultCircularBuffer"]
    printed = _prints(bug_check, rolled_over)
    written = len(printed) % PRINT_BUFFER_SIZE
    # Where it rolled over, the latest lie before what is left of the turn before.
    latest, before = printed[len(printed) - written :], printed[-PRINT_BUFFER_SIZE : len(printed) - written]
    space.write(buffer, latest)
    space.write(buffer + PRINT_BUFFER_SIZE - len(before), before)
    numbers = {
        "ExpNumberOfPagedPools": 4,
        "KeTimeIncrement": 156250,
        "KdPrintBufferSize": PRINT_BUFFER_SIZE,
        "KdPrintCircularBuffer": buffer,
        "KdPrintRolloverCount": len(printed) // PRINT_BUFFER_SIZE,
        "KdPrintWritePointer": buffer + written,
        "MmAvailablePages": runs.page_count // 2,
        "MmHighestPhysicalPage": runs.end_page - 1,
        "MmHighestUserAddress": 0x7FFFFFFEFFFF,
        "MmLowestPhysicalPage": runs[0].base_page,
        "MmNonPagedPoolStart": space.addresses.nonpaged_pool,
        "MmNonPagedPoolEnd": space.addresses.nonpaged_pool + 0x10000000,
        "MmNumberOfPagingFiles": 1,
        "MmNumberOfPhysicalPages": runs.page_count,
        "MmPagedPoolCommit": 0x300,
        "MmPagedPoolStart": space.addresses.paged_pool,
        "MmPagedPoolEnd": space.addresses.paged_pool + 0x10000000,
        "MmPfnDatabase": space.addresses.pfn_database,
        "MmPhysicalMemoryBlock": space.nonpaged.place(descriptor, b"MmPh"),
        "MmSizeOfPagedPoolInBytes": 0x10000000,
        "MmSystemRangeStart": SYSTEM_RANGE_START,
        "MmTotalCommitLimit": runs.page_count,
        "MmTotalCommittedPages": runs.page_count // 3,
        "MmUserProbeAddress": 0x7FFFFFFF0000,
        "ObpRootDirectoryObject": space.paged.allocate(0x150, b"Dire"),
        "ObpTypeObjectType": space.nonpaged.allocate(0xD8, b"ObjT"),
        "PoolTrackTable": space.nonpaged.allocate(0x500, b"PTab"),
        "PspCidTable": space.paged.allocate(0x80, b"Obtb"),
    }
    for name, value in numbers.items():
        if name in symbols:
            space.write_qwords(symbols[name], value)
    for name in ("ExpSystemResourcesList", "KeBugCheckCallbackListHead", "IopErrorLogListHead"):
        space.link_list(symbols[name], [])
    space.write(symbols["NtBuildLab"], build_lab.encode("ascii"))
    space.write(symbols["KdVersionBlock"], version.encode())
    space.write_qwords(symbols["KiInitialPCR"] + 0x108, symbols["KdVersionBlock"])
    if not database:
        space.map_fresh(space.addresses.pfn_database)
    never, always = space.rng.getrandbits(64), space.rng.getrandbits(64)
    space.write_qwords(symbols["KiWaitNever"], never)
    space.write_qwords(symbols["KiWaitAlways"], always)
    if not encoded:
        return None
    space.write(symbols["KdpDataBlockEncoded"], b"\x01")
    return KdbgKey(never, always, symbols["KdpDataBlockEncoded"])


def _prints(bug_check: tuple[int, int, int, int, int], rolled_over: bool) -> bytes:
    """All that was printed since the start; the buffer has its end."""
    lines = ["mydrv: queue is up"]
    if rolled_over:
        lines += [f"mydrv: request {number} was put into the queue" for number in range(160)]
    if bug_check[0]:
        lines += ["KDTARGET: Refreshing KD connection", "", f"*** Fatal System Error: 0x{bug_check[0]:08x}"]
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def link_debugger_data(space: KernelSpace, symbols: Mapping[str, int], *, foreign_block: bool) -> tuple[int, int]:
    """The list of debugger data; returns the block's own links, which it holds itself."""
    head, block = symbols["KdpDebuggerDataListHead"], symbols["KdDebuggerDataBlock"]
    if not foreign_block:
        space.write_qwords(head, block, block)
        return head, head
    foreign = symbols["KdpForeignDataBlock"]
    space.write_qwords(head, foreign, block)
    space.write(foreign, struct.pack("<QQ4sI", block, head, b"NDIS", 0x28))
    return head, foreign
