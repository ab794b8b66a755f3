"""Values of the registry in a dump's secondary data: a block laid out as real dumps have it, and what lies."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from kdbridge.analysis.smbios import firmware_texts, registry_texts


def _value(name: str, kind: int, data: bytes) -> bytes:
    wide = (name + "\0").encode("utf-16-le")
    return struct.pack("<I", len(wide)) + wide + struct.pack("<II", kind, len(data)) + data


def _text(name: str, text: str) -> bytes:
    return _value(name, 1, (text + "\0").encode("utf-16-le"))


def test_texts_by_name() -> None:
    data = _value("~MHz", 4, struct.pack("<I", 3593)) + _text("Identifier", "AMD64 Family 23 Model 113 Stepping 0")
    data += _text("ProcessorNameString", "A   processor  ") + _text("ProcessorNameString", "another")
    assert registry_texts(data) == {
        "Identifier": "AMD64 Family 23 Model 113 Stepping 0", "ProcessorNameString": "A processor",
    }  # fmt: skip
    assert registry_texts(data[:-1])["ProcessorNameString"] == "A processor"
    assert registry_texts(_text("Evil", "\x1b[2Jhello")) == {"Evil": ""}


def test_sizes_that_lie() -> None:
    assert registry_texts(b"\xff\xff\xff\xff" * 10) == {}
    assert registry_texts(bytes(10_000)) in ({}, {"": ""})
    assert registry_texts(_text("a", "b")[:-4]) == {}


def test_smbios_structures_in_their_documented_shape() -> None:
    """DSP0134: BIOS information has vendor, version and date at 4, 5 and 8; baseboard has maker and product at 4, 5."""
    bios = bytes([0, 24, 0, 0, 1, 2, 0, 0xE0, 3]).ljust(24, b"\0") + b"Vendor\0 V1.2 \x00" + b"05/06/2021\0\0"
    board = bytes([2, 8, 2, 0, 1, 2, 0, 0]) + b"...\0Board\0\0"
    end = bytes([127, 4, 0xFF, 0xFE, 0, 0])
    table = bios + board + end + bytes([1, 8, 1, 0, 1, 1, 0, 0]) + b"behind the end\0\0"
    raw = bytes([0, 3, 1, 0]) + len(table).to_bytes(4, "little") + table
    assert firmware_texts(raw) == (
        ("board", "Board"), ("BIOS vendor", "Vendor"), ("BIOS version", "V1.2"), ("BIOS date", "05/06/2021"),
    )  # fmt: skip
    evil = bytes([1, 8, 0, 0, 1, 2, 0, 0]) + b"\x1b[2J\0ok\0\0"
    assert firmware_texts(bytes(8) + evil) == (("product", "ok"),)


@given(st.binary(max_size=300))
def test_bytes_that_mean_nothing(data: bytes) -> None:
    for texts in (dict(firmware_texts(data)), registry_texts(data)):
        assert all(text.isprintable() and len(text) <= 128 for text in texts.values())
