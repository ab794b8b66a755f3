"""The list of processes and the lists of their threads, found without symbols.

The KDBG tells where the list of processes begins, but not where its links lie in an EPROCESS, nor where the links of
threads lie. Both are proven by the target's own data: System is the process with id 4, and a thread that a processor
runs must be found in its own process's list.
"""

from __future__ import annotations

from dataclasses import dataclass

from kdbridge.source import Source
from kdbridge.target import Target
from protocol.arch import architecture_of
from protocol.structure import Structure

from .notes import try_read, try_read_pointer

__all__ = [
    "ProcessEntry",
    "ThreadLinks",
    "bytes_before",
    "find_processes",
    "find_thread_links",
    "links_offset_of",
    "threads_of",
]

_LINKS = range(0x80, 0x600, 4)
_MOST_PROCESSES = 1 << 16
_MOST_THREADS = 1 << 16
_PROCESS_TYPE, _THREAD_TYPE = 3, 6
"""DISPATCHER_HEADER.Type."""
_ROOT_LOW_BITS = 0xFF8
"""Of a directory table base: the lowest bits may hold caching flags and a PCID; these of System's are 0."""
_KPROCESS = 0x60
_FIRST_LINKS = 0x18


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """One process of the list: where its EPROCESS lies, its id, and its directory table base as it stands there."""

    address: int
    process_id: int
    directory_table_base: int


@dataclass(frozen=True, slots=True)
class ThreadLinks:
    """Where threads are linked: the list head's offset in a process, the entry's in a thread."""

    head: int
    entry: int
    owner: int | None = None
    """Where a thread names the process that it belongs to, whatever memory it sees; None: not known."""


def links_offset_of(before: bytes, table_offset: int, mask: int, width: int = 8, told: int | None = None) -> int | None:
    """Where ActiveProcessLinks lie in an EPROCESS, by the bytes before System's; None where these are not System's.

    `before` ends where the links begin; `table_offset` is that of the directory table base; `mask` its frame's bits.
    `told` is where symbols say that they lie: it is believed where a process with page tables begins there.
    """
    if before[-width:] != (4).to_bytes(width, "little"):
        return None
    if told is not None and not told % width and table_offset + width <= told <= len(before):
        root = before[len(before) - told + table_offset :][:width]
        if before[-told] == _PROCESS_TYPE and int.from_bytes(root, "little") & mask:
            return told
    low = _ROOT_LOW_BITS & ~(mask & 0xFFF)  # with PAE a top table is no page
    for offset in _LINKS:
        start = len(before) - offset
        if offset % width or start < 0 or start + table_offset + width > len(before):
            continue
        if before[start] != _PROCESS_TYPE or before[start + 1] > 1:
            continue
        value = int.from_bytes(before[start + table_offset : start + table_offset + width], "little")
        if value & mask and not value & ~(mask | 0xFFF) and not value & low:
            return offset
    return None


async def bytes_before(source: Source, link: int) -> bytes:
    """The bytes before the links of an EPROCESS, as many as its beginning may lie away, or as many as are there.

    A small dump may hold the EPROCESS and not one byte before it.
    """
    most = min(_LINKS.stop, link) // 8
    data = await try_read(source, link - 8 * most, 8 * most)
    least = 0
    while data is None and most - least > 1:
        middle = (least + most) // 2
        if await try_read(source, link - 8 * middle, 8 * middle) is None:
            most = middle
        else:
            least = middle
    return data if data is not None else await try_read(source, link - 8 * least, 8 * least) or b""


