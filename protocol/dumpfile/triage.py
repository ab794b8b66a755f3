"""Small dumps, type 4: TRIAGE_DUMP behind the header, then sections and pieces of virtual memory (dump-formats 4).

Every offset counts from the start of the file. Registers are not where they seem to be: a debugger follows KDBG,
KiProcessorBlock and KPRCB through the pieces of memory, and never looks at the header's CONTEXT.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from protocol.errors import DumpFormatError
from protocol.structure import Structure

from .header import DumpHeader, DumpType, encode_header
from .triage_layout import TRIAGE_DUMP64, TRIAGE_FORMS

__all__ = [
    "TriageBlock",
    "TriageContents",
    "TriageDriver",
    "TriageLayout",
    "TriageUnloaded",
    "encode_triage",
    "parse_triage",
]

_ReadFile = Callable[[int, int], bytes]

_TRAILER = b"TRGD"
_MINI_DUMP_FIELDS = 0xCFF
"""Context, exception, PRCB, process, thread, stack, drivers, KDBG, data blocks (4.2): as Windows sets it."""
_OPTIONS = 0xFFFF_FFFF

_MM = struct.Struct("<6I7Q")
_UNLOADED64 = TRIAGE_FORMS[64].unloaded
_BLOCK = struct.Struct("<QII")
"""Of 32-bit machines, too: their addresses are sign-extended in it."""
_DRIVER64_SIZE = 0x90
_DRIVER_FIELDS = struct.Struct("<QQQ")
"""DllBase, EntryPoint, SizeOfImage at +30 of the module data; Flags, CheckSum, TimeDateStamp lie at +68, +78, +80."""
assert (_MM.size, _UNLOADED64.size, _BLOCK.size) == (0x50, 0x38, 16)

_MOST_DRIVERS, _MOST_BLOCKS, _MOST_UNLOADED = 4096, 1 << 15, 64
_LARGEST_SECTION = 1 << 20
"""A KPRCB has 44 KiB, a kernel stack at most 96."""
_LONGEST_NAME = 1024
_SHORT_NAME = 12


@dataclass(frozen=True, slots=True)
class TriageBlock:
    """A piece of virtual memory: where it was, where in the file it is, and its bytes."""

    address: int
    file_offset: int
    size: int


@dataclass(frozen=True, slots=True)
class TriageDriver:
    """A loaded image. Timestamp and checksum as in its PE header."""

    path: str
    base: int
    entry_point: int
    size: int
    flags: int
    check_sum: int
    time_date_stamp: int


@dataclass(frozen=True, slots=True)
class TriageUnloaded:
    """An image that was unloaded; of its name there is room for twelve characters."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TriageLayout:
    """What a small dump holds and where. A section that is not there has size 0."""

    fields: Structure
    prcb: TriageBlock
    """Sections have the addresses that can be told of them alone: of the stack and the KDBG, else 0."""
    process: TriageBlock
    thread: TriageBlock
    call_stack: TriageBlock
    debugger_data: TriageBlock
    data_page: TriageBlock
    """A single page, in files from before there were blocks."""
    drivers: tuple[TriageDriver, ...]
    unloaded: tuple[TriageUnloaded, ...]
    blocks: tuple[TriageBlock, ...]
    shortcomings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TriageContents:
    """What is to be written into a small dump. `top_of_stack` is the lowest address of `call_stack`."""

    prcb: bytes
    process: bytes
    thread: bytes
    call_stack: bytes
    top_of_stack: int
    debugger_data: bytes
    drivers: Sequence[TriageDriver]
    unloaded: Sequence[TriageUnloaded]
    blocks: Sequence[tuple[int, bytes]]
    """(virtual address, bytes)."""


# ---- reading ----------------------------------------------------------------------------------------------------


def parse_triage(read: _ReadFile, header: DumpHeader, size: int) -> TriageLayout:
    """What lies behind the header of a small dump of `size` bytes; `read(offset, size)` gives bytes of the file.

    Raises DumpFormatError where there is no TRIAGE_DUMP at all; everything else that is wrong is a shortcoming, and
    what can be had is had.
    """
    layout = TRIAGE_FORMS[header.bits].dump
    raw = read(header.size, layout.size)
    if len(raw) < layout.size:
        raise DumpFormatError(f"the file ends inside {layout.name}", header.size + len(raw))
    fields = layout.decode(raw)
    reader = _Reader(read, size, fields, header)
    drivers = reader.drivers()
    unloaded = reader.unloaded()
    blocks = reader.blocks()
    # Sections that have no size of their own reach to the next one; KDBG tells the true size of each.
    stack = reader.section("call_stack_offset", fields["size_of_call_stack"], fields["top_of_stack"])
    data = reader.section("debugger_data_offset", fields["debugger_data_size"], header.kd_debugger_data_block)
    return TriageLayout(
        fields=fields,
        prcb=reader.section("prcb_offset", reader.room("prcb_offset")),
        process=reader.section("process_offset", reader.room("process_offset")),
        thread=reader.section("thread_offset", reader.room("thread_offset")),
        call_stack=stack,
        debugger_data=data,
        data_page=reader.section("data_page_offset", fields["data_page_size"], fields["data_page_address"]),
        drivers=drivers,
        unloaded=unloaded,
        blocks=blocks,
        shortcomings=tuple(reader.shortcomings),
    )


