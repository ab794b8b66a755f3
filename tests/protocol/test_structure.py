"""The one decoder, on a structure made up for it: widths, short data, laying fields over bytes."""

from __future__ import annotations

import construct as cs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LayoutError
from protocol.structure import StructureLayout

_PAIR = cs.Struct("tag" / cs.Int16ul, cs.Padding(2), "size" / cs.Int32ul, "vector" / cs.Bytes(16), "last" / cs.Int8ul)
_LAYOUT = StructureLayout("MADE_UP", _PAIR, {"tag": 0, "size": 4, "vector": 8, "last": 24}, 25)
_RAW = bytes(range(1, 26))


def test_each_field_is_the_little_endian_number_at_its_place() -> None:
    made = _LAYOUT.decode(_RAW)
    assert (made["tag"], made["size"], made["last"]) == (0x0201, 0x08070605, 25)
    assert made["vector"] == int.from_bytes(range(9, 25), "little"), "wide fields are numbers too"
    assert (made.name, made.raw) == ("MADE_UP", _RAW)


def test_a_layout_tells_where_its_fields_are() -> None:
    assert _LAYOUT.fields == ("tag", "size", "vector", "last")
    assert [(_LAYOUT.offset_of(name), _LAYOUT.size_of(name)) for name in _LAYOUT.fields] == [
        (0, 2), (4, 4), (8, 16), (24, 1),
    ]  # fmt: skip


def test_what_lies_behind_is_cut_off() -> None:
    assert _LAYOUT.decode(_RAW + b"more").raw == _RAW
    assert _LAYOUT.decode(memoryview(_RAW + b"more"))["last"] == 25


def test_a_field_exists_only_if_its_last_byte_is_there() -> None:
    for size in range(26):
        made = _LAYOUT.decode(_RAW[:size], least=0)
        there = [name for name in _LAYOUT.fields if made.has(name)]
        assert there == [name for name, end in (("tag", 2), ("size", 8), ("vector", 24), ("last", 25)) if end <= size]
    assert _LAYOUT.decode(_RAW[:7], least=2)["size"] == 0, "absent reads as 0"


def test_too_little_is_an_error_that_says_where() -> None:
    with pytest.raises(LayoutError, match=r"MADE_UP at 0x1000: only 0x18 of 0x19 bytes") as caught:
        _LAYOUT.decode(_RAW[:24], address=0x1000)
    assert (caught.value.structure, caught.value.address) == ("MADE_UP", 0x1000)
    with pytest.raises(LayoutError, match=r"MADE_UP: only 0x1 of 0x2"):
        _LAYOUT.decode(b"\1", least=2)


def test_fields_are_laid_over_a_base() -> None:
    assert _LAYOUT.encode({}) == bytes(25)
    assert _LAYOUT.encode({"tag": 0xAABB}, _RAW) == b"\xbb\xaa" + _RAW[2:]
    assert _LAYOUT.encode({"last": 7}, _RAW[:3]) == _RAW[:3] + bytes(21) + b"\7"
    assert _LAYOUT.encode({"size": 1}, _RAW, size=8) == _RAW[:4] + b"\1\0\0\0"


def test_values_keep_their_low_bytes() -> None:
    assert _LAYOUT.encode({"tag": 0x12345, "last": -1})[:2] == b"\x45\x23"
    assert _LAYOUT.encode({"last": -1})[24] == 0xFF


@given(st.binary(max_size=40))
def test_decoded_fields_encode_to_the_same_bytes(data: bytes) -> None:
    made = _LAYOUT.decode(data, least=0)
    assert _LAYOUT.encode(made.values, data, size=min(len(data), 25)) == data[:25]
    assert made.raw == data[:25]


@pytest.mark.parametrize(("published", "size"), [({"size": 5}, 25), ({}, 24)])
def test_a_declaration_that_the_reference_contradicts_does_not_load(published: dict[str, int], size: int) -> None:
    with pytest.raises(AssertionError, match="published"):
        StructureLayout("WRONG", _PAIR, published, size)
