"""DUMP_HEADER64 and DUMP_HEADER32: the first pages of every dump file (dump-formats 1.1, 1.2, 1.3).

Windows fills the whole header with the letters PAGE and then sets fields, so PAGE in a field means: not set.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import construct as cs

from protocol.address import PageRun
from protocol.errors import DumpFormatError
from protocol.structure import Structure, StructureLayout

__all__ = [
    "COMMENT_SIZE",
    "DUMP_HEADER32",
    "DUMP_HEADER64",
    "MOST_RUNS",
    "Bits",
    "DumpAttributes",
    "DumpHeader",
    "DumpType",
    "encode_header",
    "parse_header",
]

Bits = Literal[32, 64]
"""Which of the two headers: by the width of the machine's addresses."""

COMMENT_SIZE = 128
"""Bytes of the comment, its final NUL included."""

MOST_RUNS: Mapping[Bits, int] = {32: 86, 64: 42}
"""Runs that fit into the 700 bytes of PhysicalMemoryBlock. WinDbg drops the pages of any further ones."""

_SIGNATURE = b"PAGE"
_VALID_DUMP: Mapping[bytes, Bits] = {b"DUMP": 32, b"DU64": 64}


class DumpType(enum.IntEnum):
    """How memory lies in the file (dump-formats 2.1). 0, 3 and 7 are in Microsoft's enumeration, never on disk."""

    FULL = 1
    SUMMARY = 2
    TRIAGE = 4
    BITMAP_FULL = 5
    BITMAP_KERNEL = 6
    KERNEL_RANGES = 8
    KERNEL_AND_USER_RANGES = 9
    COMPLETE_RANGES = 0xA


class DumpAttributes(enum.IntFlag):
    """Bits of Attributes. Higher bits occur, and nobody documented them."""

    HIBER_CRASH = 1 << 0
    DUMP_DEVICE_POWER_OFF = 1 << 1
    INSUFFICIENT_DUMPFILE_SIZE = 1 << 2
    KERNEL_GENERATED_TRIAGE_DUMP = 1 << 3
    LIVE_DUMP_GENERATED_DUMP = 1 << 4
    DUMP_IS_GENERATED_OFFLINE = 1 << 5
    FILTER_DUMP_FILE = 1 << 6
    EARLY_BOOT_CRASH = 1 << 7
    ENCRYPTED_DUMP_DATA = 1 << 8
    DECRYPTED_DUMP = 1 << 9


_HEADER64 = cs.Struct(
    "signature" / cs.Int32ul,
    "valid_dump" / cs.Int32ul,
    "major_version" / cs.Int32ul,
    "minor_version" / cs.Int32ul,
    "directory_table_base" / cs.Int64ul,
    "pfn_database" / cs.Int64ul,
    "ps_loaded_module_list" / cs.Int64ul,
    "ps_active_process_head" / cs.Int64ul,
    "machine_image_type" / cs.Int32ul,
    "number_processors" / cs.Int32ul,
    "bug_check_code" / cs.Int32ul,
    cs.Padding(4),
    *[f"bug_check_parameter{n}" / cs.Int64ul for n in range(1, 5)],
    "version_user" / cs.Bytes(32),
    "kd_debugger_data_block" / cs.Int64ul,
    "number_of_runs" / cs.Int32ul,
    "run_padding" / cs.Int32ul,
    "number_of_pages" / cs.Int64ul,
    "runs" / cs.Bytes(42 * 16),
    cs.Padding(12 + 4),
    "context_record" / cs.Bytes(3000),
    "exception" / cs.Bytes(0x98),
    "dump_type" / cs.Int32ul,
    cs.Padding(4),
    "required_dump_space" / cs.Int64ul,
    "system_time" / cs.Int64ul,
    "comment" / cs.Bytes(COMMENT_SIZE),
    "system_up_time" / cs.Int64ul,
    "mini_dump_fields" / cs.Int32ul,
    "secondary_data_state" / cs.Int32ul,
    "product_type" / cs.Int32ul,
    "suite_mask" / cs.Int32ul,
    "writer_status" / cs.Int32ul,
    cs.Padding(1),
    "kd_secondary_version" / cs.Int8ul,
    cs.Padding(2),
    "attributes" / cs.Int32ul,
    "boot_id" / cs.Int32ul,
    cs.Padding(4008),
)

