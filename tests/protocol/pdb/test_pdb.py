"""A symbol file against LLVM's account of it, the image it belongs to, volatility3 and Microsoft's own reader."""

from __future__ import annotations

import contextlib
import re
import shutil
import tracemalloc
from pathlib import Path

import pefile
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.errors import PdbFormatError
from protocol.pdb import Pdb, PdbIdentity
from tests.protocol.pdb import built, witness
from tests.protocol.pdb.volatility import reader_of
from tests.referee import Kdexec, parse

RIVERS = witness.PDB.read_bytes()


def test_it_belongs_to_its_image() -> None:
    with pefile.PE(str(witness.IMAGE)) as image:
        (said,) = (one.entry for one in image.DIRECTORY_ENTRY_DEBUG if one.entry is not None)
        pieces = said.Signature_Data1, said.Signature_Data2, said.Signature_Data3
        guid = "{:08X}{:04X}{:04X}".format(*pieces) + f"{said.Signature_Data4:02X}{said.Signature_Data5:02X}"
        guid += said.Signature_Data6.hex().upper()
        age = said.Age
    assert built.pdb_of(RIVERS).identity == PdbIdentity(guid, age)
    assert built.pdb_of(RIVERS).identity.key == witness.key()


def test_every_symbol_is_where_llvm_says() -> None:
    pdb = built.pdb_of(RIVERS)
    assert {name: rva for rva, name in pdb.symbols()} == witness.symbols()
    assert pdb.shortcomings == ()


def test_nearest_is_the_last_at_or_before_in_the_same_section() -> None:
    pdb, known, starts = built.pdb_of(RIVERS), witness.symbols(), witness.sections()
    for rva in range(0, max(known.values()) + 64, 7):
        section = max((start for start in starts if start <= rva), default=0)
        best = max((place, name) for name, place in [("", -1), *known.items()] if place <= rva)
        assert pdb.nearest(rva) == ((best[1], best[0]) if best[0] >= section else None), hex(rva)


def test_structures_are_as_llvm_says() -> None:
    pdb = built.pdb_of(RIVERS)
    for name, fields in witness.structures().items():
        # Every unnamed structure in _RIVER has the same name; C reaches its fields through what it lies in.
        assert {field: pdb.field_offset(name, field) for field in fields} == fields
    assert pdb.field_offset("_RIVER", "length") is None, "names tell upper from lower case"
    assert pdb.field_offset("_UNKNOWN", "Length") is None, "only ever declared"
    assert pdb.field_offset("_RIVER2", "Length") is None


def test_volatility_finds_the_same_public_symbols() -> None:
    with reader_of(witness.PDB) as other:
        other.read_symbol_stream()
    publics = witness.kinds()["S_PUB32"]
    # It strips a leading underscore from names of 64-bit images too, and takes references (S_LPROCREF) for places.
    theirs = {one.get("linkage_name", name): one["address"] for name, one in other.symbols.items()}
    ours = {name: rva for rva, name in built.pdb_of(RIVERS).symbols()}
    assert {name: theirs[name] for name in publics} == {name: ours[name] for name in publics}


@pytest.mark.referee
def test_microsofts_reader_says_the_same(kdexec: Kdexec, tmp_path: Path) -> None:
    for path in (witness.PDB, witness.IMAGE):
        shutil.copy(path, tmp_path)
    folder = "Z:" + str(tmp_path).replace("/", "\\")
    near = [0x1000, 0x1031, 0x105F, 0x1060, 0x10B5, 0x2004, 0x3005, 0x3010, 0x3400]
    answers = parse(
        kdexec(
            "-z", tmp_path / witness.IMAGE.name, f".sympath {folder}", ".reload /f", "lm", "x rivers!*",
            "dt rivers!_RIVER", "dt rivers!_LINK", "dt rivers!_DEPTH", *(f"ln rivers+{rva:x}" for rva in near),
        )
    )  # fmt: skip
    base = 0x1_8000_0000
    assert "private pdb symbols" in answers["lm"].text
    pdb = built.pdb_of(RIVERS)
    listed = re.findall(r"^([0-9a-f`]+) rivers!(\w+)", answers["x rivers!*"].text, re.MULTILINE)
    assert {name: int(at.replace("`", ""), 16) - base for at, name in listed} == {n: rva for rva, n in pdb.symbols()}
    for name in ("_RIVER", "_LINK", "_DEPTH"):
        fields = re.findall(r"^   \+0x([0-9a-f]+) (\w+)", answers[f"dt rivers!{name}"].text, re.MULTILINE)
        assert len(fields) >= 2
        assert [pdb.field_offset(name, field) for _, field in fields] == [int(at, 16) for at, _ in fields]
    for rva in near:
        found = re.search(r"rivers!(\w+)(?:\+0x([0-9a-f]+))?", answers[f"ln rivers+{rva:x}"].text)
        assert found
        assert pdb.nearest(rva) == (found[1], rva - int(found[2] or "0", 16)), hex(rva)


