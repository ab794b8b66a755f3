"""How values are written for people."""

from __future__ import annotations

import shlex

import pytest

from kdbridge.cli.words import duration, file_time, harmless, hex_lines, quoted, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "?"), (0, "0 bytes"), (1, "1 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1536, "1.5 KiB"),
        (15 << 20, "15.0 MiB"), (64 << 30, "64.0 GiB"), (3 << 40, "3.0 TiB"), (1 << 60, "1048576.0 TiB"),
    ],
)  # fmt: skip
def test_sizes(count: int | None, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.4, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (3661, "1 h 1 min"),
        (90000, "1 d 1 h"), (float("inf"), "a very long time"), (1e12, "a very long time"), (None, "a very long time"),
    ],
)  # fmt: skip
def test_time_spans_have_two_units_at_most(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_times_count_from_1601_and_what_is_no_time_is_told() -> None:
    # Unix time 0 as a FILETIME is 116444736000000000 (Microsoft's documentation of FILETIME).
    assert file_time(116444736000000000) == "1970-01-01 00:00:00 UTC"
    assert file_time(0) == "1601-01-01 00:00:00 UTC"
    assert file_time((1 << 64) - 1) == "0xffffffffffffffff (no time)"


def test_what_steers_a_terminal_becomes_dots() -> None:
    evil = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x200B, 0x2028, 0xFEFF, 0xDCFF]))
    assert harmless(evil) == "." * len(evil)
    assert harmless("a\tb\nc", kept="\n\t") == "a\tb\nc"
    assert harmless("naïve 漢字 ✓") == "naïve 漢字 ✓"


def test_a_command_can_be_pasted() -> None:
    words = ["kdbridge", "convert", "it's my.dmp", "$HOME", "a b", "--kind", "kernel"]
    assert shlex.split(quoted(*words)) == words


def test_a_hex_dump_looks_like_db() -> None:
    data = bytes(range(0x2D, 0x41))
    marks = bytes([1] * 17 + [0] * 3)
    # As WinDbg's `db` writes it: 16 bytes, a dash in the middle, the text behind.
    assert list(hex_lines(0xFFFFF80213801008, data, marks)) == [
        "fffff802`13801008  2d 2e 2f 30 31 32 33 34-35 36 37 38 39 3a 3b 3c  -./0123456789:;<",
        "fffff802`13801018  3d ?? ?? ??" + " " * 12 + "-" + " " * 23 + "  =???",
    ]
