"""Version resources of real images through pefile's reader, cut short, damaged, and bytes that mean nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LayoutError
from protocol.pe.version import LARGEST_VERSION_INFO, parse_version_info
from simulator.resources import VersionText, version_section
from tests.real_images import RealImage, images, version_strings


def _resource(image: RealImage) -> bytes:
    kind = next(one for one in image.file.DIRECTORY_ENTRY_RESOURCE.entries if one.id == 16)
    data = kind.directory.entries[0].directory.entries[0].data.struct
    return image.memory[data.OffsetToData : data.OffsetToData + data.Size]


def test_versions_are_as_pefile_reads_them() -> None:
    for image in images():
        found, fixed = parse_version_info(_resource(image)), image.file.VS_FIXEDFILEINFO[0]
        assert found.strings == version_strings(image.file)
        high, low = fixed.FileVersionMS, fixed.FileVersionLS
        assert found.file_version == f"{high >> 16}.{high & 0xFFFF}.{low >> 16}.{low & 0xFFFF}"


def test_of_a_resource_that_breaks_off_no_half_text_is_told() -> None:
    for image in images():
        data = _resource(image)
        whole = parse_version_info(data)
        most = 0
        for size in range(40, len(data)):
            found = parse_version_info(data[:size])
            assert set(found.strings.items()) <= set(whole.strings.items())
            assert found.file_version == (whole.file_version if size >= 92 else "")
            assert len(found.strings) >= most
            most = len(found.strings)
        assert most == len(whole.strings)


def test_company_and_description_stand_in_the_first_bytes() -> None:
    """What the reader of images in memory counts on, so that it can read so little."""
    for image in images():
        if "Microsoft" in version_strings(image.file)["CompanyName"]:
            found = parse_version_info(_resource(image)[:0x180])
            assert {"CompanyName", "FileDescription"} <= set(found.strings)


def test_an_empty_company_is_a_company_of_no_letters() -> None:
    section = version_section(0, VersionText("", "x", "1.2.3.4"), "a.sys")
    assert parse_version_info(section[0x60:]).strings["CompanyName"] == ""


@pytest.mark.parametrize("seed", range(8))
def test_damaged_resources_are_read_or_are_layout_errors(seed: int) -> None:
    rng = random.Random(seed)
    for image in images():
        data = bytearray(_resource(image))
        for _ in range(20):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 6, 0xFF, rng.randrange(256)))
            try:
                found = parse_version_info(bytes(data))
            except LayoutError:
                break
            assert len(found.strings) <= 512 and all(len(text) <= 1024 for text in found.strings.values())


@given(st.binary(max_size=300))
def test_bytes_that_mean_nothing_are_layout_errors(data: bytes) -> None:
    head = b"\xff\xff\x00\x00\x00\x00" + "VS_VERSION_INFO".encode("utf-16-le") + b"\0\0\0\0"
    if len(data) < len(head) - 2:
        with pytest.raises(LayoutError, match=r"VS_VERSIONINFO at 0x10"):
            parse_version_info(data, 0x10)
    parse_version_info(head + data)


def test_the_worst_that_fits_is_soon_done() -> None:
    """Blocks of six bytes, one in the other and beside each other, to the largest size."""
    part = "StringFileInfo".encode("utf-16-le") + b"\0\0"
    body = (b"\xff\xff\0\0\1\0" + part).ljust(40, b"\0") + b"\x06\0\0\0\0\0\0\0" * LARGEST_VERSION_INFO
    head = b"\xff\xff\x00\x00\x00\x00" + "VS_VERSION_INFO".encode("utf-16-le") + b"\0\0\0\0"
    assert len(parse_version_info(head + body).strings) <= 512
