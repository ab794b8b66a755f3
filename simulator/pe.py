"""PE-shaped images as the loader leaves them in memory: headers, code, .pdata and .xdata, exports, RSDS, variables."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from protocol.address import PAGE_SIZE

from .code import AssembledFunction, Function, assemble
from .errors import SimulationError
from .resources import VersionText, version_section
from .unwind_rows import lay_unwind_data, unwind_table

__all__ = ["PREFERRED_BASE", "ImagePlan", "ImageSpec", "Section", "Variable", "plan_image"]

PREFERRED_BASE = 0x1_C000_0000
"""Where linkers put drivers: the ImageBase in a file's header, which its absolute pointers are made for."""

_MACHINE = 0x8664
_HEADER_AT = 0x100
_CODE, _READ, _WRITE = 0x6800_0020, 0x4800_0040, 0xC800_0040
_DISCARDABLE = 0x0200_0000
_EXECUTABLE, _DLL = 0x22, 0x2022
_EXPORT, _RESOURCE, _EXCEPTION, _RELOCATIONS, _DEBUG, _IAT = 0, 2, 3, 5, 6, 12
_HEADERS_SIZE, _FILE_ALIGNMENT = 0x400, 0x200
_ABSOLUTE = 10
"""IMAGE_REL_BASED_DIR64."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A named piece of an image's data section; `data` is what the image file holds there."""

    name: str
    size: int = 8
    align: int = 8
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What goes into an image. `least_size` rounds a small one up to what such a module takes in memory.

    One that is `linked` has absolute pointers, relocations for them, and a file whose sections are packed; in the file
    of one that is not, everything lies where it lies in memory.
    """

    name: str
    file_name: str
    path: str
    functions: tuple[Function, ...]
    variables: tuple[Variable, ...] = ()
    entry: str = ""
    pdb_name: str = ""
    time_date_stamp: int = 0
    check_sum: int = 0
    least_size: int = 0
    linked: bool = False
    version: VersionText | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A section as its header tells it. A discarded one is no longer mapped."""

    name: str
    rva: int
    size: int
    characteristics: int
    raw: int = 0
    raw_size: int = 0
    """Where its bytes lie in the file, and how many are there; behind them it is zeros."""

    @property
    def discarded(self) -> bool:
        """The loader gave its pages back after initialisation."""
        return bool(self.characteristics & _DISCARDABLE)

    @property
    def writable(self) -> bool:
        """Data that changes."""
        return bool(self.characteristics & 0x8000_0000)

    @property
    def executable(self) -> bool:
        """Code."""
        return bool(self.characteristics & 0x2000_0000)


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """An image laid out: every name has its place, the bytes only wait for the base addresses of all images."""

    spec: ImageSpec
    size: int
    functions: dict[str, AssembledFunction]
    rvas: dict[str, int]
    """Functions and variables by name."""
    sections: tuple[Section, ...]
    exception_table: tuple[int, int]
    """RVA and size of .pdata."""
    import_slots: dict[str, int]
    content: bytes
    """As in the file, unpacked; zeros at its end may be left out."""
    relocations: tuple[int, ...] = ()
    """RVAs of absolute pointers, which are made for PREFERRED_BASE."""

    @property
    def entry_rva(self) -> int:
        """Where the loader calls the image; 0 where it has no code to call."""
        return self.rvas.get(self.spec.entry, 0)

    def return_site(self, function: str, callee: str) -> int:
        """RVA of the instruction behind a call."""
        return self.rvas[function] + self.functions[function].return_sites[callee]

    def event_site(self, function: str) -> int:
        """RVA of the instruction at which this function stops."""
        offset = self.functions[function].event_offset
        if offset is None:
            raise SimulationError(f"{self.spec.name}!{function} has no instruction that stops")
        return self.rvas[function] + offset

    def link(self, base: int, addresses: Mapping[str, int]) -> bytes:
        """The image's bytes at `base`; `addresses` maps "module!function" to where it lies."""
        data = bytearray(self.content.ljust(self.size, b"\0"))
        self._fix_calls(data)
        struct.pack_into("<Q", data, _HEADER_AT + 24 + 24, base)
        for name, slot in self.import_slots.items():
            struct.pack_into("<Q", data, slot, addresses[name])
        for rva in self.relocations:
            struct.pack_into("<Q", data, rva, struct.unpack_from("<Q", data, rva)[0] - PREFERRED_BASE + base)
        return bytes(data)

    def as_file(self) -> bytes:
        """The image's file: at no address yet, its imports by ordinal."""
        data = bytearray(self.content.ljust(self.size, b"\0"))
        self._fix_calls(data)
        struct.pack_into("<Q", data, _HEADER_AT + 24 + 24, PREFERRED_BASE)
        for number, slot in enumerate(self.import_slots.values()):
            struct.pack_into("<Q", data, slot, 1 << 63 | number + 1)
        file = bytearray(data[: min(section.raw for section in self.sections)])
        for section in self.sections:
            file += bytes(section.raw - len(file)) + data[section.rva : section.rva + section.raw_size]
        return bytes(file)

    def _fix_calls(self, data: bytearray) -> None:
        for name, assembled in self.functions.items():
            for fixup in assembled.fixups:
                at = self.rvas[name] + fixup.offset
                target = self.import_slots[fixup.target] if fixup.imported else self.rvas[fixup.target]
                struct.pack_into("<i", data, at, target - (at + 4))


