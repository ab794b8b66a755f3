"""The DBI stream: which streams of a PDB hold its public symbols, its modules' symbols and the image's sections."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import construct as cs

from protocol.errors import PdbFormatError
from protocol.structure import StructureLayout

from .msf import Msf

__all__ = ["DBI_HEADER", "MODULE_INFO", "Dbi", "ModuleSymbols", "module_symbols", "read_dbi"]

DBI_HEADER = StructureLayout(
    "DBI header",
    cs.Struct(
        "version_signature" / cs.Int32ul,
        "version_header" / cs.Int32ul,
        "age" / cs.Int32ul,
        "global_stream" / cs.Int16ul,
        "build_number" / cs.Int16ul,
        "public_stream" / cs.Int16ul,
        "pdb_dll_version" / cs.Int16ul,
        "sym_record_stream" / cs.Int16ul,
        "pdb_dll_rbld" / cs.Int16ul,
        "mod_info_size" / cs.Int32ul,
        "section_contribution_size" / cs.Int32ul,
        "section_map_size" / cs.Int32ul,
        "source_info_size" / cs.Int32ul,
        "type_server_map_size" / cs.Int32ul,
        "mfc_type_server_index" / cs.Int32ul,
        "optional_dbg_header_size" / cs.Int32ul,
        "ec_substream_size" / cs.Int32ul,
        "flags" / cs.Int16ul,
        "machine" / cs.Int16ul,
        cs.Padding(4),
    ),
    {"age": 8, "sym_record_stream": 20, "mod_info_size": 24, "optional_dbg_header_size": 48, "machine": 58},
    64,
)

MODULE_INFO = StructureLayout(
    "ModInfo",
    cs.Struct(
        "unused1" / cs.Int32ul,
        cs.Padding(28),  # SectionContribEntry
        "flags" / cs.Int16ul,
        "module_sym_stream" / cs.Int16ul,
        "sym_byte_size" / cs.Int32ul,
        cs.Padding(24),
    ),
    {"module_sym_stream": 34, "sym_byte_size": 36},
    64,
)

_DBI_STREAM = 3
_NO_STREAM = 0xFFFF
_BEFORE_DEBUG_HEADER = (
    "mod_info_size",
    "section_contribution_size",
    "section_map_size",
    "source_info_size",
    "type_server_map_size",
    "ec_substream_size",
)
_OMAP_FROM_SRC, _SECTION_HEADERS, _ORIGINAL_SECTION_HEADERS = 4, 5, 10
"""Places in the optional debug header, 16 bits each."""
_LARGEST_MODULE_LIST = 1 << 24


@dataclass(frozen=True, slots=True)
class ModuleSymbols:
    """Where a module (an object file) has its symbols: `size` bytes of a stream, 4 bytes of signature first."""

    stream: int
    size: int


@dataclass(frozen=True, slots=True)
class Dbi:
    """What the stream says. Numbers of streams are None where the file has none of the kind."""

    age: int
    machine: int
    """IMAGE_FILE_MACHINE_…"""
    symbol_records: int | None
    section_headers: int | None
    """The sections of the image as it is."""
    original_section_headers: int | None
    """The sections before a tool moved code about; symbols then are in terms of these."""
    omap_from_source: int | None
    """Where such a tool moved what."""
    modules_end: int
    """Bytes of the list of modules, behind the header."""


def read_dbi(msf: Msf) -> Dbi:
    """Raises PdbFormatError where there is no such stream, or one of another time."""
    stream = msf.stream(_DBI_STREAM, "DBI stream")
    header = stream.read(0, DBI_HEADER.size)
    if len(header) < DBI_HEADER.size:
        raise PdbFormatError(stream.name, "it ends inside its header")
    fields = DBI_HEADER.decode(header)
    if fields["version_signature"] != 0xFFFF_FFFF:
        raise PdbFormatError(stream.name, "it is of a version before 1999, which is not read")
    debug = DBI_HEADER.size + sum(fields[name] for name in _BEFORE_DEBUG_HEADER)
    size = min(fields["optional_dbg_header_size"], 2 * (_ORIGINAL_SECTION_HEADERS + 1))
    numbers = stream.read(debug, size)

    def other(place: int) -> int | None:
        return _some(int.from_bytes(numbers[2 * place : 2 * place + 2], "little")) if len(numbers) > 2 * place else None

    return Dbi(
        fields["age"],
        fields["machine"],
        _some(fields["sym_record_stream"]),
        other(_SECTION_HEADERS),
        other(_ORIGINAL_SECTION_HEADERS),
        other(_OMAP_FROM_SRC),
        fields["mod_info_size"],
    )


def module_symbols(msf: Msf, dbi: Dbi) -> Iterator[ModuleSymbols]:
    """The modules that have symbols. Raises PdbFormatError where their list cannot be."""
    stream = msf.stream(_DBI_STREAM, "list of modules")
    if dbi.modules_end > min(stream.size, _LARGEST_MODULE_LIST):
        raise PdbFormatError(stream.name, f"{dbi.modules_end:#x} bytes are not believable")
    data = stream.read(DBI_HEADER.size, dbi.modules_end)
    at = 0
    while at + MODULE_INFO.size <= len(data):
        fields = MODULE_INFO.decode(data[at : at + MODULE_INFO.size])
        number = _some(fields["module_sym_stream"])
        if number is not None and fields["sym_byte_size"] > 4:
            yield ModuleSymbols(number, fields["sym_byte_size"])
        # Two names follow: the module's and its library's.
        first = data.find(b"\0", at + MODULE_INFO.size)
        second = data.find(b"\0", first + 1)
        if first < 0 or second < 0:
            raise PdbFormatError(stream.name, "it ends inside a name")
        at = second + 4 & ~3


def _some(number: int) -> int | None:
    return None if number == _NO_STREAM else number
