"""Kernel structures: the offsets of kd-protocol 7.5, and a real machine's loader list."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.address import PageRun, PageRuns
from protocol.errors import LayoutError
from protocol.layouts.kernel import (
    KLDR_DATA_TABLE_ENTRY64,
    LARGEST_RUN_COUNT,
    LIST_ENTRY64,
    PHYSICAL_MEMORY_DESCRIPTOR64,
    PHYSICAL_MEMORY_RUN64,
    UNLOADED_DRIVER64,
    encode_physical_memory_descriptor,
    parse_physical_memory_descriptor,
)
from protocol.manipulate import ApiNumber, Manipulate
from tests.protocol.kdnet_capture import Captured
from tests.protocol.reference import number, tables

# Runs such as a PC has: low memory, the rest below the devices, and what lies above 4 GiB.
_RUNS = [PageRun(1, 0x9E), PageRun(0x100, 0xEFF), PageRun(0x100000, 0x40000)]


def _descriptor(count: int, pages: int, *runs: tuple[int, int]) -> bytes:
    return struct.pack("<I4xQ", count, pages) + b"".join(struct.pack("<QQ", *run) for run in runs)


def test_a_module_s_fields_stand_where_the_reference_says(shared: Path) -> None:
    (rows,) = [table for table in tables(shared, "7.5") if table[0][0] == "links"]
    published = {row[0].split(" (")[0].removesuffix(" u32").removesuffix(" u16"): row[1] for row in rows}
    table, size = published.pop("ExceptionTable / its size").split(" / ")
    layout = KLDR_DATA_TABLE_ENTRY64
    ours = {name.replace("_", ""): layout.offset_of(name) for name in layout.fields}
    assert (ours["exceptiontable"], ours["exceptiontablesize"]) == (number(table), number(size))
    assert (ours["flink"], ours["blink"]) == (number(published.pop("links")), 8)
    # A UNICODE_STRING starts with its length and has its pointer at 8.
    for name in ("FullDllName", "BaseDllName"):
        at = number(published.pop(name))
        key = name.lower()
        assert (ours[f"{key}length"], ours[f"{key}maximum"], ours[key]) == (at, at + 2, at + 8)
    assert {name: ours[name.lower()] for name in published} == {n: number(at) for n, at in published.items()}
    assert len(published) == 10
    assert layout.size == 0xA0


def test_a_real_machine_s_first_module(captured: list[Captured]) -> None:
    """What WinDbg read from a boot debugger: the list's head, its first entry, and the entry's name."""
    messages = [Manipulate.decode(packet.payload) for packet in captured if packet.packet_type == 2]
    reads = {m.fields()["address"]: m.data for m in messages if m.api == ApiNumber.READ_VIRTUAL_MEMORY and m.data}
    head = LIST_ENTRY64.decode(reads[0xAD5E60])
    assert (head["flink"], head["blink"]) == (0xFFFFF8017BC49E30, 0xFFFFF8017BC58650)
    raw = reads[head["flink"]]
    assert len(raw) == 0x88, "WinDbg reads no further than the checksum"
    entry = KLDR_DATA_TABLE_ENTRY64.decode(raw, least=0x7C)
    assert (entry["flink"], entry["blink"]) == (0xFFFFF8017BC58650, 0xAD5E60)
    assert (entry["dll_base"], entry["entry_point"], entry["size_of_image"]) == (0x96F000, 0x970090, 0x17D000)
    assert (entry["full_dll_name_length"], entry["full_dll_name_maximum"]) == (0x3A, 0x3C)
    assert (entry["base_dll_name_length"], entry["base_dll_name_maximum"]) == (0x16, 0x18)
    assert entry["base_dll_name"] == 0xFFFFF8017BC49F30
    assert (entry["flags"], entry["load_count"], entry["check_sum"]) == (0, 1, 0x149E3F)
    assert not entry.has("time_date_stamp")
    name = reads[entry["full_dll_name"]][: entry["full_dll_name_length"]]
    assert name.decode("utf-16-le") == "\\Windows\\system32\\winload.efi"


def test_the_other_structures_stand_where_the_reference_says() -> None:
    places = {name: UNLOADED_DRIVER64.offset_of(name) for name in UNLOADED_DRIVER64.fields}
    assert places == {
        "name_length": 0, "name_maximum": 2, "name": 8, "start_address": 0x10, "end_address": 0x18,
        "current_time": 0x20,
    }  # fmt: skip
    assert UNLOADED_DRIVER64.size == 0x28
    assert (LIST_ENTRY64.size, PHYSICAL_MEMORY_DESCRIPTOR64.size, PHYSICAL_MEMORY_RUN64.size) == (0x10, 0x10, 0x10)


def test_a_descriptor_is_these_bytes() -> None:
    raw = _descriptor(3, 0x9E + 0xEFF + 0x40000, (1, 0x9E), (0x100, 0xEFF), (0x100000, 0x40000))
    assert encode_physical_memory_descriptor(_RUNS) == raw
    assert list(parse_physical_memory_descriptor(raw + b"what lies behind")) == _RUNS


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (_descriptor(0, 0), "0 runs"),
        (_descriptor(LARGEST_RUN_COUNT + 1, 1), "4097 runs"),
        (_descriptor(0xFFFFFFFF, 1), "4294967295 runs"),
        (_descriptor(1, 2, (1, 1)), "add up"),
        (_descriptor(1, 0, (1, 0)), "not memory"),
        (_descriptor(1, 1, (1 << 40, 1)), "not memory"),
        (_descriptor(1, (1 << 64) - 1, (1, (1 << 64) - 1)), "not memory"),
        (_descriptor(2, 4, (4, 2), (1, 2)), "behind the one before"),
        (_descriptor(2, 4, (1, 2), (2, 2)), "behind the one before"),
        (_descriptor(2, 4, (1, 2)), "PHYSICAL_MEMORY_RUN"),
        (_descriptor(1, 1, (1, 1))[:-1], "PHYSICAL_MEMORY_RUN"),
    ],
)
def test_what_can_be_no_descriptor_is_an_error_that_says_where(raw: bytes, problem: str) -> None:
    with pytest.raises(LayoutError, match=problem) as caught:
        parse_physical_memory_descriptor(raw, 0xFFFFE00112340000)
    assert caught.value.address == 0xFFFFE00112340000


def test_the_most_runs_that_are_believed_are_parsed() -> None:
    runs = [PageRun(2 * n, 1) for n in range(LARGEST_RUN_COUNT)]
    assert list(parse_physical_memory_descriptor(encode_physical_memory_descriptor(runs))) == runs


@given(st.frozensets(st.integers(0, 300), min_size=1))
def test_any_set_of_pages_survives(pages: frozenset[int]) -> None:
    runs = PageRuns.from_pages(pages)
    assert parse_physical_memory_descriptor(encode_physical_memory_descriptor(list(runs))) == runs


@given(
    st.integers(0, 5), st.integers(0, 40), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=4),
    st.integers(0, 80),
)  # fmt: skip
def test_any_bytes_are_a_descriptor_or_a_named_error(
    count: int, pages: int, runs: list[tuple[int, int]], cut: int
) -> None:
    raw = _descriptor(count, pages, *runs)[:cut]
    try:
        parsed = parse_physical_memory_descriptor(raw)
    except LayoutError:
        return
    assert parsed.page_count == pages
    assert {page for base, length in runs[:count] for page in range(base, base + length)} == set(parsed.pages())
