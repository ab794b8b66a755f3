"""What the header of a dump says, read from its bytes and written into them (dump-formats 1).

Windows fills the whole header with the letters PAGE and then sets fields, so PAGE in a field means: not set.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from protocol.address import PageRun
from protocol.errors import DumpFormatError
from protocol.structure import Structure, StructureLayout

from .header_layout import COMMENT_SIZE, HEADER_LAYOUTS, MOST_RUNS, Bits

__all__ = ["DumpAttributes", "DumpHeader", "DumpType", "encode_header", "parse_header"]

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
        return HEADER_LAYOUTS[self.bits].size


def parse_header(data: bytes) -> DumpHeader:
    """Read the header from the first 0x2000 bytes of a file (0x1000 suffice for a 32-bit machine's).

    Raises DumpFormatError when it is not the header of a finished kernel dump of a known type.
    """
    bits = _width(data)
    layout = HEADER_LAYOUTS[bits]
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
    layout = HEADER_LAYOUTS[header.bits]
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