def test_what_has_no_guid_or_no_dbi_stream_is_refused() -> None:
    streams = built.streams_of(RIVERS)
    for number, data, problem in (
        (1, b"\x00" * 10, "PDB information stream: it ends before its GUID"),
        (1, b"\x00" * 40, "it is of version 0, which has no GUID yet"),
        (1, None, "there is no stream 1 in this file"),
        (3, b"", "DBI stream: it ends inside its header"),
        (3, None, "there is no stream 3"),
    ):
        with pytest.raises(PdbFormatError, match=problem):
            built.pdb_of(built.msf_file([*streams[:number], data, *streams[number + 1 :]]))


def test_a_file_that_was_written_to_after_linking_keeps_the_images_age() -> None:
    streams = built.streams_of(RIVERS)
    assert streams[1] is not None
    streams[1] = streams[1][:8] + b"\x07" + streams[1][9:]
    assert built.pdb_of(built.msf_file(streams)).identity.key == witness.key()


@pytest.mark.referee
def test_microsofts_reader_takes_the_same_age(kdexec: Kdexec, tmp_path: Path) -> None:
    """Of two ages in a file: that of the information stream may be another one, that of the DBI stream may not."""
    image = tmp_path / "image" / witness.IMAGE.name
    image.parent.mkdir()
    shutil.copy(witness.IMAGE, image)
    commands, own = [], []
    for place, number in ((1, 1), (2, 3)):
        streams = built.streams_of(RIVERS)
        data = streams[number]
        assert data is not None
        streams[number] = data[:8] + b"\x07" + data[9:]
        path = tmp_path / str(place) / "rivers.pdb"
        path.parent.mkdir()
        path.write_bytes(built.msf_file(streams))
        own.append(built.pdb_of(path.read_bytes()).identity.key == witness.key())
        commands += [".sympath Z:" + str(path.parent).replace("/", "\\"), ".reload /f", f"lm m rivers{'*' * place}"]
    answers = parse(kdexec("-z", image, *commands))
    theirs = ["private pdb symbols" in answers[f"lm m rivers{'*' * place}"].text for place in (1, 2)]
    assert theirs == own == [True, False]


def _all_of(data: bytes) -> None:
    """Everything that can be asked of a file, each answer or a named error."""
    try:
        pdb = Pdb(built.reader(data), len(data))
    except PdbFormatError:
        return
    for ask in (
        lambda: list(pdb.symbols()),
        lambda: pdb.nearest(0x1040),
        lambda: pdb.field_offset("_RIVER", "Mouth"),
        lambda: pdb.field_offset("_DEPTH", "High"),
    ):
        with contextlib.suppress(PdbFormatError):
            ask()


_USED = [at for at in range(len(RIVERS)) if RIVERS[at]]


@given(
    st.lists(st.tuples(st.sampled_from(_USED), st.integers(0, 255)), min_size=1, max_size=12),
    st.one_of(st.none(), st.integers(0, len(RIVERS))),
)
@example([(0x20, 0)], None)
@example([(0x2F, 0xFF)], None)
@settings(max_examples=100)
def test_a_damaged_file_gives_named_errors_only(changes: list[tuple[int, int]], length: int | None) -> None:
    data = bytearray(RIVERS)
    for at, value in changes:
        data[at] = value
    _all_of(bytes(data[:length]))


@given(st.data())
@settings(max_examples=100)
def test_damaged_streams_give_named_errors_only(data: st.DataObject) -> None:
    """Damage inside the streams that are read, of files whose container is whole."""
    streams = built.streams_of(RIVERS)
    used = [number for number in (1, 2, 3, *range(5, len(streams))) if streams[number]]
    for _ in range(data.draw(st.integers(1, 4))):
        number = data.draw(st.sampled_from(used))
        stream = bytearray(streams[number] or b"\0")
        at = data.draw(st.integers(0, min(len(stream) - 1, 2000)))
        piece = data.draw(st.binary(min_size=1, max_size=4))
        stream[at : at + len(piece)] = piece
        streams[number] = bytes(
            stream[: data.draw(st.integers(0, len(stream)))] if data.draw(st.booleans()) else stream
        )
    _all_of(built.msf_file(streams))


@pytest.mark.slow
def test_a_kernels_worth_of_symbols_takes_a_few_megabytes() -> None:
    """100,000 public symbols in blocks that lie anywhere: ntkrnlmp.pdb has about as many."""
    count = 100_000
    records = b"".join(
        built.public(f"KiSomethingOfAverageLength{n:06}", 1, (n * 7919 % count) * 16) for n in range(count)
    )
    types = [built.record(0x1203, b"") for _ in range(10_000)]
    data = built.symbol_file(records, built.section_header(".text", 0x1000, count * 16), types=types)
    tracemalloc.start()
    try:
        pdb = built.pdb_of(data)
        assert pdb.nearest(0x1000 + 7919 * 16 + 5) == ("KiSomethingOfAverageLength000001", 0x1000 + 7919 * 16)
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 << 20
    assert most < 24 << 20
