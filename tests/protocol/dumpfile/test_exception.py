"""Exception records, held against one that Windows wrote and the published offsets (dump-formats 1.4)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.dumpfile.exception import ExceptionRecord
from protocol.errors import DumpFormatError


def test_windows_own_record(shared: Path) -> None:
    raw = (shared / "data/dumps/triage_x64.dmp").read_bytes()[0xF00:0xF98]
    record = ExceptionRecord.decode(raw, 64)
    assert record == ExceptionRecord(0x80000003, 1, 0, 0xFFFFF804_7BDF5A80)
    assert record.encode(64) == raw


@given(st.sampled_from((32, 64)), st.lists(st.integers(0, 0xFFFF_FFFF), max_size=15), st.integers(0, 0xFFFF_FFFF))
def test_a_record_comes_back(bits: int, parameters: list[int], code: int) -> None:
    record = ExceptionRecord(code, 1, 0, 0x8053_0000, tuple(parameters))
    raw = record.encode(64 if bits == 64 else 32)
    assert len(raw) == (0x98 if bits == 64 else 0x50)
    assert ExceptionRecord.decode(raw, 64 if bits == 64 else 32) == record


def test_too_many_parameters_are_refused() -> None:
    raw = bytearray(ExceptionRecord(0x80000003, 1, 0, 0).encode(64))
    raw[0x18] = 16
    with pytest.raises(DumpFormatError, match="15 parameters at most, not 0x10"):
        ExceptionRecord.decode(bytes(raw), 64)
    with pytest.raises(DumpFormatError, match="15 parameters at most, not 16"):
        ExceptionRecord(0, 0, 0, 0, (0,) * 16).encode(64)
    with pytest.raises(DumpFormatError, match="cut short"):
        ExceptionRecord.decode(bytes(0x97), 64)


@pytest.mark.parametrize("record", [ExceptionRecord(1 << 32, 0, 0, 0), ExceptionRecord(0, 1 << 32, 0, 0)])
def test_a_code_or_flags_of_more_than_32_bits_are_refused(record: ExceptionRecord) -> None:
    with pytest.raises(DumpFormatError, match="code and flags have 32 bits"):
        record.encode(64)
