"""Ids of processes and threads: where they lie is in no KDBG, so it is proven on the target's own data."""

from __future__ import annotations

from collections.abc import Sequence

from kdbridge.discovery.notes import try_read, try_read_pointer
from kdbridge.discovery.processes import bytes_before, links_offset_of
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import format_address
from protocol.arch import architecture_of

from .model import Missing
from .names import Names
from .shortcomings import pages_of, unreadable

__all__ = ["HIGHEST_ID", "client_id_offset", "process_ids_of"]

_LARGEST_THREAD = 0x1800
HIGHEST_ID = 1 << 26
"""Ids of processes and threads are lower: handles of one table."""
_MOST_WITNESSES = 4
_THREAD_TYPE = 6
"""DISPATCHER_HEADER.Type."""
_WHAT = "ids of threads"


async def process_ids_of(
    source: Source, target: Target, processes: Sequence[int], names: Names | None = None
) -> dict[int, int]:
    """Ids by EPROCESS, of those that can be told: an id lies before the links, and where these are System's proves."""
    block = target.kdbg.block if target.kdbg is not None else None
    architecture = architecture_of(target.version.machine_type)
    if block is None or architecture is None or not block["offset_eprocess_directory_table_base"]:
        return {}
    width = architecture.pointer_size
    first = await try_read_pointer(source, block["ps_active_process_head"], width)
    if not first:
        return {}
    table, mask = block["offset_eprocess_directory_table_base"], architecture.paging.root_mask
    told = None if names is None else await names.structure_offset("_EPROCESS", "ActiveProcessLinks")
    offset = links_offset_of(await bytes_before(source, first), table, mask, width, told)
    if offset is None:
        return {}
    read = {one: await try_read_pointer(source, one + offset - width, width) for one in processes if one}
    return {one: value for one, value in read.items() if value is not None and value < HIGHEST_ID}


async def client_id_offset(
    source: Source,
    target: Target,
    thread: int,
    process_id: int | None,
    others: Sequence[tuple[int, int]] = (),
    names: Names | None = None,
) -> int | Missing:
    """Where CLIENT_ID (ids of the process and of the thread) lies in an ETHREAD, found in this one; or why it is not.

    Symbols may tell it: that its process's id stands there, and an id behind it, is proof enough then. Without them
    it is a place where in several threads stand their process's id and, behind it, ids that differ. `others` are more
    threads, with their processes' ids; where there are none, those beside this one in a list are asked.
    """
    if not process_id:
        return Missing(_WHAT, "the id of their process, which stands before theirs, is not known")
    width = target.pointer_size
    told = None if names is None else await names.structure_offset("_ETHREAD", "Cid")
    if told is not None and _candidates(await try_read(source, thread + told, 2 * width) or b"", process_id, width):
        return told
    if target.kdbg is None:
        return Missing(_WHAT, "without the KDBG nothing tells how large an ETHREAD is")
    block = target.kdbg.block
    size = min(block["size_ethread"], _LARGEST_THREAD)
    if not size:
        return Missing(_WHAT, "the KDBG does not tell how large an ETHREAD is")
    data = await try_read(source, thread, size)
    if data is None:
        gone = await unreadable(source, *pages_of(thread, size))
        return Missing(_WHAT, f"the ETHREAD at {format_address(thread)} cannot be read as a whole", gone)
    candidates = _candidates(data, process_id, width)
    if not candidates:
        why = f"nowhere in the ETHREAD at {format_address(thread)} stands its process's id, {process_id}, with another"
        return Missing(_WHAT, f"{why} behind it")
    witnesses = [one for one in others if one[1] and one[0] != thread][:_MOST_WITNESSES]
    if not witnesses:
        beside = await _neighbours(source, thread, data, block["offset_kthread_apc_process"], width)
        witnesses = [(one, process_id) for one in beside]
    proven = [at for at in candidates if await _agree(source, data, witnesses, at, width)]
    if len(proven) == 1:
        return proven[0]
    if proven:
        return Missing(_WHAT, f"they may lie at any of {len(proven)} places in an ETHREAD")
    return Missing(_WHAT, "no other thread was found that bears out where in an ETHREAD they lie")


def _candidates(thread: bytes, process_id: int, width: int) -> list[int]:
    return [
        at
        for at in range(0, len(thread) - 2 * width + 1, width)
        if int.from_bytes(thread[at : at + width], "little") == process_id
        and _is_id(int.from_bytes(thread[at + width : at + 2 * width], "little"))
    ]


def _is_id(value: int) -> bool:
    return 0 < value < HIGHEST_ID and value % 4 == 0


async def _agree(source: Source, thread: bytes, witnesses: Sequence[tuple[int, int]], at: int, width: int) -> bool:
    """Whether all of these threads have ids at this place, each its own, and one at least could be asked."""
    ids = {int.from_bytes(thread[at + width : at + 2 * width], "little")}
    asked = 0
    for address, process_id in witnesses:
        data = await try_read(source, address + at, 2 * width)
        if data is None:
            continue
        asked += 1
        value = int.from_bytes(data[width:], "little")
        if int.from_bytes(data[:width], "little") != process_id or not _is_id(value) or value in ids:
            return False
        ids.add(value)
    return asked > 0


async def _neighbours(source: Source, thread: int, data: bytes, apc_process: int, width: int) -> list[int]:
    """Threads beside this one in any list that runs through both at the same place, of the same process."""
    process = data[apc_process : apc_process + width]
    found: list[int] = []
    for at in range(0, len(data) - 2 * width + 1, width):
        after, before = (int.from_bytes(data[at + n * width : at + (n + 1) * width], "little") for n in (0, 1))
        for link in {after, before}:
            other = link - at
            # Objects lie where the pool puts them, two pointers apart: that spares reading what most words lead to.
            if other <= 0 or other == thread or other in found or other % (2 * width) or not link >> (8 * width - 1):
                continue
            head = await try_read(source, other, apc_process + width)
            links = await try_read(source, link, 2 * width)
            if head is None or links is None or head[0] & 0x7F != _THREAD_TYPE or head[-width:] != process:
                continue
            if thread + at in (int.from_bytes(links[:width], "little"), int.from_bytes(links[width:], "little")):
                found.append(other)
        if len(found) >= _MOST_WITNESSES:
            break
    return found
