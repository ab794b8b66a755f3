"""Symbol stores of every form; what is not the image's own is never used, and said. Microsoft's engine looks too."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from kdbridge.errors import FileError
from kdbridge.symbols.store import ImageIdentity, find_in, image_identity, open_pdb, stored_at
from tests.kdbridge.symbols.rivers import DATA, KEY, PLACE, WANTED, other_build, put
from tests.protocol.pdb import witness
from tests.referee import Kdexec, parse

FORMS = {
    "a store": PLACE,
    "a store of two tiers": f"ri/{PLACE}",
    "a store in lower case": PLACE.lower(),
    "a plain folder": "rivers.pdb",
    "a plain folder by kind": "dll/rivers.pdb",
    "a plain folder of symbols": "symbols/dll/rivers.pdb",
}


def _find(folder: Path, wanted: ImageIdentity = WANTED) -> tuple[Path | None, list[str]]:
    refused: list[str] = []
    found = find_in(folder, wanted, refused.append)
    if found is not None:
        assert found[0].nearest(0x1034) == ("Evaporate", 0x1030)
    return (found and found[1]), refused


@pytest.mark.parametrize("form", FORMS)
def test_it_is_found_in_every_form_of_store(form: str, tmp_path: Path) -> None:
    path = put(tmp_path / FORMS[form])
    if form.endswith("two tiers"):
        assert _find(tmp_path) == (None, []), "two tiers are those with an index2.txt"
        put(tmp_path / "index2.txt", b"")
    assert _find(tmp_path) == (path, [])


@pytest.mark.referee
def test_microsofts_engine_finds_it_there_too(kdexec: Kdexec, tmp_path: Path) -> None:
    """In plain folders it looks below the image's own kind, which here is dll."""
    image = tmp_path / "image" / witness.IMAGE.name
    image.parent.mkdir()
    shutil.copy(witness.IMAGE, image)
    commands = []
    for number, (form, place) in enumerate(FORMS.items()):
        folder = tmp_path / str(number)
        put(folder / place)
        if "tiers" in form:
            put(folder / "index2.txt", b"")
        windows = "Z:" + str(folder).replace("/", "\\")
        commands += [
            f".sympath {windows if 'plain' in form else 'srv*' + windows}",
            ".reload /f",
            f"lm m rivers{'*' * number}",
        ]
    answers = parse(kdexec("-z", image, *commands))
    for number, form in enumerate(FORMS):
        assert "private pdb symbols" in answers[f"lm m rivers{'*' * number}"].text, form
        assert _find(tmp_path / str(number))[0] is not None, form


def test_a_file_of_another_build_is_never_used_and_said(tmp_path: Path) -> None:
    path = put(tmp_path / "rivers.pdb", other_build())
    found, refused = _find(tmp_path)
    assert found is None
    assert refused == [f"{path} is of another build: it is {'0' * 32}1, the image's own is {KEY}"]
    # One that is right is still found behind it.
    right = put(tmp_path / "sys/rivers.pdb")
    assert _find(tmp_path)[0] == right


def test_another_age_is_another_build(tmp_path: Path) -> None:
    put(tmp_path / "rivers.pdb")
    found, refused = _find(tmp_path, ImageIdentity(WANTED.name, WANTED.guid, WANTED.age + 1))
    assert found is None and len(refused) == 1


def test_a_damaged_or_compressed_file_is_said(tmp_path: Path) -> None:
    damaged = put(tmp_path / PLACE, DATA[:3000])
    packed = put(tmp_path / "rivers.pd_", b"MSCF")
    found, refused = _find(tmp_path)
    assert found is None
    assert refused[0].startswith(f"{damaged} cannot be used: ")
    assert refused[1:] == [
        f"{packed} is compressed (CAB), which is not read: unpack it beside itself (expand, cabextract)"
    ]


def test_a_pointer_is_followed_once_and_to_this_machine_only(tmp_path: Path) -> None:
    target = put(tmp_path / "elsewhere/any.pdb")
    pointer = stored_at(tmp_path, WANTED).with_name("file.ptr")
    put(pointer, f"PATH:{target}\r\n".encode())
    assert _find(tmp_path) == (target, [])
    put(pointer, f"path:{os.path.relpath(target, pointer.parent)}".encode())
    found, refused = _find(tmp_path)
    assert found is not None and found.samefile(target) and refused == []
    for text, said in (
        (rb"PATH:\\server\share\rivers.pdb", "points to another machine, which is not asked"),
        (b"MSG: gone", "points to no file: 'MSG: gone'"),
        (b"PATH:\0\xff", "points to no file"),
        (b"", "points to no file"),
    ):
        put(pointer, text)
        found, refused = _find(tmp_path)
        assert found is None
        assert len(refused) == 1 and said in refused[0]
    put(pointer, f"PATH:{pointer}".encode())
    assert "cannot be used" in _find(tmp_path)[1][0]


@pytest.mark.parametrize(
    "name", ["", ".", "..", r"C:\x\..", "a/", "rivers.pdb:stream", "a\0b", "a\nb", "x" * 256, "a*b"]
)
def test_a_name_that_is_none_leads_nowhere(name: str) -> None:
    """It comes from the memory of a machine that nobody trusts."""
    assert image_identity(name, WANTED.guid, 1) is None


def test_an_identity_is_a_name_32_digits_and_an_age() -> None:
    for name in (r"d:\os\obj\rivers.pdb", "/build/rivers.pdb", "rivers.pdb"):
        assert image_identity(name, WANTED.guid.lower(), WANTED.age) == WANTED
    assert image_identity("a.pdb", "12", 1) is image_identity("a.pdb", "g" * 32, 1) is None
    assert image_identity("a.pdb", WANTED.guid, -1) is image_identity("a.pdb", WANTED.guid, 1 << 32) is None
    assert ImageIdentity("a.pdb", WANTED.guid, 0xAB).key == WANTED.guid + "AB"


def test_what_cannot_be_looked_at_is_not_there(tmp_path: Path) -> None:
    assert _find(tmp_path / "nowhere") == (None, [])
    assert _find(Path("a\0b")) == (None, [])
    (tmp_path / "rivers.pdb").mkdir()
    assert _find(tmp_path) == (None, [])
    with pytest.raises(FileError, match="cannot be read"):
        open_pdb(tmp_path / "no", WANTED)


def test_a_file_that_goes_away_is_an_error_of_the_file(tmp_path: Path) -> None:
    path = put(tmp_path / "rivers.pdb")
    pdb = open_pdb(path, WANTED)
    path.unlink()
    with pytest.raises(FileError, match=f"{path} cannot be read"):
        pdb.nearest(0x1000)
