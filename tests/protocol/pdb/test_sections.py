"""Places in sections, and OMAP: what a tool moved after linking. volatility3 is the witness for the moving."""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path

import pytest

from protocol.errors import PdbFormatError
from tests.protocol.pdb import built, witness
from tests.protocol.pdb.volatility import reader_of
from tests.referee import Kdexec, parse

LINKED = built.section_header(".text", 0x1000, 0x3000) + built.section_header(".data", 0x4000, 0x1000)
NOW = built.section_header(".text", 0x1000, 0x8000) + built.section_header(".data", 0xA000, 0x1000)
OMAP = ((0x1000, 0x5000), (0x1800, 0), (0x2000, 0x1000), (0x3000, 0x6800), (0x4000, 0xA000), (0x5000, 0xB000))
NAMES = {"a": (1, 0), "b": (1, 0x7FF), "cut": (1, 0x800), "c": (1, 0x1004), "d": (1, 0x2000), "e": (2, 0x10)}
# volatility3 leaves out the last section, and needs a pair behind the last address.
SPARE = built.section_header(".rsrc", 0xF000, 0x1000)


def _file(omap: tuple[tuple[int, int], ...]) -> bytes:
    dbi = built.dbi_stream(6, {4: 7, 5: 8, 10: 5})
    records = b"".join(built.public(name, *place) for name, place in NAMES.items())
    moved = b"".join(struct.pack("<II", *pair) for pair in omap)
    info = built.info_stream(bytes(16))
    return built.msf_file([b"", info, built.types_stream([]), dbi, b"", LINKED + SPARE, records, moved, NOW + SPARE])


def test_what_was_moved_is_found_where_it_is_now(tmp_path: Path) -> None:
    pdb = built.pdb_of(_file(OMAP))
    found = {name: rva for rva, name in pdb.symbols()}
    assert found == {"a": 0x5000, "b": 0x57FF, "c": 0x1004, "d": 0x6800, "e": 0xA010}, "and what was cut out is not"
    path = tmp_path / "moved.pdb"
    path.write_bytes(_file(OMAP))
    with reader_of(path) as other:
        other.read_symbol_stream()
    assert {name: one["address"] for name, one in other.symbols.items() if one["address"]} == found
    # Borders are those of the sections that the image has now.
    assert pdb.nearest(0xA00F) is None
    assert pdb.nearest(0x8FFF) == ("d", 0x6800)


@pytest.mark.referee
def test_microsofts_reader_finds_them_there_too(kdexec: Kdexec, tmp_path: Path) -> None:
    """A real file, as if FlowAt had been moved behind Ford, and Evaporate to its place."""
    streams = built.streams_of(witness.PDB.read_bytes())
    data = streams[3]
    assert data is not None
    numbers = list(struct.unpack("<11H", data[-22:]))
    to_source = ((0x1000, 0x1030), (0x1030, 0), (0x1060, 0x1060), (0x1100, 0), (0x1800, 0x1000), (0x1830, 0))
    from_source = ((0x1000, 0x1800), (0x1030, 0x1000), (0x1060, 0x1060), (0x1100, 0))
    rest = tuple((start, start) for start in witness.sections()[1:])
    added = [b"".join(struct.pack("<II", *pair) for pair in (*moved, *rest)) for moved in (to_source, from_source)]
    numbers[3], numbers[4], numbers[10] = len(streams), len(streams) + 1, numbers[5]
    streams[3] = data[:-22] + struct.pack("<11H", *numbers)
    moved = built.msf_file([*streams, *added])
    (tmp_path / "rivers.pdb").write_bytes(moved)
    shutil.copy(witness.IMAGE, tmp_path)
    folder = "Z:" + str(tmp_path).replace("/", "\\")
    answers = parse(kdexec("-z", tmp_path / "rivers.dll", f".sympath {folder}", ".reload /f", "x rivers!*"))
    theirs = re.findall(r"^([0-9a-f`]+) rivers!(\w+)", answers["x rivers!*"].text, re.MULTILINE)
    ours = {name: rva for rva, name in built.pdb_of(moved).symbols()}
    assert {name: int(at.replace("`", ""), 16) - 0x1_8000_0000 for at, name in theirs} == ours
    assert (ours["FlowAt"], ours["Evaporate"], ours["Ford"]) == (0x1800, 0x1000, 0x10B0)


def test_without_a_list_of_what_was_moved_places_are_those_of_the_image() -> None:
    dbi = built.dbi_stream(6, {5: 5, 10: 7})
    data = built.msf_file([b"", built.info_stream(bytes(16)), b"", dbi, b"", LINKED, built.public("a", 2, 8), NOW])
    assert list(built.pdb_of(data).symbols()) == [(0x4008, "a")]


def test_places_outside_every_section_are_no_places() -> None:
    """Section 0 and one past the last are constants (`__guard_flags`); an offset past a section's end is damage."""
    records = b"".join(
        built.public(f"s{n}", *place) for n, place in enumerate([(0, 4), (3, 4), (1, 0x3001), (1, 0x3000)])
    )
    assert list(built.pdb_of(built.symbol_file(records, LINKED)).symbols()) == [(0x4000, "s3")]


def test_a_map_that_wraps_leads_nowhere() -> None:
    names = [name for _, name in built.pdb_of(_file(((0x1000, 0xFFFF_FFF0),))).symbols()]
    assert names == ["a"]


@pytest.mark.parametrize(
    ("sections", "problem"),
    [(b"", "0 sections are not believable"), (bytes(39), "0 sections"), (None, "there is no stream 5")],
)
def test_no_sections_no_symbols(sections: bytes | None, problem: str) -> None:
    dbi = built.dbi_stream(6, {5: 5})
    data = built.msf_file([b"", built.info_stream(bytes(16)), b"", dbi, b"", sections, built.public("a", 1, 0)])
    with pytest.raises(PdbFormatError, match=problem):
        built.pdb_of(data).symbols()
    data = built.msf_file([b"", built.info_stream(bytes(16)), b"", built.dbi_stream(6, {}), b"", b"", b""])
    with pytest.raises(PdbFormatError, match="section headers: there are none in this file"):
        built.pdb_of(data).nearest(1)