async def find_processes(source: Source, target: Target, told: int | None = None) -> tuple[ProcessEntry, ...]:
    """The processes in the order of the list, as far as it can be walked; it may be broken, or turn in circles.

    `told` is where symbols say that ActiveProcessLinks lie in an EPROCESS.
    """
    if target.kdbg is None:
        return ()
    block = target.kdbg.block
    head, table = block["ps_active_process_head"], block["offset_eprocess_directory_table_base"]
    architecture, width = architecture_of(target.version.machine_type), target.pointer_size
    mask = 0x000F_FFFF_FFFF_F000 if architecture is None else architecture.paging.root_mask
    link = await try_read_pointer(source, head, width)
    if not link or not table:
        return ()
    offset = links_offset_of(await bytes_before(source, link), table, mask, width, told)
    if offset is None:
        return ()
    found: list[ProcessEntry] = []
    seen = {head}
    while link and link not in seen and len(found) < _MOST_PROCESSES:
        seen.add(link)
        start = link - offset
        identity = await try_read(source, link - width, 2 * width)
        root = await try_read_pointer(source, start + table, width)
        if identity is None or root is None:
            break
        found.append(ProcessEntry(start, int.from_bytes(identity[:width], "little"), root))
        link = int.from_bytes(identity[width:], "little")
    return tuple(found)


async def find_thread_links(source: Source, target: Target) -> ThreadLinks | None:
    """Where threads are linked, proven on a thread that a processor runs. None where no such proof can be had."""
    block = target.kdbg.block if target.kdbg is not None else None
    if block is None or not block["size_ethread"]:
        return None
    running = await _running(source, target, block)
    for thread, process in running:
        data = await try_read(source, process, _KPROCESS)
        if data is None or data[0] != _PROCESS_TYPE:
            continue
        width = target.pointer_size
        for head in range(_FIRST_LINKS, _KPROCESS, width):
            first = int.from_bytes(data[head : head + width], "little")
            entry = await _entry_offset(source, process + head, first, thread, block["size_ethread"], width)
            if entry is None:
                continue
            links = ThreadLinks(head, entry)
            listed = await threads_of(source, target, process, links)
            if thread in listed:
                return links
    return None


async def _running(source: Source, target: Target, block: Structure) -> list[tuple[int, int]]:
    """(thread, process) of each processor."""
    found: list[tuple[int, int]] = []
    for processor in target.processors:
        if processor.prcb is None:
            continue
        width = target.pointer_size
        thread = await try_read_pointer(source, processor.prcb + block["offset_prcb_current_thread"], width)
        place = (thread or 0) + block["offset_kthread_apc_process"]
        process = await try_read_pointer(source, place, width) if thread else None
        if thread and process and (thread, process) not in found:
            found.append((thread, process))
    return found


async def _entry_offset(source: Source, head: int, first: int, thread: int, size: int, width: int = 8) -> int | None:
    """How far into `thread` a list runs through it; None where it does not, or is no list."""
    link, before = first, head
    for _ in range(_MOST_THREADS):
        if not link or link == head:
            return None
        data = await try_read(source, link, 2 * width)
        if data is None or int.from_bytes(data[width:], "little") != before:
            return None
        if thread <= link < thread + size:
            return link - thread
        before, link = link, int.from_bytes(data[:width], "little")
    return None


async def threads_of(source: Source, target: Target, process: int, links: ThreadLinks) -> tuple[int, ...]:
    """The threads of a process, as far as its list can be walked and what it leads to are threads of this process."""
    block = target.kdbg.block if target.kdbg is not None else None
    if block is None:
        return ()
    found: list[int] = []
    seen: set[int] = set()
    width = target.pointer_size
    link = await try_read_pointer(source, process + links.head, width)
    while link and link != process + links.head and link not in seen and len(found) < _MOST_THREADS:
        seen.add(link)
        thread = link - links.entry
        data = await try_read(source, thread, block["offset_kthread_apc_process"] + width)
        if data is None or data[0] & 0x7F != _THREAD_TYPE:
            break
        owner = int.from_bytes(data[-width:], "little")
        if owner != process and links.owner is not None:  # it is attached to another process
            owner = await try_read_pointer(source, thread + links.owner, width) or 0
        if owner != process:
            break
        found.append(thread)
        link = await try_read_pointer(source, link, width)
    return tuple(found)