class _Reader:
    def __init__(self, read: _ReadFile, size: int, fields: Structure, header: DumpHeader) -> None:
        self._read = read
        self._size = size
        self._fields = fields
        self._forms = TRIAGE_FORMS[header.bits]
        self.shortcomings: list[str] = []

    def _starts(self) -> list[int]:
        names = [name for name in self._fields.values if name.endswith("_offset") and name != "valid_offset"]
        return sorted({self._fields[name] for name in names if self._fields[name]} | {self._size})

    def room(self, name: str) -> int:
        """Bytes from this section's beginning to that of the next; no more than a section may have."""
        start = self._fields[name]
        room = next((other - start for other in self._starts() if other > start), 0) if start else 0
        return min(room, _LARGEST_SECTION)

    def section(self, name: str, size: int, address: int = 0) -> TriageBlock:
        """A section as far as the file has it."""
        start = self._fields[name]
        if not start or not size:
            return TriageBlock(address, 0, 0)
        there = max(min(size, self._size - start, _LARGEST_SECTION), 0)
        if there < size:
            why = "reaches beyond the file's end" if start + size > self._size else f"has {size:#x} bytes: too much"
            self.shortcomings.append(f"{name.removesuffix('_offset')} at {start:#x} {why}")
        return TriageBlock(address, start, there)

    def _table(self, name: str, count: int, most: int, entry: int, what: str) -> tuple[bytes, int]:
        """The bytes of a table, and how many entries are whole in them."""
        start = self._fields[name]
        if not start or not count:
            return b"", 0
        believed = min(count, most, max(self._size - start, 0) // entry)
        if believed < count:
            self.shortcomings.append(f"{count} {what} are claimed at {start:#x}, and {believed} looked at")
        data = self._read(start, believed * entry)
        return data, len(data) // entry

    def drivers(self) -> tuple[TriageDriver, ...]:
        size = self._forms.driver.size
        data, count = self._table("driver_list_offset", self._fields["driver_count"], _MOST_DRIVERS, size, "drivers")
        return tuple(self._driver(data[at * size : (at + 1) * size]) for at in range(count))

    def _driver(self, entry: bytes) -> TriageDriver:
        fields = self._forms.driver.decode(entry)
        name = self._name(fields["name_offset"])
        return TriageDriver(
            name, *(fields[field] for field in ("dll_base", "entry_point", "size_of_image", "flags", "check_sum",
                                                "time_date_stamp"))
        )  # fmt: skip

    def _name(self, offset: int) -> str:
        """A count of characters, then UTF-16."""
        if not 0 < offset < self._size - 4:
            return ""
        count = min(int.from_bytes(self._read(offset, 4), "little"), _LONGEST_NAME)
        return self._read(offset + 4, 2 * count).decode("utf-16-le", "replace").split("\0")[0]

    def unloaded(self) -> tuple[TriageUnloaded, ...]:
        start, form, head = self._fields["unloaded_drivers_offset"], self._forms.unloaded, self._forms.unloaded_count
        if not start:
            return ()
        count = int.from_bytes(self._read(start, head), "little")
        believed = min(count, _MOST_UNLOADED)
        if believed < count:
            self.shortcomings.append(f"{count} unloaded drivers are claimed, and {believed} looked at")
        data = self._read(start + head, believed * form.size)
        found = []
        for at in range(0, len(data) - form.size + 1, form.size):
            length, _, _, _, name, low, high = form.unpack_from(data, at)
            text = name[: min(length, 2 * _SHORT_NAME) & ~1].decode("utf-16-le", "replace").split("\0")[0]
            found.append(TriageUnloaded(text, low, high))
        return tuple(found)

    def blocks(self) -> tuple[TriageBlock, ...]:
        mask = self._forms.address_mask
        data, count = self._table(
            "data_blocks_offset", self._fields["data_blocks_count"], _MOST_BLOCKS, _BLOCK.size, "data blocks"
        )
        found: list[TriageBlock] = []
        outside = surplus = total = 0
        for address, offset, size in _BLOCK.iter_unpack(data[: count * _BLOCK.size]):
            there = max(min(size, self._size - offset), 0)
            outside += there < size
            # Each byte of the file stands for one byte of memory: whoever says more than that wants ours.
            if total + there > self._size:
                surplus += 1
            elif there:
                total += there
                found.append(TriageBlock(address & mask, offset, there))
        if outside:
            self.shortcomings.append(f"{outside} data blocks reach beyond the file's end")
        if surplus:
            self.shortcomings.append(f"{surplus} data blocks are left out: together they are larger than the file")
        return tuple(found)


# ---- writing ----------------------------------------------------------------------------------------------------


def encode_triage(header: DumpHeader, contents: TriageContents, secondary: bytes = b"") -> Iterator[bytes]:
    """The whole file of a 64-bit machine, piece by piece, in Windows' order of sections; `secondary` behind it.

    The header's type, MiniDumpFields, memory runs and size are set here; all else is the caller's.
    Raises DumpFormatError when there is no stack, no KPRCB or no KDBG (WinDbg opens no such file), and where there
    is too much of anything.
    """
    if header.bits != 64:
        raise DumpFormatError("small dumps of 32-bit machines are read, and not written")
    if len(contents.blocks) > _MOST_BLOCKS:
        raise DumpFormatError(f"a small dump has at most {_MOST_BLOCKS} pieces, and these are {len(contents.blocks)}")
    lacking = [name for name in ("prcb", "call_stack", "debugger_data") if not getattr(contents, name)]
    if lacking:
        raise DumpFormatError(f"a small dump needs {', '.join(lacking)}, and there is none")
    body = _Body(header.size + TRIAGE_DUMP64.size)
    values: dict[str, int] = {
        "context_offset": 0x348,
        "exception_offset": 0xF00,
        "mm_offset": body.add(_MM.pack(1, _MM.size, *[0] * 11)),
        "unloaded_drivers_offset": body.add(_unloaded(contents.unloaded)),
        "prcb_offset": body.add(contents.prcb),
        "process_offset": body.add(contents.process),
        "thread_offset": body.add(contents.thread),
        "call_stack_offset": body.add(contents.call_stack),
        "size_of_call_stack": len(contents.call_stack),
        "top_of_stack": contents.top_of_stack,
        "debugger_data_offset": body.add(contents.debugger_data),
        "debugger_data_size": len(contents.debugger_data),
        "driver_count": len(contents.drivers),
        "triage_options": _OPTIONS,
    }
    pool, offsets = _names(contents.drivers, body.end + _DRIVER64_SIZE * len(contents.drivers))
    values["driver_list_offset"] = body.add(b"".join(map(_driver_entry, contents.drivers, offsets)))
    values["string_pool_offset"], values["string_pool_size"] = body.add(pool), len(pool)
    values["data_blocks_offset"], values["data_blocks_count"] = body.end, len(contents.blocks)
    at = body.end + _BLOCK.size * len(contents.blocks)
    table = bytearray()
    for address, data in contents.blocks:
        table += _BLOCK.pack(address, at, len(data))
        at += len(data)
    body.add(bytes(table))
    for _, data in contents.blocks:
        body.add_unaligned(data)
    padding = -body.end % 4
    size = body.end + padding + len(_TRAILER)
    values |= {"size_of_dump": size, "valid_offset": size - len(_TRAILER)}
    filled = replace(
        header, dump_type=DumpType.TRIAGE, mini_dump_fields=_MINI_DUMP_FIELDS, physical_memory=(), surplus_runs=0,
        claimed_pages=None, required_dump_space=size + len(secondary),
    )  # fmt: skip
    if size + len(secondary) >> 32:
        raise DumpFormatError(f"{size} bytes are too much for a small dump, whose offsets have 32 bits")
    return iter(
        [encode_header(filled), TRIAGE_DUMP64.encode(values), *body.parts, bytes(padding) + _TRAILER, secondary]
    )


class _Body:
    """Sections one behind the other, each where a multiple of 8 is; empty ones are left out and have the offset 0."""

    def __init__(self, start: int) -> None:
        self.end = start
        self.parts: list[bytes] = []

    def add(self, data: bytes) -> int:
        if not data:
            return 0
        self.add_unaligned(bytes(-self.end % 8))
        start = self.end
        self.add_unaligned(data)
        self.add_unaligned(bytes(-self.end % 8))
        return start

    def add_unaligned(self, data: bytes) -> None:
        self.parts.append(data)
        self.end += len(data)


def _unloaded(images: Sequence[TriageUnloaded]) -> bytes:
    out = bytearray(len(images).to_bytes(8, "little"))
    for image in images:
        name = image.name.encode("utf-16-le", "replace")[: 2 * _SHORT_NAME]
        out += _UNLOADED64.pack(len(name), len(name), 0, 0, name, image.start, image.end)
    return bytes(out)


def _names(drivers: Sequence[TriageDriver], start: int) -> tuple[bytes, list[int]]:
    """The pool of names that begins at this file offset, and where each lies."""
    start += -start % 8
    pool = bytearray()
    offsets: list[int] = []
    for driver in drivers:
        text = driver.path.encode("utf-16-le", "replace")[: 2 * _LONGEST_NAME]
        offsets.append(start + len(pool))
        pool += (len(text) // 2).to_bytes(4, "little") + text + b"\0\0"
        pool += bytes(-len(pool) % 8)
    return bytes(pool), offsets


def _driver_entry(driver: TriageDriver, name_offset: int) -> bytes:
    entry = bytearray(_DRIVER64_SIZE)
    struct.pack_into("<I", entry, 0, name_offset)
    _DRIVER_FIELDS.pack_into(entry, 8 + 0x30, driver.base, driver.entry_point, driver.size)
    struct.pack_into("<I", entry, 8 + 0x68, driver.flags)
    struct.pack_into("<I4xI", entry, 8 + 0x78, driver.check_sum, driver.time_date_stamp)
    return bytes(entry)