class _Layout:
    """Sections while they grow: one bytearray for the whole image."""

    def __init__(self) -> None:
        self.data = bytearray(PAGE_SIZE)
        self.sections: list[Section] = []
        self._start = 0

    def begin(self) -> None:
        self._start = len(self.data)

    def place(self, data: bytes, align: int = 16, fill: bytes = b"\0") -> int:
        """Append; returns the RVA."""
        self.data += fill * (-len(self.data) % align)
        rva = len(self.data)
        self.data += data
        return rva

    def end(self, name: str, characteristics: int, least: int = 0) -> Section:
        size = max(len(self.data) - self._start, least, 1)
        self.data += bytes(self._start + size - len(self.data))
        self.data += bytes(-len(self.data) % PAGE_SIZE)
        section = Section(name, self._start, size, characteristics)
        self.sections.append(section)
        return section


def plan_image(spec: ImageSpec, rng: random.Random) -> ImagePlan:
    """Lay an image out. The same spec and generator state give the same bytes."""
    layout = _Layout()
    functions = {function.name: assemble(function, rng) for function in spec.functions}
    rvas: dict[str, int] = {}

    layout.begin()
    for name, assembled in functions.items():
        rvas[name] = layout.place(assembled.code, 16, b"\xcc")
    layout.end(".text", _CODE)

    layout.begin()
    imports = sorted({fixup.target for part in functions.values() for fixup in part.fixups if fixup.imported})
    slots = {target: layout.place(bytes(8), 8) for target in imports}
    rows = lay_unwind_data(layout.place, {name: part.rows for name, part in functions.items()}, rvas)
    pdb = spec.pdb_name.encode("ascii") + b"\0"
    rsds = layout.place(b"RSDS" + rng.randbytes(16) + struct.pack("<I", 1) + pdb, 4)
    rsds_size = 24 + len(pdb)
    debug = layout.place(struct.pack("<IIHHIIII", 0, spec.time_date_stamp, 0, 0, 2, rsds_size, rsds, rsds), 4)
    pointers = list(functions) if spec.linked else []
    relocations = [layout.place(struct.pack("<Q", PREFERRED_BASE + rvas[name]), 8) for name in pointers]
    exported = sorted(function.name for function in spec.functions if function.exported)
    export, export_size = _exports(layout, spec, exported, rvas)
    layout.end(".rdata", _READ)

    layout.begin()
    layout.place(unwind_table(rows, len(layout.data)), 4)
    pdata = layout.end(".pdata", _READ)

    layout.begin()
    for variable in spec.variables:
        rvas[variable.name] = layout.place(variable.data.ljust(variable.size, b"\0"), variable.align)
    layout.end(".data", _WRITE)

    layout.begin()
    layout.place(b"\xcc" * 0x600, 16)
    layout.end("PAGE", _CODE)
    resources = (0, 0)
    if spec.version is not None:
        layout.begin()
        section = version_section(len(layout.data), spec.version, spec.file_name)
        resources = layout.place(section), len(section)
        layout.end(".rsrc", _READ)
    relocation_table = (0, 0)
    if spec.linked:
        layout.begin()
        table = _relocations(relocations)
        relocation_table = layout.place(table, 4), len(table)
        layout.end(".reloc", _READ | _DISCARDABLE)
    layout.begin()
    layout.place(b"\xcc" * 0x400, 16)
    # What is left of the image's size: INIT, as long as it takes.
    layout.end("INIT", _CODE | _DISCARDABLE, spec.least_size - len(layout.data))

    sections = _packed(layout) if spec.linked else [replace(s, raw=s.rva, raw_size=s.size) for s in layout.sections]
    plan = ImagePlan(
        spec,
        len(layout.data),
        functions,
        rvas,
        tuple(sections),
        (pdata.rva, 12 * len(rows)),
        slots,
        b"",
        tuple(relocations),
    )
    directories = {
        _EXPORT: (export, export_size),
        _RESOURCE: resources,
        _EXCEPTION: plan.exception_table,
        _RELOCATIONS: relocation_table,
        _DEBUG: (debug, 28),
        _IAT: (slots[imports[0]], 8 * len(imports)) if imports else (0, 0),
    }
    headers = _headers(plan, directories)
    layout.data[: len(headers)] = headers
    return replace(plan, content=bytes(layout.data))


