"""The header, held against dumps that Windows and Microsoft's engine wrote, and against kdmp-parser's own offsets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.address import PageRun
from protocol.dumpfile.exception import ExceptionRecord
from protocol.dumpfile.header import DumpAttributes, DumpHeader, DumpType, encode_header, parse_header
from protocol.dumpfile.header_layout import COMMENT_SIZE, MOST_RUNS, Bits
from protocol.errors import DumpFormatError

_WRITTEN = ["full_type1_3runs", "full_type1_42runs_comment", "full_type1_deadfeed", "triage_type4"]


def _written(shared: Path, name: str) -> bytes:
    return (shared / f"data/dumps/dbgeng-written/{name}.dmp").read_bytes()[:0x2000]


def test_a_small_dump_that_windows_wrote(shared: Path) -> None:
    # The numbers are the reference's (dump-formats 1.1, 4.1) and the data's own description.
    header = parse_header((shared / "data/dumps/triage_x64.dmp").read_bytes()[:0x2000])
    assert (header.bits, header.dump_type, header.size) == (64, DumpType.TRIAGE, 0x2000)
    assert (header.major_version, header.minor_version) == (0xF, 19041)
    assert header.directory_table_base == 0x1AD000
    assert header.kd_debugger_data_block == 0xFFFFF804_7C600B20
    assert header.pfn_database == 0xFFFFF804_7C6FC500
    assert (header.machine_image_type, header.number_processors) == (0x8664, 16)
    assert header.bug_check_code == 0x1000007E
    assert header.bug_check_parameters[0] == 0xFFFFFFFF_C0000005
    assert header.physical_memory == ()
    assert header.required_dump_space is not None and header.required_dump_space > 1_444_532
    assert (header.mini_dump_fields, header.product_type, header.suite_mask) == (0xCFF, 1, 0x110)
    assert (header.writer_status, header.kd_secondary_version) == (0, 0)
    assert header.comment is header.attributes is header.boot_id is header.secondary_data_state is None
    assert ExceptionRecord.decode(header.exception, 64).code == 0x80000003


def test_a_small_dump_of_an_arm64_machine(shared: Path) -> None:
    header = parse_header((shared / "data/dumps/triage_arm64.dmp").read_bytes()[:0x2000])
    assert (header.bits, header.machine_image_type, header.minor_version) == (64, 0xAA64, 22000)
    assert (header.bug_check_code, header.boot_id) == (0x1C8, 0xD)


def test_complete_dumps_that_microsofts_engine_wrote(shared: Path) -> None:
    header = parse_header(_written(shared, "full_type1_3runs"))
    assert header.dump_type is DumpType.FULL
    assert header.physical_memory == (PageRun(1, 2), PageRun(0x1AD, 0x3D), PageRun(0x300, 1))
    assert header.required_dump_space == 0x42000 == 0x2000 + 0x40 * 0x1000
    many = parse_header(_written(shared, "full_type1_42runs_comment"))
    assert (len(many.physical_memory), many.comment) == (42, "my_comment")
    assert (many.surplus_runs, many.claimed_pages) == (0, None)


@pytest.mark.parametrize("name", _WRITTEN)
def test_what_the_engine_wrote_is_written_again_byte_by_byte(shared: Path, name: str) -> None:
    original = bytearray(_written(shared, name))
    again = bytearray(encode_header(parse_header(bytes(original))))
    # It copies 700 bytes of kernel memory for the runs, whatever lies behind the last of them.
    end = 0x98 + 16 * len(parse_header(bytes(original)).physical_memory)
    if end > 0x98:
        original[end:0x344] = again[end:0x344]
    assert again == original


_numbers32 = st.integers(0, 0xFFFF_FFFF).filter(lambda n: n != 0x45474150)


@st.composite
def _headers(draw: st.DrawFn) -> DumpHeader:
    bits: Bits = draw(st.sampled_from((32, 64)))
    words = st.integers(0, (1 << bits) - 1).filter(lambda n: n not in (0x45474150, 0x4547415045474150))
    optional = st.none() | _numbers32
    return DumpHeader(
        bits=bits,
        dump_type=draw(st.sampled_from(DumpType)),
        major_version=draw(_numbers32),
        minor_version=draw(_numbers32),
        directory_table_base=draw(words),
        pfn_database=draw(words),
        ps_loaded_module_list=draw(words),
        ps_active_process_head=draw(words),
        machine_image_type=draw(_numbers32),
        number_processors=draw(_numbers32),
        bug_check_code=draw(_numbers32),
        bug_check_parameters=draw(st.tuples(words, words, words, words)),
        kd_debugger_data_block=draw(words),
        pae_enabled=draw(st.none() | st.booleans()) if bits == 32 else None,
        physical_memory=tuple(
            draw(st.lists(st.builds(PageRun, words, st.integers(0, 0xFFFFFF)), max_size=MOST_RUNS[bits]))
        ),
        context_record=draw(st.binary(max_size=1200)).ljust(3000 if bits == 64 else 1200, b"\0"),
        exception=draw(st.binary(max_size=0x50)).ljust(0x98 if bits == 64 else 0x50, b"\0"),
        required_dump_space=draw(optional),
        system_time=draw(optional),
        system_up_time=draw(optional),
        comment=draw(st.none() | st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=127)),
        mini_dump_fields=draw(optional),
        secondary_data_state=draw(optional),
        product_type=draw(optional),
        suite_mask=draw(optional),
        writer_status=draw(optional),
        kd_secondary_version=draw(st.none() | st.integers(0, 0x40)),
        attributes=draw(optional),
        boot_id=draw(optional),
    )


@given(_headers())
def test_a_header_comes_back_as_it_was_written(header: DumpHeader) -> None:
    raw = encode_header(header)
    assert len(raw) == header.size
    assert parse_header(raw) == header


@given(st.sampled_from((b"PAGEDU64", b"PAGEDUMP")), st.binary(max_size=256), st.integers(0, 0x2000))
@example(b"PAGEDU64", b"", 0)
def test_any_bytes_are_a_header_or_a_named_error(magic: bytes, noise: bytes, size: int) -> None:
    data = magic + (noise * (size // max(len(noise), 1) + 1))[:size]
    try:
        header = parse_header(data)
    except DumpFormatError:
        return
    assert parse_header(encode_header(header)) == header


def test_what_is_no_kernel_dump_is_told_so() -> None:
    with pytest.raises(DumpFormatError, match="user-mode minidump"):
        parse_header(b"MDMP" + bytes(0x2000))
    with pytest.raises(DumpFormatError, match="file offset 0x4: the dump was never finished"):
        parse_header(b"PAGE" * 0x800)
    with pytest.raises(DumpFormatError, match="0x1fff: the file ends inside its header"):
        parse_header(encode_header(DumpHeader())[:-1])
    for number in (0, 3, 7, 0xB):
        data = bytearray(encode_header(DumpHeader()))
        data[0xF98] = number
        with pytest.raises(DumpFormatError, match=f"0xf98: dump type {number:#x} is not known"):
            parse_header(bytes(data))


def test_an_unset_type_is_complete_and_unset_pae_is_unset() -> None:
    data = bytearray(encode_header(DumpHeader(bits=32, dump_type=DumpType.TRIAGE)))
    data[0xF88:0xF8C] = b"PAGE"
    header = parse_header(bytes(data))
    assert (header.dump_type, header.pae_enabled) == (DumpType.FULL, None)


def test_more_runs_than_fit_are_counted_when_read_and_refused_when_written() -> None:
    data = bytearray(encode_header(DumpHeader(physical_memory=(PageRun(1, 1),) * 42)))
    data[0x88:0x8C] = (44).to_bytes(4, "little")
    header = parse_header(bytes(data))
    assert (len(header.physical_memory), header.surplus_runs) == (42, 2)
    with pytest.raises(DumpFormatError, match="43 runs of memory do not fit into a header: 42 do"):
        encode_header(DumpHeader(physical_memory=(PageRun(1, 1),) * 43))
    encode_header(DumpHeader(bits=32, physical_memory=(PageRun(1, 1),) * 86))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DumpFormatError, match=r"directory_table_base 0x100000000 does not fit into DUMP_HEADER32"):
        encode_header(DumpHeader(bits=32, directory_table_base=1 << 32))
    with pytest.raises(DumpFormatError, match="fewer than 128 letters"):
        encode_header(DumpHeader(comment="x" * COMMENT_SIZE))
    with pytest.raises(DumpFormatError, match="use ASCII"):
        encode_header(DumpHeader(comment="коммент"))
    with pytest.raises(DumpFormatError, match="3001 bytes of context_record do not fit"):
        encode_header(DumpHeader(context_record=bytes(3001)))


def test_active_dumps_are_marked_by_the_bit_that_the_reference_names() -> None:
    assert DumpAttributes.FILTER_DUMP_FILE == 0x40
    marked = replace(DumpHeader(), attributes=DumpAttributes.FILTER_DUMP_FILE)
    assert encode_header(marked)[0x1050:0x1054] == b"\x40\0\0\0"
