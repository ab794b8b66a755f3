"""Buckets: the same crash has the same name, whatever is known of it."""

from __future__ import annotations

import pytest

from kdbridge.analysis.bucket import bucket_of
from kdbridge.analysis.model import Place


@pytest.mark.parametrize(
    ("code", "first", "place", "bucket"),
    [
        (0xD1, 0xFFFFA70F00000000, Place(0xFFFFF80012341045, "mydrv", 0x1045), "D1_mydrv+1045"),
        (0x139, 3, Place(0, "mydrv", 0x1045), "139_3_mydrv+1045"),
        (0x9F, 3, Place(0, "mydrv", 0), "9F_3_mydrv+0"),
        (0x7E, 0xC0000005, Place(0, "amdppm", 0x334C), "7E_amdppm+334c"),
        (0x1000007E, 0xC0000005, Place(0, "amdppm", 0x334C), "7E_amdppm+334c"),
        (0xDEADBEEF, 0, None, "DEADBEEF_unknown"),
        (0, 0, Place(0, "mydrv", 0x1259), "NO_BUGCHECK_mydrv+1259"),
        (None, 0, Place(0x41414141), "UNKNOWN_unknown"),
    ],
)
def test_names(code: int | None, first: int, place: Place | None, bucket: str) -> None:
    assert bucket_of(code, first, place) == bucket


def test_symbols_and_addresses_do_not_matter() -> None:
    bare = Place(0xFFFFF800_00001045, "mydrv", 0x1045)
    named = Place(0xFFFFF804_77771045, "mydrv", 0x1045, "ReadBuffer", 0x45, "pdb")
    assert bucket_of(0xD1, 0, bare) == bucket_of(0xD1, 1, named)


def test_only_characters_of_file_names() -> None:
    found = bucket_of(0xD1, 0, Place(0, '..\\a/b:*?"<>|\u00e9 c' + "x" * 500, 1))
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-")
    assert len(found) <= 96