DUMP_HEADER64 = StructureLayout(
    "DUMP_HEADER64",
    _HEADER64,
    {
        "valid_dump": 4, "major_version": 8, "directory_table_base": 0x10, "pfn_database": 0x18,
        "ps_loaded_module_list": 0x20, "ps_active_process_head": 0x28, "machine_image_type": 0x30,
        "number_processors": 0x34, "bug_check_code": 0x38, "bug_check_parameter1": 0x40, "version_user": 0x60,
        "kd_debugger_data_block": 0x80, "number_of_runs": 0x88, "number_of_pages": 0x90, "runs": 0x98,
        "context_record": 0x348, "exception": 0xF00, "dump_type": 0xF98, "required_dump_space": 0xFA0,
        "system_time": 0xFA8, "comment": 0xFB0, "system_up_time": 0x1030, "mini_dump_fields": 0x1038,
        "secondary_data_state": 0x103C, "product_type": 0x1040, "suite_mask": 0x1044, "writer_status": 0x1048,
        "kd_secondary_version": 0x104D, "attributes": 0x1050, "boot_id": 0x1054,
    },
    0x2000,
)  # fmt: skip

_HEADER32 = cs.Struct(
    "signature" / cs.Int32ul,
    "valid_dump" / cs.Int32ul,
    "major_version" / cs.Int32ul,
    "minor_version" / cs.Int32ul,
    "directory_table_base" / cs.Int32ul,
    "pfn_database" / cs.Int32ul,
    "ps_loaded_module_list" / cs.Int32ul,
    "ps_active_process_head" / cs.Int32ul,
    "machine_image_type" / cs.Int32ul,
    "number_processors" / cs.Int32ul,
    "bug_check_code" / cs.Int32ul,
    *[f"bug_check_parameter{n}" / cs.Int32ul for n in range(1, 5)],
    "version_user" / cs.Bytes(32),
    "pae_enabled" / cs.Int8ul,
    "kd_secondary_version" / cs.Int8ul,
    cs.Padding(2),
    "kd_debugger_data_block" / cs.Int32ul,
    "number_of_runs" / cs.Int32ul,
    "number_of_pages" / cs.Int32ul,
    "runs" / cs.Bytes(86 * 8),
    cs.Padding(4),
    "context_record" / cs.Bytes(1200),
    "exception" / cs.Bytes(0x50),
    "comment" / cs.Bytes(COMMENT_SIZE),
    "attributes" / cs.Int32ul,
    "boot_id" / cs.Int32ul,
    cs.Padding(1760),
    "dump_type" / cs.Int32ul,
    "mini_dump_fields" / cs.Int32ul,
    "secondary_data_state" / cs.Int32ul,
    "product_type" / cs.Int32ul,
    "suite_mask" / cs.Int32ul,
    "writer_status" / cs.Int32ul,
    "required_dump_space" / cs.Int64ul,
    cs.Padding(16),
    "system_up_time" / cs.Int64ul,
    "system_time" / cs.Int64ul,
    cs.Padding(56),
)

DUMP_HEADER32 = StructureLayout(
    "DUMP_HEADER32",
    _HEADER32,
    {
        "valid_dump": 4, "major_version": 8, "directory_table_base": 0x10, "pfn_database": 0x14,
        "ps_loaded_module_list": 0x18, "ps_active_process_head": 0x1C, "machine_image_type": 0x20,
        "number_processors": 0x24, "bug_check_code": 0x28, "bug_check_parameter1": 0x2C, "version_user": 0x3C,
        "pae_enabled": 0x5C, "kd_secondary_version": 0x5D, "kd_debugger_data_block": 0x60, "number_of_runs": 0x64,
        "number_of_pages": 0x68, "runs": 0x6C, "context_record": 0x320, "exception": 0x7D0, "comment": 0x820,
        "attributes": 0x8A0, "boot_id": 0x8A4, "dump_type": 0xF88, "mini_dump_fields": 0xF8C,
        "secondary_data_state": 0xF90, "product_type": 0xF94, "suite_mask": 0xF98, "writer_status": 0xF9C,
        "required_dump_space": 0xFA0, "system_up_time": 0xFB8, "system_time": 0xFC0,
    },
    0x1000,
)  # fmt: skip

_LAYOUTS: Mapping[Bits, StructureLayout] = {32: DUMP_HEADER32, 64: DUMP_HEADER64}