def _relocations(rvas: list[int]) -> bytes:
    """Base relocation blocks, one for each page that has any."""
    table = b""
    for page in sorted({rva & -PAGE_SIZE for rva in rvas}):
        entries = [_ABSOLUTE << 12 | rva - page for rva in rvas if rva & -PAGE_SIZE == page]
        entries += [0] * (len(entries) % 2)
        table += struct.pack(f"<II{len(entries)}H", page, 8 + 2 * len(entries), *entries)
    return table


def _packed(layout: _Layout) -> list[Section]:
    """The sections one behind the other in the file, without the zeros at their ends."""
    packed: list[Section] = []
    raw = _HEADERS_SIZE
    for section in layout.sections:
        used = len(bytes(layout.data[section.rva : section.rva + section.size]).rstrip(b"\0"))
        size = -(-used // _FILE_ALIGNMENT) * _FILE_ALIGNMENT
        packed.append(replace(section, raw=raw, raw_size=size))
        raw += size
    return packed


def _exports(layout: _Layout, spec: ImageSpec, names: list[str], rvas: Mapping[str, int]) -> tuple[int, int]:
    """An export directory whose ordinals are the sorted names'."""
    if not names:
        return 0, 0
    start = layout.place(bytes(40), 4)
    addresses = layout.place(b"".join(struct.pack("<I", rvas[name]) for name in names), 4)
    name_table = layout.place(bytes(4 * len(names)), 4)
    ordinals = layout.place(b"".join(struct.pack("<H", number) for number in range(len(names))), 2)
    module = layout.place(spec.file_name.encode("ascii") + b"\0", 1)
    for number, name in enumerate(names):
        struct.pack_into("<I", layout.data, name_table + 4 * number, layout.place(name.encode("ascii") + b"\0", 1))
    count = len(names)
    directory = struct.pack(
        "<IIHHIIIIIII", 0, spec.time_date_stamp, 0, 0, module, 1, count, count, addresses, name_table, ordinals
    )
    layout.data[start : start + 40] = directory
    return start, len(layout.data) - start


def _headers(plan: ImagePlan, directories: Mapping[int, tuple[int, int]]) -> bytes:
    """DOS and PE headers and the section table."""
    spec = plan.spec
    data = bytearray(PAGE_SIZE)
    data[:2] = b"MZ"
    struct.pack_into("<I", data, 0x3C, _HEADER_AT)
    kind = _DLL if spec.file_name.lower().endswith(".dll") else _EXECUTABLE
    file_header = struct.pack(
        "<4sHHIIIHH", b"PE\0\0", _MACHINE, len(plan.sections), spec.time_date_stamp, 0, 0, 240, kind
    )
    text = plan.sections[0]
    optional = struct.pack("<HBBIIIII", 0x20B, 14, 20, text.size, plan.size, 0, plan.entry_rva, text.rva)
    optional += struct.pack("<QIIHHHHHHIIIIHH", 0, PAGE_SIZE, _FILE_ALIGNMENT, 10, 0, 10, 0, 10, 0, 0, plan.size,
                            _HEADERS_SIZE,
                            spec.check_sum, 1, 0x4160)  # fmt: skip
    optional += struct.pack("<QQQQII", 0x80000, 0x2000, 0x100000, 0x1000, 0, 16)
    for index in range(16):
        optional += struct.pack("<II", *directories.get(index, (0, 0)))
    table = b"".join(
        struct.pack(
            "<8sIIIIIIHHI",
            section.name.encode("ascii"),
            section.size,
            section.rva,
            section.raw_size,
            section.raw,
            0,
            0,
            0,
            0,
            section.characteristics,
        )
        for section in plan.sections
    )
    headers = file_header + optional + table
    if len(optional) != 240:
        raise SimulationError(f"an optional header of {len(optional)} bytes")
    data[_HEADER_AT : _HEADER_AT + len(headers)] = headers
    return bytes(data)
