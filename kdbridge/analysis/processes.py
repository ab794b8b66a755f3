"""Processes with their names, found without symbols: what cannot be proven on the target's own data is not told."""

from __future__ import annotations

from collections.abc import Collection

from kdbridge.discovery.notes import try_read, try_read_pointer
from kdbridge.discovery.processes import ProcessEntry, find_processes
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import format_address
from protocol.structure import Structure

from .model import Missing, ProcessFact

__all__ = ["process_facts", "running_threads"]

_NAME_SIZE = 15
"""EPROCESS.ImageFileName, of ANSI characters; what does not fit is cut off."""
_SYSTEM = "System"
_LARGEST_PROCESS = 0x2000
_MOST_CANDIDATES = 16
_WITNESSES = 16
"""So many other processes are asked about each place where names may lie."""
_NEAR = 0x100
"""What lies so near is read at once."""


async def process_facts(
    source: Source, target: Target, most: int = 4096
) -> tuple[tuple[ProcessFact, ...], tuple[Missing, ...]]:
    """The processes in the order of their list, `most` at most, and what could not be found out of them."""
    block = target.kdbg.block if target.kdbg is not None else None
    if block is None:
        return (), (Missing("processes", "without the KDBG nothing tells where their list is"),)
    width = target.pointer_size
    entries = await find_processes(source, target)
    if not entries:
        return (), (await _no_list(source, block, width),)
    missing = list(await _end_of_list(source, block, entries, width))
    if len(entries) > most:
        missing.append(Missing("processes", f"only the first {most} of {len(entries)} are told"))
        entries = entries[:most]
    name_offset, system, problem = await _name_offset(source, block, entries)
    if problem and len(entries) > system:
        missing.append(Missing("names of processes", problem))
    running: dict[int, list[int]] = {}
    for number, (_, process) in (await running_threads(source, target)).items():
        running.setdefault(process, []).append(number)
    found: list[ProcessFact] = []
    for entry in entries:
        name, parent = await _name_and_parent(source, entry, name_offset, block["offset_eprocess_parent_cid"], width)
        if not name and entry is entries[0] and system:
            name = _SYSTEM
        on = tuple(running.get(entry.address, ()))
        found.append(ProcessFact(entry.address, entry.process_id, parent, name, entry.directory_table_base, on))
    return tuple(found), tuple(missing)


async def running_threads(
    source: Source, target: Target, only: Collection[int] | None = None
) -> dict[int, tuple[int, int]]:
    """By processor (of all, or of `only` these): the thread that it runs, and the process whose memory that sees."""
    block = target.kdbg.block if target.kdbg is not None else None
    if block is None or not block["offset_prcb_current_thread"]:
        return {}
    width = target.pointer_size
    found: dict[int, tuple[int, int]] = {}
    for processor in target.processors:
        if processor.prcb is None or (only is not None and processor.number not in only):
            continue
        thread = await try_read_pointer(source, processor.prcb + block["offset_prcb_current_thread"], width)
        if not thread:
            continue
        process = await try_read_pointer(source, thread + block["offset_kthread_apc_process"], width)
        found[processor.number] = (thread, process or 0)
    return found


async def _no_list(source: Source, block: Structure, width: int) -> Missing:
    head = block["ps_active_process_head"]
    first = await try_read_pointer(source, head, width)
    if first is None:
        why = f"the list's head at {format_address(head)} cannot be read"
        return Missing("processes", why, ((head, width),))
    if not first or first == head:
        return Missing("processes", "their list is empty")
    if await try_read(source, first - width, 2 * width) is None:
        why = f"their list begins at {format_address(first)}, which cannot be read"
        return Missing("processes", why, ((first - width, 2 * width),))
    return Missing("processes", f"what lies before {format_address(first)}, where their list begins, is not System")


