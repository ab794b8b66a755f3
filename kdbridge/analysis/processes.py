"""Processes with their names, found with or without symbols: what the target's own data does not prove is not told."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kdbridge.discovery.notes import try_read, try_read_pointer
from kdbridge.discovery.processes import ProcessEntry, find_processes
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import format_address
from protocol.structure import Structure

from .client_id import HIGHEST_ID
from .model import Missing, ProcessFact
from .names import Names
from .shortcomings import pages_of, unreadable

__all__ = ["process_facts", "running_threads"]

_NAME_SIZE = 15
"""EPROCESS.ImageFileName, of ANSI characters; what does not fit is cut off."""
_SYSTEM = "System"
_NAMES = "names of processes"
_LARGEST_PROCESS = 0x2000
_MOST_CANDIDATES = 16
_WITNESSES = 16
"""So many other processes are asked about each place where names may lie."""
_NEAR = 0x100
"""What lies so near is read at once."""


async def process_facts(
    source: Source, target: Target, most: int = 4096, names: Names | None = None
) -> tuple[tuple[ProcessFact, ...], tuple[Missing, ...]]:
    """The processes in the order of their list, `most` at most, and what could not be found out of them.

    Where a field lies is asked of the symbols in `names` first, if there are any.
    """
    block = target.kdbg.block if target.kdbg is not None else None
    if block is None:
        return (), (Missing("processes", "without the KDBG nothing tells where their list is"),)
    width = target.pointer_size
    entries = await find_processes(source, target, await _told(names, "ActiveProcessLinks"))
    if not entries:
        return (), (await _no_list(source, block, width),)
    missing = list(await _end_of_list(source, block, entries, width))
    if len(entries) > most:
        missing.append(Missing("processes", f"only the first {most} of {len(entries)} are told"))
        entries = entries[:most]
    told = await _told(names, "ImageFileName")
    if told is not None and await _bears_names(source, entries, told):
        place: tuple[int | None, bool, Missing | None] = told, True, None
    else:
        place = await _name_offset(source, block, entries)
    name_offset, system, problem = place
    if problem is not None and len(entries) > system:
        missing.append(problem)
    parent_offset = block["offset_eprocess_parent_cid"]
    told = None if parent_offset else await _told(names, "InheritedFromUniqueProcessId")
    if told is not None and await _bears_parents(source, entries, told, width):
        parent_offset = told
    running: dict[int, list[int]] = {}
    for number, (_, process) in (await running_threads(source, target)).items():
        running.setdefault(process, []).append(number)
    found: list[ProcessFact] = []
    for entry in entries:
        name, parent = await _name_and_parent(source, entry, name_offset, parent_offset, width)
        if not name and entry is entries[0] and system:
            name = _SYSTEM
        on = tuple(running.get(entry.address, ()))
        found.append(ProcessFact(entry.address, entry.process_id, parent, name, entry.directory_table_base, on))
    missing += await _not_told(source, found, name_offset, parent_offset, width)
    return tuple(found), tuple(missing)


async def _told(names: Names | None, field: str) -> int | None:
    return None if names is None else await names.structure_offset("_EPROCESS", field)


async def _not_told(
    source: Source, facts: Sequence[ProcessFact], name_offset: int | None, parent_offset: int, width: int
) -> list[Missing]:
    """What is missing of single processes: names where their place is known, and parents."""
    missing: list[Missing] = []
    nameless = [one.address for one in facts if not one.name] if name_offset is not None else []
    gone = await unreadable(source, *((address + (name_offset or 0), _NAME_SIZE) for address in nameless))
    if gone:
        missing.append(Missing(_NAMES, f"those of {len(gone)} of {len(facts)} cannot be read", gone))
    if len(nameless) > len(gone):
        why = f"where those of {len(nameless) - len(gone)} of {len(facts)} should stand, there is no name"
        missing.append(Missing(_NAMES, why))
    orphans = [one.address for one in facts if one.parent_id is None]
    if orphans and not parent_offset:
        missing.append(Missing("parents of processes", "the KDBG does not tell where in an EPROCESS they stand"))
    elif orphans:
        gone = await unreadable(source, *((address + parent_offset, width) for address in orphans))
        why = f"those of {len(orphans)} of {len(facts)} cannot be read"
        missing.append(Missing("parents of processes", why, gone))
    return missing


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


async def _bears_names(source: Source, entries: tuple[ProcessEntry, ...], offset: int) -> bool:
    """Whether System's name stands there in System; where that cannot be read, whether most of the others have one."""
    system = await try_read(source, entries[0].address + offset, _NAME_SIZE)
    if system is not None:
        return _name(system) == _SYSTEM
    agreeing, asked = await _with_names(source, entries[1 : 1 + _WITNESSES], offset)
    return bool(agreeing) and agreeing * 4 >= asked * 3


async def _bears_parents(source: Source, entries: tuple[ProcessEntry, ...], offset: int, width: int) -> bool:
    """Whether ids stand there, and one of them at least is that of another process of the list."""
    known, parents = {one.process_id for one in entries}, 0
    for one in entries[: 1 + _WITNESSES]:
        value = await try_read_pointer(source, one.address + offset, width)
        if value is not None and (value % 4 or value >= HIGHEST_ID):
            return False
        parents += value in known and value != one.process_id
    return parents > 0


async def _with_names(source: Source, entries: tuple[ProcessEntry, ...], offset: int) -> tuple[int, int]:
    """How many of these have a name there, and how many could be asked."""
    read = [await try_read(source, one.address + offset, _NAME_SIZE) for one in entries]
    asked = [one for one in read if one is not None]
    return sum(1 for one in asked if _name(one)), len(asked)


async def _name_offset(
    source: Source, block: Structure, entries: tuple[ProcessEntry, ...]
) -> tuple[int | None, bool, Missing | None]:
    """Where ImageFileName lies in an EPROCESS; whether System holds its name; why the place cannot be told.

    System's holds "System" and zeros. There must be a readable name at the same place of the other processes: of one
    at least, and of three quarters of those that are asked.
    """
    system, others = entries[0], entries[1 : 1 + _WITNESSES]
    size = min(block["size_eprocess"] or _LARGEST_PROCESS, _LARGEST_PROCESS)
    data = await try_read(source, system.address, size)
    if data is None:
        why = f"System's EPROCESS at {format_address(system.address)} cannot be read as a whole"
        return None, False, Missing(_NAMES, why, await unreadable(source, *pages_of(system.address, size)))
    candidates = _places_of(data, _SYSTEM.encode("ascii").ljust(_NAME_SIZE, b"\0"))
    if not candidates:
        return None, False, Missing(_NAMES, "System's EPROCESS holds its name nowhere")
    good: list[tuple[int, int]] = []
    for offset in candidates[:_MOST_CANDIDATES]:
        agreeing, asked = await _with_names(source, others, offset)
        if agreeing and agreeing * 4 >= asked * 3:
            good.append((agreeing, offset))
    if not good:
        return None, True, Missing(_NAMES, "no other process has a name at the place where System has its own")
    best = max(agreeing for agreeing, _ in good)
    places = [offset for agreeing, offset in good if agreeing == best]
    if len(places) > 1:
        return None, True, Missing(_NAMES, f"they may lie at any of {len(places)} places in an EPROCESS")
    return places[0], True, None


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