# A machine cannot be read without these: where one is not set, 0 stands for it.
_IDENTITY = (
    "major_version",
    "minor_version",
    "directory_table_base",
    "pfn_database",
    "ps_loaded_module_list",
    "ps_active_process_head",
    "machine_image_type",
    "number_processors",
    "bug_check_code",
    "kd_debugger_data_block",
)
_OPTIONAL = (
    "required_dump_space",
    "system_time",
    "system_up_time",
    "mini_dump_fields",
    "secondary_data_state",
    "product_type",
    "suite_mask",
    "writer_status",
    "kd_secondary_version",
    "attributes",
    "boot_id",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpHeader:
    """Everything a dump's header says. None: not set. Addresses of a 32-bit machine are not sign-extended.

    `directory_table_base` is as stored: its low 12 bits may hold a PCID. `system_time` is a FILETIME in UTC,
    `system_up_time` counts 100 ns. `context_record` and `exception` are the raw structures; WinDbg takes registers
    from memory and never from `context_record`, kdmp-parser wants its MxCsr and MxCsr2 equal.
    """

    bits: Bits = 64
    dump_type: DumpType = DumpType.FULL
    major_version: int = 0xF
    minor_version: int = 0
    directory_table_base: int = 0
    pfn_database: int = 0
    ps_loaded_module_list: int = 0
    ps_active_process_head: int = 0
    machine_image_type: int = 0
    number_processors: int = 0
    bug_check_code: int = 0
    bug_check_parameters: tuple[int, int, int, int] = (0, 0, 0, 0)
    kd_debugger_data_block: int = 0
    pae_enabled: bool | None = None
    """32-bit only: whether page table entries have 8 bytes."""
    physical_memory: tuple[PageRun, ...] = ()
    """The runs in the file's order, as claimed: nothing is checked here. Empty: not set."""
    surplus_runs: int = 0
    """Runs that NumberOfRuns counts beyond those that fit into the header."""
    claimed_pages: int | None = None
    """NumberOfPages, where it is not the sum of the runs."""
    context_record: bytes = b""
    exception: bytes = b""
    required_dump_space: int | None = None
    system_time: int | None = None
    system_up_time: int | None = None
    comment: str | None = None
    mini_dump_fields: int | None = None
    secondary_data_state: int | None = None
    product_type: int | None = None
    suite_mask: int | None = None
    writer_status: int | None = None
    kd_secondary_version: int | None = None
    attributes: int | None = None
    boot_id: int | None = None

    @property
    def size(self) -> int:
        """Bytes that the header takes: what follows lies behind it."""
        return _LAYOUTS[self.bits].size


def parse_header(data: bytes) -> DumpHeader:
    """Read the header from the first 0x2000 bytes of a file (0x1000 suffice for a 32-bit machine's).

    Raises DumpFormatError when it is not the header of a finished kernel dump of a known type.
    """
    bits = _width(data)
    layout = _LAYOUTS[bits]
    if len(data) < layout.size:
        raise DumpFormatError(f"the file ends inside its header, which takes {layout.size:#x} bytes", len(data))
    fields = layout.decode(data)

    def number(name: str) -> int | None:
        return None if _bytes(layout, fields, name) == _fill(layout, name) else fields[name]

    identity = {name: number(name) or 0 for name in _IDENTITY}
    optional = {name: number(name) for name in _OPTIONAL}
    one, two, three, four = (fields[f"bug_check_parameter{n}"] for n in range(1, 5))
    claimed = number("number_of_runs") or 0
    runs = _runs(bits, _bytes(layout, fields, "runs"), min(claimed, MOST_RUNS[bits]))
    pages = fields["number_of_pages"]
    return DumpHeader(
        bits=bits,
        dump_type=_dump_type(number("dump_type"), layout.offset_of("dump_type")),
        bug_check_parameters=(one, two, three, four),
        pae_enabled={0: False, 1: True}.get(fields["pae_enabled"]) if bits == 32 else None,
        physical_memory=runs,
        surplus_runs=claimed - len(runs),
        claimed_pages=None if not runs or pages == sum(run.page_count for run in runs) else pages,
        context_record=_bytes(layout, fields, "context_record"),
        exception=_bytes(layout, fields, "exception"),
        comment=_comment(_bytes(layout, fields, "comment"), _fill(layout, "comment")),
        **identity,
        **optional,  # type: ignore[arg-type]  # mypy holds these against every field, not against their own
    )


def encode_header(header: DumpHeader) -> bytes:
    """The bytes of the header: PAGE wherever nothing is set.

    Raises DumpFormatError when a value does not fit where it belongs.
    """
    layout = _LAYOUTS[header.bits]
    values: dict[str, int] = {
        "signature": int.from_bytes(_SIGNATURE, "little"),
        "valid_dump": int.from_bytes(b"DU64" if header.bits == 64 else b"DUMP", "little"),
        "dump_type": header.dump_type,
        **{f"bug_check_parameter{n}": value for n, value in enumerate(header.bug_check_parameters, start=1)},
        **{name: getattr(header, name) for name in _IDENTITY},
        **{name: value for name in _OPTIONAL if (value := getattr(header, name)) is not None},
    }
    if header.bits == 32 and header.pae_enabled is not None:
        values["pae_enabled"] = int(header.pae_enabled)
    if header.physical_memory:
        pages = sum(run.page_count for run in header.physical_memory)
        values["number_of_runs"] = len(header.physical_memory) + header.surplus_runs
        values["number_of_pages"] = pages if header.claimed_pages is None else header.claimed_pages
        if header.bits == 64:
            values["run_padding"] = 0
    for name, value in values.items():
        if value < 0 or value >> 8 * layout.size_of(name):
            raise DumpFormatError(f"{name} {value:#x} does not fit into {layout.name}", layout.offset_of(name))
    raw = bytearray(layout.encode(values, _SIGNATURE * (layout.size // 4)))
    for name, data in (
        ("runs", _encode_runs(header)),
        ("context_record", header.context_record.ljust(layout.size_of("context_record"), b"\0")),
        ("exception", header.exception.ljust(layout.size_of("exception"), b"\0")),
        ("comment", _encode_comment(header.comment)),
    ):
        at = layout.offset_of(name)
        if len(data) > layout.size_of(name):
            raise DumpFormatError(f"{len(data)} bytes of {name} do not fit into {layout.name}", at)
        raw[at : at + len(data)] = data
    return bytes(raw)


def _width(data: bytes) -> Bits:
    signature, valid = data[:4], data[4:8]
    if signature != _SIGNATURE:
        what = "a user-mode minidump" if signature == b"MDMP" else "not a Windows kernel dump"
        raise DumpFormatError(f"this is {what}: it begins with {signature!r}, a kernel dump with {_SIGNATURE!r}", 0)
    if valid == _SIGNATURE:
        raise DumpFormatError("the dump was never finished: its writer marks it valid last, and did not", 4)
    if valid not in _VALID_DUMP:
        raise DumpFormatError(f"{valid!r} is neither DUMP (32 bit) nor DU64 (64 bit)", 4)
    return _VALID_DUMP[valid]


def _dump_type(number: int | None, offset: int) -> DumpType:
    if number is None:  # the oldest dumps, which knew complete ones only
        return DumpType.FULL
    try:
        return DumpType(number)
    except ValueError:
        known = ", ".join(f"{known.value:X}" for known in DumpType)
        raise DumpFormatError(f"dump type {number:#x} is not known; known are {known}", offset) from None


def _bytes(layout: StructureLayout, fields: Structure, name: str) -> bytes:
    at = layout.offset_of(name)
    return fields.raw[at : at + layout.size_of(name)]


def _fill(layout: StructureLayout, name: str) -> bytes:
    """What lies in a field that was not set."""
    phase, size = layout.offset_of(name) % 4, layout.size_of(name)
    return (_SIGNATURE * (size // 4 + 2))[phase : phase + size]


def _runs(bits: Bits, table: bytes, count: int) -> tuple[PageRun, ...]:
    width = bits // 8
    words = [int.from_bytes(table[at : at + width], "little") for at in range(0, 2 * width * count, width)]
    return tuple(PageRun(base, pages) for base, pages in zip(words[::2], words[1::2], strict=True))


def _encode_runs(header: DumpHeader) -> bytes:
    width = header.bits // 8
    most = MOST_RUNS[header.bits]
    if len(header.physical_memory) > most:
        raise DumpFormatError(f"{len(header.physical_memory)} runs of memory do not fit into a header: {most} do")
    words = [word for run in header.physical_memory for word in (run.base_page, run.page_count)]
    if any(word < 0 or word >> header.bits for word in words):
        raise DumpFormatError(f"a run of memory is beyond what {header.bits} bits can say")
    return b"".join(word.to_bytes(width, "little") for word in words)


def _comment(raw: bytes, unset: bytes) -> str | None:
    if raw == unset:
        return None
    return raw[: COMMENT_SIZE - 1].partition(b"\0")[0].decode("latin-1")


def _encode_comment(comment: str | None) -> bytes:
    if comment is None:
        return b""
    try:
        text = comment.encode("latin-1")
    except UnicodeEncodeError:
        raise DumpFormatError(f"the comment {comment!r} has letters that a dump cannot hold; use ASCII") from None
    if b"\0" in text or len(text) >= COMMENT_SIZE:
        raise DumpFormatError(f"the comment must have fewer than {COMMENT_SIZE} letters, none of them NUL")
    return text + b"\0"
