"""KDDEBUGGER_DATA64: every row of the reference's tables (kd-protocol 6.2, 6.3, 6.5)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LayoutError
from protocol.layouts.kdbg import (
    KDBG_TAG,
    KDDEBUGGER_DATA64,
    LARGEST_SIZE,
    SMALLEST_SIZE,
    KdbgKey,
    decode_block,
    encode_block,
    parse_kdbg,
)
from tests.protocol.reference import number, tables

_SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
_U64 = st.integers(0, (1 << 64) - 1)

# The test vectors' key (6.5).
_KEY = KdbgKey(0x8642097531FEDCBA, 0x0F1E2D3C4B5A6978, 0xFFFFF80312345678)

# A field that each system has and the one before it has not: 6.2 against 6.3.
_NEWEST = {
    0x208: ("mm_loaded_user_image_list", "nt_build_lab"),
    0x290: ("mm_system_parent_table_page", "mm_virtual_translation_base"),
    0x318: ("iop_triage_dump_data_blocks", "vf_crash_data_block"),
    0x328: ("mm_bad_pages_detected", "mm_zeroed_page_single_bit_errors_detected"),
    0x330: ("mm_zeroed_page_single_bit_errors_detected", "etwp_debugger_data"),
    0x340: ("offset_prcb_context", "offset_kthread_stack_limit"),
    0x360: ("size_kdpc_stack_frame", "pte_base"),
    0x368: ("pte_base", "retpoline_stub_function_table"),
    0x380: ("retpoline_stub_size", "offset_kthread_shadow_stack_limit"),
    0x390: ("shadow_stack_enabled", "pointer_auth_mask"),
    0x3A0: ("offset_prcb_exception_stack", "pointer_ignore_bits"),
    0x3A8: ("pointer_ignore_bits", None),
}


def _key(name: str) -> str:
    return re.sub(r"\(.*\)|_", "", name.removeprefix("Header.").removeprefix("List.")).lower()


def _published(shared: Path) -> dict[str, tuple[int, int]]:
    (rows,) = tables(shared, "6.3")
    fields = {_key(name): (number(at), _SIZES[size]) for at, size, name, _, _ in rows}
    assert len(fields) == len(rows) == 164
    del fields["padding1"]
    # 19H1's two, which the table has in a note (6.2, 6.3 at 2C0).
    return fields | {"l1tfhighphysicalbitindex": (0x2C2, 1), "l1tfswizzlebitindex": (0x2C3, 1)}


def _block(size: int) -> bytes:
    raw = bytes(at * 7 & 0xFF for at in range(max(size, 0x18)))
    return raw[:0x10] + b"KDBG" + size.to_bytes(4, "little") + raw[0x18:]


def test_every_field_stands_where_the_reference_says(shared: Path) -> None:
    layout = KDDEBUGGER_DATA64
    declared = {_key(name): (layout.offset_of(name), layout.size_of(name)) for name in layout.fields}
    assert declared == _published(shared)
    assert layout.size == 0x3A8


def test_every_system_s_size_has_the_fields_that_end_before_it(shared: Path) -> None:
    sizes = [number(row[0]) for row in tables(shared, "6.2")[0]]
    assert sizes == sorted(_NEWEST)
    published = _published(shared)
    for size in sizes:
        block = _block(size)
        # What lies behind it in memory is not part of it.
        parsed = parse_kdbg(block + b"\xff" * 0x400)
        expected = {
            name: int.from_bytes(block[at : at + length], "little")
            for name, (at, length) in published.items()
            if at + length <= size
        }
        assert {_key(name): value for name, value in parsed.values.items()} == expected
        last, next_one = _NEWEST[size]
        assert parsed.has(last)
        assert next_one is None or (not parsed.has(next_one) and parsed[next_one] == 0)


def test_a_block_larger_than_all_we_know_is_read_as_far_as_we_know_it() -> None:
    parsed = parse_kdbg(_block(LARGEST_SIZE))
    assert set(parsed.values) == set(KDDEBUGGER_DATA64.fields)


@pytest.mark.parametrize("size", [0, 0x18, SMALLEST_SIZE - 1, LARGEST_SIZE + 1, 0xFFFFFFFF])
def test_an_unbelievable_size_is_an_error(size: int) -> None:
    assert (SMALLEST_SIZE, LARGEST_SIZE) == (0x208, 0x4000)
    block = bytearray(_block(0x380))
    block[0x14:0x18] = size.to_bytes(4, "little")
    with pytest.raises(LayoutError, match=f"{size:#x}"):
        parse_kdbg(bytes(block))


def test_another_tag_is_an_error_that_says_where() -> None:
    assert KDBG_TAG.to_bytes(4, "little") == b"KDBG"
    with pytest.raises(LayoutError, match=r"0x31415926.*encoded") as caught:
        parse_kdbg(_block(0x380).replace(b"KDBG", b"\x26\x59\x41\x31"), 0xFFFFF80012345000)
    assert caught.value.address == 0xFFFFF80012345000


def test_every_truncation_is_a_block_or_a_named_error() -> None:
    block = _block(0x380)
    for size in range(len(block)):
        if size < 0x18:
            with pytest.raises(LayoutError):
                parse_kdbg(block[:size])
        else:
            assert parse_kdbg(block[:size]).raw == block[:size]


@given(st.binary(max_size=64))
def test_any_bytes_are_a_block_or_a_named_error(data: bytes) -> None:
    for candidate in (data, data[:16] + b"KDBG" + data[16:]):
        try:
            parsed = parse_kdbg(candidate)
        except LayoutError:
            continue
        assert parsed["owner_tag"] == KDBG_TAG and SMALLEST_SIZE <= parsed["size"] <= LARGEST_SIZE


def test_the_reference_s_encoded_words(shared: Path) -> None:
    rows = tables(shared, "6.5")[-1]
    assert len(rows) == 4
    for plain, encoded in rows:
        assert _KEY.encode(number(plain)) == number(encoded)
        assert _KEY.decode(number(encoded)) == number(plain)


def test_the_decoding_steps_of_the_reference_one_by_one() -> None:
    value = 0x5432DD7E49933EBB ^ _KEY.ki_wait_never
    count = (_KEY.ki_wait_never & 0xFF) % 64
    value = int(f"{value:064b}"[count:] + f"{value:064b}"[:count], 2)
    value ^= _KEY.kdp_data_block_encoded
    value = int.from_bytes(value.to_bytes(8, "big"), "little")
    assert value ^ _KEY.ki_wait_always == _KEY.decode(0x5432DD7E49933EBB) == 0xFFFFF8031861DF80


@given(_U64, _U64, _U64, _U64)
def test_encoding_is_decoding_backwards_under_any_key(value: int, never: int, always: int, address: int) -> None:
    key = KdbgKey(never, always, address)
    assert key.decode(key.encode(value)) == value == key.encode(key.decode(value))


@pytest.mark.parametrize("low", [0x00, 0x40, 0x80, 0xC0, 0x3F, 0xFF])
def test_a_rotation_by_a_whole_turn_is_none(low: int) -> None:
    key = KdbgKey(0x1122334455667700 | low, 0, 0)
    assert key.decode(key.encode(0x0123456789ABCDEF)) == 0x0123456789ABCDEF
    if low % 64 == 0:
        swapped = (0x0123456789ABCDEF ^ key.ki_wait_never).to_bytes(8, "big")
        assert key.decode(0x0123456789ABCDEF) == int.from_bytes(swapped, "little")


@pytest.mark.parametrize("size", [0x360, 0x368, 0x380, 0x3A0])
def test_a_whole_block_is_encoded_header_included(size: int) -> None:
    block = _block(size)
    encoded = encode_block(block, _KEY)
    assert len(encoded) == size
    with pytest.raises(LayoutError, match="encoded"):
        parse_kdbg(encoded)
    # Three words are enough to see the tag and the size (6.5).
    assert decode_block(encoded[:24], _KEY) == block[:24]
    assert parse_kdbg(decode_block(encoded, _KEY)).raw == block


def test_a_rest_of_less_than_a_word_is_dropped() -> None:
    assert decode_block(encode_block(bytes(23), _KEY) + b"rest", _KEY) == bytes(16)
    assert decode_block(b"\1" * 7, _KEY) == b""
