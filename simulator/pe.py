"""PE-shaped images as the loader leaves them in memory: headers, code, .pdata and .xdata, exports, RSDS, variables."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from protocol.address import PAGE_SIZE

from .code import AssembledFunction, Function, assemble
from .errors import SimulationError

__all__ = ["ImagePlan", "ImageSpec", "Section", "Variable", "plan_image"]

_MACHINE = 0x8664
_HEADER_AT = 0x100
_CODE, _READ, _WRITE = 0x6800_0020, 0x4800_0040, 0xC800_0040
_DISCARDABLE = 0x0200_0000
_EXECUTABLE, _DLL = 0x22, 0x2022
_EXPORT, _EXCEPTION, _DEBUG, _IAT = 0, 3, 6, 12


@dataclass(frozen=True, slots=True)
class Variable:
    """A named piece of an image's data section; `data` is what the image file holds there."""

    name: str
    size: int = 8
    align: int = 8
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What goes into an image. `least_size` rounds a small one up to what such a module takes in memory."""

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


@dataclass(frozen=True, slots=True)
class Section:
    """A section as its header tells it. A discarded one is no longer mapped."""

    name: str
    rva: int
    size: int
    characteristics: int

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
        data = bytearray(self.content)
        optional = _HEADER_AT + 24
        struct.pack_into("<Q", data, optional + 24, base)
        for name, assembled in self.functions.items():
            for fixup in assembled.fixups:
                at = self.rvas[name] + fixup.offset
                target = self.import_slots[fixup.target] if fixup.imported else self.rvas[fixup.target]
                struct.pack_into("<i", data, at, target - (at + 4))
        for name, slot in self.import_slots.items():
            struct.pack_into("<Q", data, slot, addresses[name])
        return bytes(data)


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
    unwinds = {name: layout.place(part.unwind, 4) for name, part in functions.items() if part.unwind}
    pdb = spec.pdb_name.encode("ascii") + b"\0"
    rsds = layout.place(b"RSDS" + rng.randbytes(16) + struct.pack("<I", 1) + pdb, 4)
    rsds_size = 24 + len(pdb)
    debug = layout.place(struct.pack("<IIHHIIII", 0, spec.time_date_stamp, 0, 0, 2, rsds_size, rsds, rsds), 4)
    exported = sorted(function.name for function in spec.functions if function.exported)
    export, export_size = _exports(layout, spec, exported, rvas)
    layout.end(".rdata", _READ)

    layout.begin()
    for name in sorted(unwinds, key=lambda name: rvas[name]):
        end = rvas[name] + len(functions[name].code)
        layout.place(struct.pack("<III", rvas[name], end, unwinds[name]), 4)
    pdata = layout.end(".pdata", _READ)

    layout.begin()
    for variable in spec.variables:
        rvas[variable.name] = layout.place(variable.data.ljust(variable.size, b"\0"), variable.align)
    layout.end(".data", _WRITE)

    layout.begin()
    layout.place(b"\xcc" * 0x600, 16)
    layout.end("PAGE", _CODE)
    layout.begin()
    layout.place(b"\xcc" * 0x400, 16)
    # What is left of the image's size: INIT, as long as it takes.
    layout.end("INIT", _CODE | _DISCARDABLE, spec.least_size - len(layout.data))

    plan = ImagePlan(
        spec,
        len(layout.data),
        functions,
        rvas,
        tuple(layout.sections),
        (pdata.rva, 12 * len(unwinds)),
        slots,
        b"",
    )
    directories = {
        _EXPORT: (export, export_size),
        _EXCEPTION: plan.exception_table,
        _DEBUG: (debug, 28),
        _IAT: (slots[imports[0]], 8 * len(imports)) if imports else (0, 0),
    }
    headers = _headers(plan, directories)
    layout.data[: len(headers)] = headers
    return ImagePlan(spec, plan.size, functions, rvas, plan.sections, plan.exception_table, slots, bytes(layout.data))


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
    optional += struct.pack("<QIIHHHHHHIIIIHH", 0, PAGE_SIZE, 0x200, 10, 0, 10, 0, 10, 0, 0, plan.size, 0x400,
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
            section.size,
            section.rva,
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
