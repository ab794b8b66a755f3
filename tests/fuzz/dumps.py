"""Dump files of every type, small and damaged: headers, bitmaps, ranges, summaries, small dumps, secondary data."""

from __future__ import annotations

import contextlib
import itertools
import random
import struct
from collections.abc import Iterator
from dataclasses import replace

from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.dumpfile import (
    DumpHeader,
    DumpLayout,
    DumpType,
    ExceptionRecord,
    encode_header,
    parse_header,
    parse_layout,
)
from protocol.dumpfile.bitmap import bitmap_chunks, parse_bitmap_header
from protocol.dumpfile.header_layout import HEADER_LAYOUTS, Bits
from protocol.dumpfile.index import BitmapIndex, RunIndex, runs_of_bits
from protocol.dumpfile.plan import plan_bitmap, plan_complete
from protocol.dumpfile.ranges import parse_range_header, ranges_of_table
from protocol.dumpfile.secondary import encode_secondary, parse_secondary
from protocol.dumpfile.summary import parse_summary_header
from protocol.errors import KdError
from simulator.from_file import machine_of_dump, machine_of_raw
from tests.dumps import HEADER, made_up_memory, reader, rendered
from tests.fuzz.driver import Target
from tests.fuzz.mutate import Field, mutated, noise

__all__ = ["DUMPS", "header_fields", "small_dumps"]

_RUNS = PageRuns([PageRun(1, 2), PageRun(0x10, 1), PageRun(0x47, 1)])
_GUID = "54c84888-01d1-4e1e-bed7-28c8cbcbd8a0"
_NAMES = (
    "dump_type", "number_of_runs", "number_of_pages", "machine_image_type", "number_processors",
    "directory_table_base", "kd_debugger_data_block", "required_dump_space", "secondary_data_state", "valid_dump",
)  # fmt: skip


def _header(kind: DumpType, bits: Bits) -> DumpHeader:
    header = replace(HEADER, dump_type=kind, bits=bits, context_record=HEADER.context_record[:1200])
    if bits == 64:
        return header
    narrow = {
        name: getattr(HEADER, name) & 0xFFFF_FFFF
        for name in ("directory_table_base", "pfn_database", "ps_loaded_module_list", "ps_active_process_head",
                     "kd_debugger_data_block")
    }  # fmt: skip
    one, two, three, four = (value & 0xFFFF_FFFF for value in HEADER.bug_check_parameters)
    return replace(
        header, machine_image_type=0x14C, pae_enabled=True, bug_check_parameters=(one, two, three, four), **narrow
    )


def _summary(bits: Bits) -> bytes:
    header = encode_header(_header(DumpType.SUMMARY, bits))
    bitmap = b"".join(bitmap_chunks(_RUNS, 128))
    first = len(header) + PAGE_SIZE
    head = b"SDMPDUMP" + struct.pack("<6I", 1, first, 128, _RUNS.page_count, 128, 0) + bytes(8 if bits == 64 else 0)
    return (header + head + bitmap).ljust(first, b"\0") + bytes(_RUNS.page_count * PAGE_SIZE)


def _ranges(kind: DumpType) -> bytes:
    header = encode_header(_header(kind, 64))
    table = b"".join(struct.pack("<QQ", run.base_page, run.page_count) for run in _RUNS) + bytes(16)
    first = len(header) + 0x30 + len(table)
    head = struct.pack("<I4s4s4xQQI4xQ", 1, b"RDMP", b"DUMP", 0x30, first, len(_RUNS), _RUNS.page_count)
    return header + head + table + bytes(_RUNS.page_count * PAGE_SIZE)


def _triage(bits: Bits) -> bytes:
    header = encode_header(_header(DumpType.TRIAGE, bits))
    end = len(header) + 0x200
    triage = bytearray(0x200)
    triage[4:8] = end.to_bytes(4, "little")
    triage[-4:] = b"TRGD"
    return header + bytes(triage) + encode_secondary([(_GUID, b"left by a driver")], 0xF0004A61)