async def _end_of_list(
    source: Source, block: Structure, entries: tuple[ProcessEntry, ...], width: int
) -> tuple[Missing, ...]:
    """What is wrong with the list's end, if anything is."""
    head, last = block["ps_active_process_head"], entries[-1]
    first = await try_read_pointer(source, head, width)
    offset = (first or 0) - entries[0].address
    following = await try_read_pointer(source, last.address + offset, width)
    if following == head:
        return ()
    behind = f"behind process {last.process_id} at {format_address(last.address)} their list"
    if following is None or following < offset:
        return (Missing("processes", f"{behind} leads nowhere"),)
    table = following - offset + block["offset_eprocess_directory_table_base"]
    needed = ((following - width, 2 * width), (table, width))
    gone = tuple([one for one in needed if await try_read(source, *one) is None])
    if not gone:
        return (Missing("processes", f"{behind} turns back into itself, or goes on for ever"),)
    return (Missing("processes", f"{behind} goes on at {format_address(following)}, which cannot be read", gone),)


async def _name_offset(
    source: Source, block: Structure, entries: tuple[ProcessEntry, ...]
) -> tuple[int | None, bool, str]:
    """Where ImageFileName lies in an EPROCESS; whether System holds its name; why the place cannot be told.

    System's holds "System" and zeros. There must be a readable name at the same place of the other processes: of one
    at least, and of three quarters of those that are asked.
    """
    system, others = entries[0], entries[1 : 1 + _WITNESSES]
    size = min(block["size_eprocess"] or _LARGEST_PROCESS, _LARGEST_PROCESS)
    data = await try_read(source, system.address, size)
    if data is None:
        return None, False, f"System's EPROCESS at {format_address(system.address)} cannot be read as a whole"
    candidates = _places_of(data, _SYSTEM.encode("ascii").ljust(_NAME_SIZE, b"\0"))
    if not candidates:
        return None, False, "System's EPROCESS holds its name nowhere"
    good: list[tuple[int, int]] = []
    for offset in candidates[:_MOST_CANDIDATES]:
        read = [await try_read(source, other.address + offset, _NAME_SIZE) for other in others]
        names = [_name(one) for one in read if one is not None]
        agreeing = sum(1 for name in names if name)
        if agreeing and agreeing * 4 >= len(names) * 3:
            good.append((agreeing, offset))
    if not good:
        return None, True, "no other process has a name at the place where System has its own"
    best = max(agreeing for agreeing, _ in good)
    places = [offset for agreeing, offset in good if agreeing == best]
    if len(places) > 1:
        return None, True, f"they may lie at any of {len(places)} places in an EPROCESS"
    return places[0], True, ""


def _places_of(data: bytes, needle: bytes) -> list[int]:
    found: list[int] = []
    at = data.find(needle)
    while at >= 0:
        if at % 4 == 0:
            found.append(at)
        at = data.find(needle, at + 1)
    return found


def _name(data: bytes) -> str:
    """The name that these bytes are; empty where they are none."""
    text = data.split(b"\0")[0]
    if not text or any(not 0x20 <= byte < 0x7F and byte < 0x80 for byte in text):
        return ""
    return text.decode("latin-1")


async def _name_and_parent(
    source: Source, entry: ProcessEntry, name_offset: int | None, parent_offset: int, width: int
) -> tuple[str, int | None]:
    """Both with one read where they lie near each other."""
    wanted = [(name_offset, _NAME_SIZE)] if name_offset is not None else []
    wanted += [(parent_offset, width)] if parent_offset else []
    pieces: dict[int, bytes | None] = {}
    if len(wanted) == 2 and abs(wanted[0][0] - wanted[1][0]) <= _NEAR:
        start, end = min(at for at, _ in wanted), max(at + size for at, size in wanted)
        data = await try_read(source, entry.address + start, end - start)
        if data is not None:
            pieces = {at: data[at - start : at - start + size] for at, size in wanted}
    for at, size in wanted:
        if at not in pieces:
            pieces[at] = await try_read(source, entry.address + at, size)
    text = pieces.get(name_offset) if name_offset is not None else None
    parent = pieces.get(parent_offset) if parent_offset else None
    name = _name(text) if text is not None else ""
    return name, None if parent is None else int.from_bytes(parent, "little")
