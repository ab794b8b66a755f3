"""Small dumps, held against Windows' own files: what they hold, and that ours are laid out like them to the byte."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.dumpfile import DumpHeader, DumpType, encode_header, parse_header, parse_layout
from protocol.dumpfile.secondary import encode_secondary
from protocol.dumpfile.triage import (
    TriageBlock,
    TriageContents,
    TriageDriver,
    TriageLayout,
    TriageUnloaded,
    encode_triage,
    parse_triage,
)
from protocol.errors import DumpFormatError
from tests.dumps import HEADER, reader
from tests.simulator.small_dumped import contents_of

_REAL = ("triage_x64", "triage_arm64", "dbgeng-written/triage_type4")
_GUID = "54c84888-01d1-4e1e-bed7-28c8cbcbd8a0"
_CONTENTS = TriageContents(
    prcb=b"P" * 0x300,
    process=b"E" * 0x80,
    thread=b"T" * 0x90,
    call_stack=b"S" * 0x208,
    top_of_stack=0xFFFF8504_29890EE8,
    debugger_data=b"K" * 0x380,
    drivers=(
        TriageDriver("\\SystemRoot\\system32\\ntoskrnl.exe", 0xFFFFF804_12000000, 0, 0x1046000, 1, 0xA59384, 0xD8333E6),
        TriageDriver("\\SystemRoot\\System32\\drivers\\käse.sys", 0xFFFFF804_13000000, 0x10, 0x1000, 0, 7, 8),
    ),
    unloaded=(TriageUnloaded("dam.sys", 0xFFFFF804_14000000, 0xFFFFF804_1401C000),),
    blocks=((0xFFFFF804_12001000, b"abc"), (0xFFFF8504_29890000, b"d" * 0x1000), (0x7FF0, b"user")),
)


def _file(shared: Path, name: str) -> bytes:
    return (shared / f"data/dumps/{name}.dmp").read_bytes()


def _parse(data: bytes) -> TriageLayout:
    return parse_triage(reader(data), parse_header(data[:0x2000]), len(data))


def _encoded(contents: TriageContents, header: DumpHeader = HEADER, secondary: bytes = b"") -> bytes:
    return b"".join(encode_triage(header, contents, secondary))


def _contents(data: bytes) -> TriageContents:
    return contents_of(_parse(data), data)


def test_windows_file_holds_what_the_reference_says(shared: Path) -> None:
    layout = _parse(_file(shared, "triage_x64"))
    assert layout.shortcomings == ()
    assert (len(layout.drivers), len(layout.unloaded), len(layout.blocks)) == (0x97, 4, 0x727)
    # dump-formats 4.1 and 5: SizePrcb, SizeEProcess, SizeEThread, the stack and the KDBG of build 19041.
    sections = (layout.prcb, layout.process, layout.thread, layout.call_stack, layout.debugger_data)
    assert [section.size for section in sections] == [0xAF00, 0xA40, 0x898, 0x2118, 0x380]
    assert [section.file_offset for section in sections] == [0x21B8, 0xD0B8, 0xDAF8, 0xE390, 0x104A8]
    assert layout.call_stack.address == 0xFFFF8504_29890EE8
    assert layout.drivers[0].path == "\\SystemRoot\\system32\\ntoskrnl.exe"
    assert all(driver.path.startswith("\\") and driver.base >> 47 == 0x1FFFF for driver in layout.drivers)
    assert layout.unloaded[0].name == "dam.sys"
    assert all(image.name and image.start < image.end for image in layout.unloaded)


def test_the_smaller_sections_of_another_windows(shared: Path) -> None:
    layout = _parse(_file(shared, "triage_arm64"))
    assert [one.size for one in (layout.prcb, layout.process, layout.thread)] == [0x9680, 0xC80, 0x910]
    assert layout.shortcomings == ()


@pytest.mark.parametrize("name", _REAL)
def test_what_others_wrote_is_written_again_to_the_byte(shared: Path, name: str) -> None:
    data = _file(shared, name)
    fields = _parse(data).fields
    again = _encoded(_contents(data), parse_header(data[:0x2000]), data[fields["size_of_dump"] :])
    # Windows leaves some zeros before the last word, so SizeOfDump, ValidOffset and RequiredDumpSpace may differ.
    end = fields["valid_offset"]
    own = int.from_bytes(again[0x2008:0x200C], "little")
    assert own <= end and data[own:end] == bytes(end - own)
    assert again[0x200C:own] == data[0x200C:own]
    assert again[own:] == data[end:]
    assert again[:0xFA0] == data[:0xFA0] and again[0xFA8:0x2004] == data[0xFA8:0x2004]
    assert int.from_bytes(again[0xFA0:0xFA8], "little") == len(again)


def test_what_is_written_is_what_a_debugger_asks_for() -> None:
    secondary = encode_secondary([(_GUID, b"left by a driver")], 0xF0004A61)
    data = _encoded(_CONTENTS, secondary=secondary)
    header = parse_header(data[:0x2000])
    assert (header.dump_type, header.mini_dump_fields, header.required_dump_space) == (
        DumpType.TRIAGE,
        0xCFF,
        len(data),
    )
    size, valid, context, exception = struct.unpack_from("<4I", data, 0x2004)
    assert data[valid : valid + 4] == data[size - 4 : size] == b"TRGD"
    assert (context, exception) == (0x348, 0xF00)
    assert data[size:] == secondary
    assert data[0x2044:0x2048] == b"\xff" * 4
    layout = parse_layout(reader(data), len(data))
    assert layout.shortcomings == () and [blob.guid for blob in layout.secondary] == [_GUID]
    assert _contents(data) == _CONTENTS


_NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
_U64 = st.integers(0, (1 << 64) - 1)
_U32 = st.integers(0, (1 << 32) - 1)


@settings(max_examples=60)
@given(
    st.lists(st.builds(TriageDriver, _NAMES, _U64, _U64, _U32, _U32, _U32, _U32), max_size=6),
    st.lists(st.builds(TriageUnloaded, st.text("abc.sy", max_size=12), _U64, _U64), max_size=5),
    st.lists(st.tuples(_U64, st.binary(min_size=1, max_size=70)), max_size=8),
    st.binary(min_size=8, max_size=64).map(lambda data: data[: len(data) & ~7]),
)
def test_any_contents_come_back(
    drivers: list[TriageDriver], unloaded: list[TriageUnloaded], blocks: list[tuple[int, bytes]], section: bytes
) -> None:
    contents = replace(
        _CONTENTS, drivers=tuple(drivers), unloaded=tuple(unloaded), blocks=tuple(blocks), prcb=section, thread=section
    )
    data = _encoded(contents)
    assert _contents(data) == contents
    assert _parse(data).shortcomings == ()


def test_what_is_not_there_is_left_out() -> None:
    contents = replace(_CONTENTS, process=b"", thread=b"", drivers=(), unloaded=(), blocks=())
    layout = _parse(_encoded(contents))
    assert layout.shortcomings == ()
    assert (layout.fields["process_offset"], layout.process.size, layout.thread.size) == (0, 0, 0)
    assert (layout.drivers, layout.unloaded, layout.blocks) == ((), (), ())


@pytest.mark.parametrize("name", ["prcb", "call_stack", "debugger_data"])
def test_what_no_debugger_opens_is_not_written(name: str) -> None:
    with pytest.raises(DumpFormatError, match=f"needs {name}"):
        _encoded(replace(_CONTENTS, **{name: b""}))  # type: ignore[arg-type]


def test_what_nobody_would_read_is_not_written() -> None:
    with pytest.raises(DumpFormatError, match="at most 32768 pieces, and these are 32769"):
        _encoded(replace(_CONTENTS, blocks=((0x1000, b"x"),) * 32769))
    with pytest.raises(DumpFormatError, match="32-bit"):
        _encoded(_CONTENTS, replace(HEADER, bits=32))


def _patched(offset: int, value: int, data: bytes | None = None) -> bytes:
    raw = bytearray(data or _encoded(_CONTENTS))
    raw[0x2000 + offset : 0x2004 + offset] = value.to_bytes(4, "little")
    return bytes(raw)


@pytest.mark.parametrize(
    ("offset", "value", "said"),
    [
        (0x34, 0xFFFFFFFF, "4294967295 drivers are claimed"),
        (0x7C, 0x10000000, "268435456 data blocks are claimed"),
        (0x2C, 0x80000000, "call_stack at .* reaches beyond the file's end"),
        (0x70, 0x7FFFFFF0, "debugger_data at 0x7ffffff0 reaches beyond"),
        (0x78, 0x2040, "data blocks reach beyond the file's end"),
    ],
)
def test_numbers_that_lie_are_named(offset: int, value: int, said: str) -> None:
    data = _patched(offset, value)
    layout = _parse(data)
    assert [text for text in layout.shortcomings if re.search(said, text)], layout.shortcomings
    assert all(block.file_offset + block.size <= len(data) for block in layout.blocks)
    assert sum(block.size for block in layout.blocks) <= len(data)
    assert set(layout.shortcomings) <= set(parse_layout(reader(data), len(data)).shortcomings)


def test_more_unloaded_drivers_than_there_ever_are_are_not_believed() -> None:
    data = bytearray(_encoded(_CONTENTS))
    start = int.from_bytes(data[0x2018:0x201C], "little")
    data[start : start + 8] = b"\xff" * 8
    layout = _parse(bytes(data))
    assert "18446744073709551615 unloaded drivers are claimed, and 64 looked at" in layout.shortcomings
    assert layout.unloaded[0] == _CONTENTS.unloaded[0]


def test_blocks_that_are_one_and_the_same_bytes_are_no_flood() -> None:
    # 4,000 blocks, each of them the whole file.
    data = bytearray(_encoded(replace(_CONTENTS, blocks=((0x1000, b"x"),) * 4000)))
    table = int.from_bytes(data[0x2078:0x207C], "little")
    for number in range(4000):
        struct.pack_into("<QII", data, table + 16 * number, 0x10000 * number, 0, len(data))
    layout = _parse(bytes(data))
    assert layout.blocks == (TriageBlock(0, 0, len(data)),)
    assert "3999 data blocks are left out: together they are larger than the file" in layout.shortcomings


def test_a_section_that_fills_a_huge_file_is_cut() -> None:
    data = _patched(0x2C, 0x7000000)
    header = parse_header(data[:0x2000])
    layout = parse_triage(reader(data), header, 1 << 30)
    assert layout.call_stack.size == 1 << 20
    assert any("has 0x7000000 bytes: too much" in text for text in layout.shortcomings)


def test_names_lead_nowhere() -> None:
    data = bytearray(_encoded(_CONTENTS))
    entries = int.from_bytes(data[0x2030:0x2034], "little")
    for number, offset in enumerate((0, 0xFFFFFFFF)):
        struct.pack_into("<I", data, entries + 0x90 * number, offset)
    assert [driver.path for driver in _parse(bytes(data)).drivers] == ["", ""]


def test_a_file_that_ends_in_the_table_is_refused() -> None:
    data = _encoded(_CONTENTS)[:0x207F]
    with pytest.raises(DumpFormatError, match="0x207f: the file ends inside TRIAGE_DUMP64"):
        _parse(data)


def test_a_32_bit_small_dump_gives_all_that_a_wide_one_does() -> None:
    # The table by hand, as dump-formats 4.1 describes it; its lists as WinDbg's engine wrote them of a machine of
    # ours (`.dump /m`): what the reference calls unconfirmed, and addresses of blocks that are sign-extended.
    header = replace(
        HEADER, bits=32, dump_type=DumpType.TRIAGE, machine_image_type=0x14C, bug_check_parameters=(1, 2, 3, 4),
        context_record=bytes(1200), pfn_database=0x80001000, ps_loaded_module_list=0x80001000,
        ps_active_process_head=0x80001000, kd_debugger_data_block=0x80001000,
    )  # fmt: skip
    words = dict.fromkeys(range(0, 0x68, 4), 0) | {
        0x18: 0x1600, 0x1C: 0x1100, 0x28: 0x1200, 0x2C: 0x40, 0x30: 0x1700, 0x34: 1, 0x48: 0xF7A10000,
        0x4C: 0x80530000, 0x50: 0x1500, 0x54: 0x100, 0x58: 0x1300, 0x5C: 0x80, 0x60: 0x1380, 0x64: 1,
    }  # fmt: skip
    driver = bytes.fromhex(
        "00180000 00000000 00000000 00000000 00000000 00000000 00000000 00005080 00000000 00000100 00000000 00000000"
        "00000000 00000000 00000000 00000000 00000000 34123d00 098ae74c"
    )
    unloaded = bytes.fromhex(
        "01000000 10001000 00000000 67006f00 6e006500 2e007300 79007300 00000000 00000000 00006080 00806080"
    )
    name = "\\SystemRoot\\system32\\ntkrnlpa.exe"
    raw = bytearray(encode_header(header) + b"".join(word.to_bytes(4, "little") for word in words.values()))
    for at, data in {
        0x1380: bytes.fromhex("00004080 ffffffff 90130000 04000000"),
        0x1390: b"code",
        0x1600: unloaded,
        0x1700: driver,
        0x1800: len(name).to_bytes(4, "little") + name.encode("utf-16-le") + b"\0\0",
    }.items():
        raw = raw.ljust(at, b"\0") + data
    layout = parse_triage(reader(bytes(raw)), parse_header(bytes(raw)), len(raw))
    assert layout.blocks == (TriageBlock(0x80400000, 0x1390, 4),)
    assert layout.call_stack == TriageBlock(0xF7A10000, 0x1200, 0x40)
    assert layout.debugger_data == TriageBlock(0x80001000, 0x1300, 0x80)
    assert layout.data_page == TriageBlock(0x80530000, 0x1500, 0x100)
    assert (layout.prcb.file_offset, layout.prcb.size) == (0x1100, 0x100)
    assert layout.drivers == (TriageDriver(name, 0x80500000, 0, 0x10000, 0, 0x3D1234, 0x4CE78A09),)
    assert layout.unloaded == (TriageUnloaded("gone.sys", 0x80600000, 0x80608000),)
    assert layout.shortcomings == ()