def small_dumps() -> dict[str, bytes]:
    """A good file of every type and width, four pages each."""
    memory = made_up_memory(_RUNS)
    secondary = encode_secondary([(_GUID, b"left by a driver"), (_GUID, bytes(100))], 0xF0004A61)
    files: dict[str, bytes] = {}
    widths: tuple[Bits, Bits] = (32, 64)
    for bits in widths:
        complete = _header(DumpType.FULL, bits)
        files[f"1, {bits}"] = rendered(plan_complete(complete, _RUNS), memory)
        files[f"2, {bits}"] = _summary(bits)
        files[f"4, {bits}"] = _triage(bits)
        for kind in (DumpType.BITMAP_FULL, DumpType.BITMAP_KERNEL):
            files[f"{kind:X}, {bits}"] = rendered(plan_bitmap(complete, _RUNS, _RUNS, kind, secondary), memory)
    for kind in (DumpType.KERNEL_RANGES, DumpType.KERNEL_AND_USER_RANGES, DumpType.COMPLETE_RANGES):
        files[f"{kind:X}, 64"] = _ranges(kind)
    return files


def header_fields(data: bytes) -> tuple[Field, ...]:
    """Numbers of the header that decide, some of its runs, and every word of the table behind it."""
    layout = HEADER_LAYOUTS[64 if data[4:8] == b"DU64" else 32]
    named = [(layout.offset_of(name), layout.size_of(name)) for name in _NAMES]
    runs = layout.offset_of("runs")
    width = 8 if layout.size == 0x2000 else 4
    found = [*named, *((runs + width * number, width) for number in range(8))]
    found += [(at, step) for step in (4, 8) for at in range(layout.size, layout.size + 0x60, step)]
    # What lies behind the last page, or at the end of a small dump.
    return (*found, *((at, 4) for at in range(max(len(data) & ~0xFFF, layout.size), len(data) - 4, 4)))


class _Files:
    """Damaged files of every type."""

    def __init__(self) -> None:
        self.files = list(small_dumps().values())
        self.fields = [header_fields(data) for data in self.files]

    def make(self, rng: random.Random) -> bytes:
        number = rng.randrange(len(self.files))
        data, fields = self.files[number], self.fields[number]
        if not rng.randrange(20):
            return data[:8] + noise(rng, 0x4000)
        if rng.getrandbits(1):
            return mutated(rng, data, fields, self.files)
        # The numbers alone: all else is as it should be.
        raw = bytearray(data)
        for _ in range(1 + rng.randrange(3)):
            at, width = rng.choice(fields)
            raw[at : at + width] = mutated(rng, bytes(raw[at : at + width]), ((0, width),))[:width].ljust(width, b"\0")
        return bytes(raw)


class _Layouts(_Files):
    """Every page that is found lies in the file, and is found again from its place."""

    def run(self, data: bytes) -> None:
        layout = parse_layout(reader(data), len(data))
        _check_layout(layout, data)


def _check_layout(layout: DumpLayout, data: bytes) -> None:
    pages, size = layout.pages, len(data)
    assert layout.size == size
    assert pages.page_count <= pages.claimed_count
    assert pages.page_count * PAGE_SIZE <= size
    runs = list(pages.runs())
    assert sum(run.page_count for run in runs) == pages.page_count
    places: set[int] = set()
    for page in itertools.islice((page for run in runs for page in range(run.base_page, run.end_page)), 64):
        extent = pages.extent_of(page)
        assert extent is not None and extent.page_count >= 1
        offset = extent.file_offset
        assert layout.first_page_offset <= offset and offset + extent.page_count * PAGE_SIZE <= size
        assert pages.offset_of(page) == offset and offset not in places
        places.add(offset)
    for page in (-1, 0, 1 << 40, 1 << 64):
        assert (pages.offset_of(page) is None) is not any(run.base_page <= page < run.end_page for run in runs)
    for blob in layout.secondary:
        assert blob.file_offset > 0 and blob.file_offset + blob.size <= size
    with contextlib.suppress(KdError):
        ExceptionRecord.decode(layout.header.exception, layout.header.bits)


