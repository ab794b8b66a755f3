"""The list of loaded images, and the ring of unloaded ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from kdbridge.file_facts import told_by_file
from kdbridge.source import Source
from kdbridge.target import NAME_NOT_READ, Finding, Kdbg, Module, Target, UnloadedModule
from protocol.arch import pointer_size_of
from protocol.layouts.kernel import KERNEL_LAYOUTS, UNLOADED_DRIVER_SLOTS, KernelLayouts
from protocol.layouts.version import GetVersion64
from protocol.structure import StructureLayout

from .notes import Notes, read_string, try_read, try_read_pointer

__all__ = ["find_modules", "find_unloaded_modules", "listed_modules", "name_reader", "read_path", "with_names"]

_MOST_MODULES = 4096
_NAME_BEHIND = 0x40
"""Bytes behind an entry that are read with it."""
_NOT_READABLE = "<name not readable>"
_STAMPS_IN_LIST = 0x360
"""A KDBG of this size (Windows 8) or longer: TimeDateStamp lies in the list entry; before, in the PE header."""


_Listed = tuple[tuple[Module, ...], tuple[UnloadedModule, ...]]


def _layouts(version: GetVersion64) -> KernelLayouts:
    return KERNEL_LAYOUTS[pointer_size_of(version.machine_type)]


def listed_modules(source: Source, notes: Notes) -> _Listed | None:
    """Loaded and unloaded images of a file that has lists of its own (a small dump); None of everything else."""
    told = told_by_file(source)
    if told is None or told.modules is None or told.unloaded_modules is None:
        return None
    if told.modules:
        notes.found("modules", f"{len(told.modules)}, by the file's own list")
    notes.found("unloaded modules", f"{len(told.unloaded_modules)}, by the file's own list")
    return told.modules, told.unloaded_modules


async def find_modules(
    source: Source, version: GetVersion64, kdbg: Kdbg | None, notes: Notes, *, names: bool = True
) -> tuple[Module, ...]:
    """The module list as far as it can be walked, in load order.

    Without `names` only where each lies is read, a third of the bytes: `name_reader` knows the names of those that
    matter.
    """
    head = version.ps_loaded_module_list or (kdbg.block["ps_loaded_module_list"] if kdbg else 0)
    if not head:
        notes.missing("modules", "the target names no module list")
        return ()
    layouts = _layouts(version)
    layout, old = layouts.module, _is_old(kdbg)
    at = await try_read_pointer(source, head, layouts.pointer_size)
    modules: list[Module] = []
    seen = {head}
    problem = "" if at is not None else f"its head at {head:#x} cannot be read"
    while at is not None and at != head:
        if at in seen:
            problem = f"it turns in a circle at {at:#x}"
            break
        if len(modules) >= _MOST_MODULES:
            problem = f"more than {_MOST_MODULES} entries"
            break
        seen.add(at)
        data = await _entry(source, layout, at, names=names)
        if data is None:
            problem = f"its entry at {at:#x} cannot be read"
            break
        if names:
            modules.append(await _named(source, layout, at, data, paths=True, stamp_in_header=old))
        else:
            modules.append(_placed(layout, at, data))
        at = int.from_bytes(data[: layouts.pointer_size], "little")
    if problem:
        notes.missing("modules", f"{len(modules)} of the list, then {problem}: modules behind it are not known")
    else:
        notes.found("modules", f"{len(modules)}, by the list at {head:#x}")
    if lost := _without_name(modules):
        notes.missing(*lost)
    return tuple(modules)


def _is_old(kdbg: Kdbg | None) -> bool:
    return kdbg is not None and kdbg.block["size"] < _STAMPS_IN_LIST


def _place_size(layout: StructureLayout) -> int:
    """Bytes of an entry that tell where its image lies, and which comes next."""
    return layout.offset_of("size_of_image") + layout.size_of("size_of_image")


async def _entry(source: Source, layout: StructureLayout, at: int, *, names: bool) -> bytes | None:
    """An entry as far as it is wanted and there, but at least what tells where its image lies."""
    # The name stands behind its entry, as the loader puts it there: one read for both.
    for size in (layout.size + _NAME_BEHIND, layout.size) if names else ():
        data = await try_read(source, at, size)
        if data is not None:
            return data
    return await try_read(source, at, _place_size(layout))


def _placed(layout: StructureLayout, at: int, data: bytes) -> Module:
    entry = layout.decode(data, least=_place_size(layout), address=at)
    return Module(NAME_NOT_READ, "", entry["dll_base"], entry["size_of_image"], entry["entry_point"], 0, 0, at)


async def _named(
    source: Source, layout: StructureLayout, at: int, data: bytes, *, paths: bool, stamp_in_header: bool
) -> Module:
    """`data` is the entry with what lies behind it, or only its beginning where no more is there."""
    module = _placed(layout, at, data)
    if len(data) < layout.size:
        return replace(module, name=_NOT_READABLE)
    entry = layout.decode(data)
    start, length = entry["base_dll_name"] - at, entry["base_dll_name_length"]
    text = data[start : start + length] if start > 0 else b""
    if text and len(text) == length:
        name: str | None = text.decode("utf-16-le", "replace").split("\0")[0]
    else:
        name = await read_string(source, entry["base_dll_name"], length)
    path = await read_string(source, entry["full_dll_name"], entry["full_dll_name_length"]) if paths else ""
    stamp = await _header_stamp(source, module.base) if stamp_in_header else entry["time_date_stamp"]
    return replace(
        module,
        name=name if name is not None else _NOT_READABLE,
        path=path if path is not None else "",
        time_date_stamp=stamp,
        check_sum=entry["check_sum"],
    )


def name_reader(source: Source, target: Target) -> Callable[[Module], Awaitable[Module]]:
    """Reads the name of a module that a first look left without; others stay as they are. It reads no path."""
    layout, old = _layouts(target.version).module, _is_old(target.kdbg)

    async def named(module: Module) -> Module:
        if module.name != NAME_NOT_READ:
            return module
        data = await _entry(source, layout, module.entry_address, names=True)
        if data is None:
            return replace(module, name=_NOT_READABLE)
        return await _named(source, layout, module.entry_address, data, paths=False, stamp_in_header=old)

    return named


async def with_names(source: Source, target: Target) -> Target:
    """The target with the names of all its modules, which a first look left out, as far as the source has them."""
    if all(module.name != NAME_NOT_READ for module in target.modules):
        return target
    named = name_reader(source, target)
    modules = tuple([await named(module) for module in target.modules])
    lost = _without_name(modules)
    findings = (*target.findings, Finding(lost[0], False, lost[1])) if lost else target.findings
    return replace(target, modules=modules, findings=findings)


def _without_name(modules: Sequence[Module]) -> tuple[str, str] | None:
    """What is missing, and how much of it; None: nothing is."""
    lost = sum(module.name == _NOT_READABLE for module in modules)
    return ("names of modules", f"{lost} of {len(modules)} cannot be read") if lost else None


async def read_path(source: Source, version: GetVersion64, module: Module) -> str:
    """The path of a module that was listed without paths; empty where it cannot be read."""
    layout = _layouts(version).module
    data = await try_read(source, module.entry_address, layout.size) if module.entry_address else None
    if data is None:
        return ""
    entry = layout.decode(data)
    return await read_string(source, entry["full_dll_name"], entry["full_dll_name_length"]) or ""


async def _header_stamp(source: Source, base: int) -> int:
    """TimeDateStamp of the PE header; 0 where it is paged out."""
    head = await try_read(source, base, 0x40)
    if head is None or head[:2] != b"MZ":
        return 0
    header = await try_read(source, base + (int.from_bytes(head[0x3C:0x40], "little") & 0xFFFF), 12)
    if header is None or header[:4] != b"PE\0\0":
        return 0
    return int.from_bytes(header[8:12], "little")


async def find_unloaded_modules(
    source: Source, kdbg: Kdbg | None, notes: Notes, version: GetVersion64 | None = None
) -> tuple[UnloadedModule, ...]:
    """What the ring of unloaded drivers remembers, the latest first. Without `version` of a 64-bit kernel."""
    if kdbg is None or not kdbg.block["mm_unloaded_drivers"]:
        notes.missing("unloaded modules", "the KDBG names no list of them")
        return ()
    layouts = KERNEL_LAYOUTS[8] if version is None else _layouts(version)
    ring = await try_read_pointer(source, kdbg.block["mm_unloaded_drivers"], layouts.pointer_size)
    if not ring:
        notes.found("unloaded modules", "none yet")
        return ()
    last = await try_read(source, kdbg.block["mm_last_unloaded_driver"], 4)
    count = min(int.from_bytes(last or b"\0\0\0\0", "little"), UNLOADED_DRIVER_SLOTS)
    size = layouts.unloaded_driver.size
    # The whole ring is 2,000 bytes: one read, unless it has hardly begun.
    slots = UNLOADED_DRIVER_SLOTS
    data = await try_read(source, ring, slots * size)
    if data is None:
        slots = count
        data = await try_read(source, ring, slots * size)
    if data is None:
        notes.missing("unloaded modules", f"the ring at {ring:#x} cannot be read")
        return ()
    found: list[UnloadedModule] = []
    for step in range(slots):
        index = (count - 1 - step) % slots if slots else 0
        entry = layouts.unloaded_driver.decode(data[index * size : (index + 1) * size])
        if not entry["name"] or not entry["name_length"] or entry["end_address"] < entry["start_address"]:
            continue
        name = await read_string(source, entry["name"], entry["name_length"])
        found.append(
            UnloadedModule(name or _NOT_READABLE, entry["start_address"], entry["end_address"], entry["current_time"])
        )
    notes.found("unloaded modules", f"{len(found)}")
    return tuple(found)
