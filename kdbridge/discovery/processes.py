"""The list of processes and the lists of their threads, found without symbols.

The KDBG tells where the list of processes begins, but not where its links lie in an EPROCESS, nor where the links of
threads lie. Both are proven by the target's own data: System is the process with id 4, and a thread that a processor
runs must be found in its own process's list.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from kdbridge.source import Source
from kdbridge.target import Target
from protocol.structure import Structure

from .notes import try_read, try_read_pointer

__all__ = ["ProcessEntry", "ThreadLinks", "find_processes", "find_thread_links", "links_offset_of", "threads_of"]

_LINKS = range(0x80, 0x600, 8)
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


def links_offset_of(before: bytes, table_offset: int, mask: int) -> int | None:
    """Where ActiveProcessLinks lie in an EPROCESS, by the bytes before System's; None where these are not System's.

    `before` ends where the links begin; `table_offset` is that of the directory table base; `mask` its frame's bits.
    """
    if before[-8:] != (4).to_bytes(8, "little"):
        return None
    for offset in _LINKS:
        start = len(before) - offset
        if start < 0 or start + table_offset + 8 > len(before):
            continue
        if before[start] != _PROCESS_TYPE or before[start + 1] > 1:
            continue
        value = int.from_bytes(before[start + table_offset : start + table_offset + 8], "little")
        if value & mask and not value & ~(mask | 0xFFF) and not value & _ROOT_LOW_BITS:
            return offset
    return None


async def find_processes(source: Source, target: Target) -> tuple[ProcessEntry, ...]:
    """The processes in the order of the list, as far as it can be walked; it may be broken, or turn in circles."""
    if target.kdbg is None:
        return ()
    block = target.kdbg.block
    head, table = block["ps_active_process_head"], block["offset_eprocess_directory_table_base"]
    link = await try_read_pointer(source, head)
    if not link or not table:
        return ()
    before = await try_read(source, link - _LINKS.stop, _LINKS.stop)
    offset = None if before is None else links_offset_of(before, table, 0x000F_FFFF_FFFF_F000)
    if offset is None:
        return ()
    found: list[ProcessEntry] = []
    seen = {head}
    while link and link not in seen and len(found) < _MOST_PROCESSES:
        seen.add(link)
        start = link - offset
        identity = await try_read(source, link - 8, 16)
        root = await try_read_pointer(source, start + table)
        if identity is None or root is None:
            break
        found.append(ProcessEntry(start, int.from_bytes(identity[:8], "little"), root))
        link = int.from_bytes(identity[8:], "little")
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
        for head in range(_FIRST_LINKS, _KPROCESS, 8):
            first = int.from_bytes(data[head : head + 8], "little")
            entry = await _entry_offset(source, process + head, first, thread, block["size_ethread"])
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
        thread = await try_read_pointer(source, processor.prcb + block["offset_prcb_current_thread"])
        process = (
            await try_read_pointer(source, (thread or 0) + block["offset_kthread_apc_process"]) if thread else None
        )
        if thread and process and (thread, process) not in found:
            found.append((thread, process))
    return found


async def _entry_offset(source: Source, head: int, first: int, thread: int, size: int) -> int | None:
    """How far into `thread` a list runs through it; None where it does not, or is no list."""
    link, before = first, head
    for _ in range(_MOST_THREADS):
        if not link or link == head:
            return None
        data = await try_read(source, link, 16)
        if data is None or int.from_bytes(data[8:], "little") != before:
            return None
        if thread <= link < thread + size:
            return link - thread
        before, link = link, int.from_bytes(data[:8], "little")
    return None


async def threads_of(source: Source, target: Target, process: int, links: ThreadLinks) -> tuple[int, ...]:
    """The threads of a process, as far as its list can be walked and what it leads to are threads of this process."""
    block = target.kdbg.block if target.kdbg is not None else None
    if block is None:
        return ()
    found: list[int] = []
    seen: set[int] = set()
    link = await try_read_pointer(source, process + links.head)
    while link and link != process + links.head and link not in seen and len(found) < _MOST_THREADS:
        seen.add(link)
        thread = link - links.entry
        data = await try_read(source, thread, block["offset_kthread_apc_process"] + 8)
        if data is None or data[0] & 0x7F != _THREAD_TYPE or struct.unpack("<Q", data[-8:])[0] != process:
            break
        found.append(thread)
        link = await try_read_pointer(source, link)
    return tuple(found)