class _Headers(_Files):
    """A header that is taken can be written again, and says the same."""

    def make(self, rng: random.Random) -> bytes:
        number = rng.randrange(len(self.files))
        data = self.files[number]
        size = 0x2000 if data[4:8] == b"DU64" else 0x1000
        fields = tuple(field for field in self.fields[number] if field[0] < size)
        return mutated(rng, data[:size], fields, [data[:size]])

    def run(self, data: bytes) -> None:
        header = parse_header(data)
        assert parse_header(encode_header(header)) == header


class _Tables(_Files):
    """The tables behind a header, without one before them."""

    def make(self, rng: random.Random) -> bytes:
        data = rng.choice(self.files)
        size = 0x2000 if data[4:8] == b"DU64" else 0x1000
        start = rng.choice((size, max(len(data) & ~0xFFF, size)))
        table = data[start : start + 0x400]
        fields = tuple((at, width) for width in (4, 8) for at in range(0, min(len(table), 0x60), width))
        return mutated(rng, table, fields) if rng.randrange(8) else noise(rng, 0x600)

    def run(self, data: bytes) -> None:
        taken = 0
        refused: KdError | None = None
        for number, read in enumerate((self._bitmap, self._summary, self._ranges, self._secondary, self._bits)):
            try:
                read(data)
                taken += number < 3
            except KdError as error:
                refused = error
        if not taken and refused is not None:
            raise refused

    def _bitmap(self, data: bytes) -> None:
        header, _ = parse_bitmap_header(data, 0x2000).checked()
        assert header.bitmap_size <= header.first_page_offset - header.bits_offset

    def _summary(self, data: bytes) -> None:
        widths: tuple[Bits, Bits] = (32, 64)
        for bits in widths:
            parse_summary_header(data, 0x2000, bits).checked()

    def _ranges(self, data: bytes) -> None:
        for kind in (DumpType.KERNEL_RANGES, DumpType.COMPLETE_RANGES):
            table = parse_range_header(data, 0, kind)
            index = RunIndex(table.first_page_offset, ranges_of_table([data[0x30:]], table), len(data) // PAGE_SIZE)
            assert index.page_count <= len(data) // PAGE_SIZE

    def _secondary(self, data: bytes) -> None:
        for blob in parse_secondary(reader(data), 0, len(data))[0]:
            assert blob.file_offset + blob.size <= len(data)

    def _bits(self, data: bytes) -> None:
        runs = list(runs_of_bits([data]))
        assert sum(run.page_count for run in runs) == int.from_bytes(data, "little").bit_count()
        stored = len(data)
        index = BitmapIndex(0x1000, _in_pieces(data), stored)
        assert index.page_count == min(stored, index.claimed_count) == sum(run.page_count for run in index.runs())


def _in_pieces(data: bytes) -> Iterator[bytes]:
    at, length = 0, 1
    while at < len(data):
        yield data[at : at + length]
        at, length = at + length, length * 3 % 700 + 1


class _Served(_Files):
    """The simulator makes a machine of the file, which then says why it stopped."""

    def run(self, data: bytes) -> None:
        machine_of_raw(reader(data), len(data)) if len(data) >= PAGE_SIZE else None
        target = machine_of_dump(reader(data), len(data)).target
        target.handle_timeout(0.0)
        assert target.data_to_send()


DUMPS = (
    Target("dump-layout", 160, lambda _folder: _Layouts()),
    Target("dump-header", 60, lambda _folder: _Headers()),
    Target("dump-tables", 60, lambda _folder: _Tables()),
    Target("dump-served", 30, lambda _folder: _Served()),
)
