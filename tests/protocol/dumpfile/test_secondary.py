"""Secondary data, held against what Windows wrote behind two small dumps."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.dumpfile.secondary import MOST_BLOBS, encode_secondary, format_guid, parse_guid, parse_secondary
from protocol.errors import DumpFormatError
from tests.dumps import reader

_GUIDS = st.binary(min_size=16, max_size=16).map(format_guid)


@pytest.mark.parametrize(("name", "build"), [("triage_x64", 0xF0004A61), ("triage_arm64", 0xF00055F0)])
def test_windows_own_pieces(shared: Path, name: str, build: int) -> None:
    data = (shared / f"data/dumps/{name}.dmp").read_bytes()
    end = int.from_bytes(data[0x2004:0x2008], "little")  # SizeOfDump
    blobs, faults = parse_secondary(reader(data), end, len(data))
    assert faults == ()
    assert len(blobs) > 3
    prefixes = {blob.guid[:8] for blob in blobs}
    assert "bc5c008f" in prefixes or "6c7ac389" in prefixes  # SMBIOS, BIOS: the reference's list
    last = blobs[-1]
    assert 0 <= len(data) - (last.file_offset + last.size) < 8  # they end with the file, but for padding
    # Written again, the same pieces give the same bytes, where Windows pads as we do.
    again = encode_secondary([(b.guid, data[b.file_offset : b.file_offset + b.size]) for b in blobs], build)
    assert again[:0x10] == data[end : end + 0x10]
    assert [(b.guid, b.size) for b in parse_secondary(reader(again), 0, len(again))[0]] == [
        (b.guid, b.size) for b in blobs
    ]


@given(st.lists(st.tuples(_GUIDS, st.binary(max_size=40)), max_size=5), st.integers(0, 300))
def test_pieces_come_back(pieces: list[tuple[str, bytes]], offset: int) -> None:
    data = bytes(offset) + encode_secondary(pieces, 0xF0004A61)
    blobs, faults = parse_secondary(reader(data), offset, len(data))
    assert faults == ()
    assert [(blob.guid, data[blob.file_offset : blob.file_offset + blob.size]) for blob in blobs] == pieces


@given(st.binary(max_size=200), st.integers(0, 100))
def test_any_bytes_end_somewhere(noise: bytes, at: int) -> None:
    data = b"DumpBlob\x10\0\0\0\x61\x4a\0\xf0" + noise
    blobs, faults = parse_secondary(reader(data), 0, len(data))
    assert all(blob.file_offset + blob.size <= len(data) for blob in blobs)
    assert len(faults) <= 1
    assert parse_secondary(reader(data), 1 + at, len(data))[1] == ()


def test_endless_pieces_are_cut() -> None:
    data = encode_secondary([("54c84888-01d1-4e1e-bed7-28c8cbcbd8a0", b"")] * (MOST_BLOBS + 1), 0)
    blobs, faults = parse_secondary(reader(data), 0, len(data))
    assert len(blobs) == MOST_BLOBS
    assert faults == (f"more than {MOST_BLOBS} pieces of secondary data: the rest was not looked at",)


def test_guids_are_written_as_everywhere() -> None:
    raw = bytes.fromhex("8848c854d1011e4ebed728c8cbcbd8a0")
    assert format_guid(raw) == "54c84888-01d1-4e1e-bed7-28c8cbcbd8a0"
    assert parse_guid("{54C84888-01D1-4E1E-BED7-28C8CBCBD8A0}") == raw
    with pytest.raises(DumpFormatError, match="is no GUID"):
        parse_guid("54c84888")
