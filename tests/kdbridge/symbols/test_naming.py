"""Names from symbol files as an analysis asks for them; and that nobody is asked over the network unbidden."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from kdbridge.analysis.names import Names, SymbolSource
from kdbridge.errors import MemoryFault, UsageError
from kdbridge.symbols import pdb_symbols, symbol_path
from kdbridge.target import Module
from tests.kdbridge.symbols.rivers import DATA, KEY, MODULE, PLACE, identity, other_build, put
from tests.kdbridge.symbols.serving import files, server
from tests.protocol.pdb import witness

OTHER = dataclasses.replace(MODULE, name="other.sys", base=0xFFFFF800_20000000)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


async def test_places_get_the_names_that_llvm_knows(tmp_path: Path) -> None:
    put(tmp_path / PLACE)
    said: list[str] = []
    source: SymbolSource = pdb_symbols(symbol_path(f"srv*{tmp_path}", {}), identity, report=said.append)
    names = Names([MODULE, OTHER], [source])
    for name, rva in witness.symbols().items():
        place = await names.place(MODULE.base + rva)
        assert (place.symbol, place.displacement, place.known_by) == (name, 0, "pdb")
    place = await names.place(MODULE.base + witness.symbols()["Evaporate"] + 5)
    assert (place.symbol, place.displacement) == ("Evaporate", 5)
    assert (await names.place(OTHER.base + 0x1000)).symbol == ""
    assert said == [f"symbols from {tmp_path / PLACE}"], "told once"


async def test_offsets_of_structures(tmp_path: Path) -> None:
    put(tmp_path / "rivers.pdb")
    source = pdb_symbols(symbol_path(str(tmp_path), {}), identity)
    for field, offset in witness.structures()["_RIVER"].items():
        assert await source.structure_offset(MODULE, "_RIVER", field) == offset
    assert await source.structure_offset(MODULE, "_RIVER", "Bed") is None
    assert await source.structure_offset(OTHER, "_RIVER", "Length") is None


async def test_each_image_is_looked_for_once(tmp_path: Path) -> None:
    asked: list[str] = []

    async def counted(module: Module) -> tuple[str, str, int] | None:
        asked.append(module.name)
        return await identity(module)

    put(tmp_path / "rivers.pdb")
    source = pdb_symbols(symbol_path(str(tmp_path), {}), counted)
    for module in (MODULE, OTHER) * 3:
        await source.nearest(module, 0x1000)
        await source.structure_offset(module, "_RIVER", "Length")
    assert asked == ["rivers.sys", "other.sys"]
    nobody = pdb_symbols(symbol_path("", {}), counted)
    assert await nobody.nearest(MODULE, 0x1000) is None
    assert len(asked) == 2, "without a path, nothing is read of the target"


async def test_without_download_no_server_is_asked(tmp_path: Path) -> None:
    with server(files({f"/symbols/{PLACE}": DATA})) as served:
        path = symbol_path(f"cache*{tmp_path};srv*{served.url};{served.url};srv*{tmp_path}/b*{served.url}", {})
        source = pdb_symbols(path, identity)
        assert await source.nearest(MODULE, 0x1000) is None
        assert served.asked == []
        assert not (tmp_path / "rivers.pdb").exists() and not (tmp_path / "b").exists()
        # The same path with leave to ask: what came once is not asked for again, by anybody.
        for _ in range(2):
            source = pdb_symbols(path, identity, download=True)
            assert await source.nearest(MODULE, 0x1031) == ("Evaporate", 0x1030)
        assert served.asked == [f"/symbols/{PLACE}"]
        assert (await pdb_symbols(path, identity).nearest(MODULE, 0x1000)) == ("FlowAt", 0x1000)


async def test_a_folder_on_another_machine_is_not_looked_in_without_download(tmp_path: Path) -> None:
    """On this system the path is a local one that begins with two slashes: it would be found."""
    put(tmp_path / "rivers.pdb")
    share = f"/{tmp_path}"
    source = pdb_symbols(symbol_path(share, {}), identity)
    assert await source.nearest(MODULE, 0x1000) is None
    assert source.notes == (f"{Path(share)} is on another machine, which is asked only with --download",)


@pytest.mark.parametrize("form", ["{}", "srv*{}", "srv*{}/sym*{}"])
async def test_a_folder_on_another_machine_is_all_that_a_download_needs(form: str, tmp_path: Path) -> None:
    put(tmp_path / PLACE)
    share = f"/{tmp_path}"
    source = pdb_symbols(symbol_path(form.replace("{}", share), {}), identity, download=True)
    assert await source.nearest(MODULE, 0x1031) == ("Evaporate", 0x1030)
    assert source.notes[-1] == f"symbols from {Path(share) / PLACE}"
    left = sorted(tmp_path.rglob("*"))  # noqa: ASYNC240  (a few names)
    assert left == [tmp_path / "rivers.pdb", (tmp_path / PLACE).parent, tmp_path / PLACE], "nothing is copied"


async def test_a_machine_that_is_away_is_asked_once_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question costs as long as the system waits for the other machine."""
    share, asked = Path(f"/{tmp_path}/away"), []

    def is_dir(path: Path) -> bool:
        asked.append(path)
        return False

    async def any_file(module: Module) -> tuple[str, str, int] | None:
        return f"{module.base:x}.pdb", "A" * 32, 1

    monkeypatch.setattr(Path, "is_dir", is_dir)
    source = pdb_symbols(symbol_path(str(share), {}), any_file, download=True)
    for module in (MODULE, OTHER, MODULE):
        assert await source.nearest(module, 0x1000) is None
    assert asked == [share]
    (note,) = source.notes
    assert note.startswith(f"{share} is not there, or cannot be reached")


async def test_what_is_wrong_is_noted_and_never_raised(tmp_path: Path) -> None:
    put(tmp_path / "a/rivers.pdb", other_build())
    source = pdb_symbols(symbol_path(str(tmp_path / "a"), {}), identity)
    assert await source.nearest(MODULE, 0x1000) is None
    (note,) = source.notes
    assert note == f"{tmp_path / 'a/rivers.pdb'} is of another build: it is {'0' * 32}1, the image's own is {KEY}"

    async def unreadable(module: Module) -> tuple[str, str, int] | None:
        raise MemoryFault("page not present", address=module.base, size=4, done=0, virtual=True)

    source = pdb_symbols(symbol_path(str(tmp_path), {}), unreadable)
    assert await source.nearest(MODULE, 0x1000) is None
    assert source.notes == ("symbols of rivers.sys: what file has them cannot be read (page not present)",)

    async def nonsense(module: Module) -> tuple[str, str, int] | None:
        return "..", "?" * 32, 1

    source = pdb_symbols(symbol_path(str(tmp_path), {}), nonsense)
    assert await source.structure_offset(MODULE, "_RIVER", "Length") is None
    assert source.notes == ("symbols of rivers.sys: its debug directory names no usable file ('..')",)


async def test_a_file_that_goes_bad_while_it_is_used_is_noted(tmp_path: Path) -> None:
    path = put(tmp_path / "rivers.pdb")
    source = pdb_symbols(symbol_path(str(tmp_path), {}), identity)
    assert await source.nearest(MODULE, 0x1000) is not None
    put(path, DATA[:4096])
    assert await source.nearest(MODULE, 0x1000) is None
    assert await source.structure_offset(MODULE, "_RIVER", "Length") is None
    assert len(source.notes) == 3
    assert "the file ends inside" in source.notes[1] and "the file ends inside" in source.notes[2]


async def test_a_server_that_fails_twice_is_not_asked_again(tmp_path: Path) -> None:
    async def any_file(module: Module) -> tuple[str, str, int] | None:
        return f"{module.base:x}.pdb", "A" * 32, 1

    with server(lambda _: (500, {}, b"")) as served:
        path = symbol_path(f"srv*{tmp_path}*{served.url}", {})
        source = pdb_symbols(path, any_file, download=True)
        for number in range(5):
            assert await source.nearest(dataclasses.replace(MODULE, base=number << 20), 0) is None
    assert len(served.asked) == 2
    assert source.notes[-1] == f"{served.url} failed 2 times in a row, and is not asked again"


def test_a_download_from_nowhere_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    for text in ("", str(tmp_path), "srv*"):
        with pytest.raises(
            UsageError, match=r"name one in _NT_SYMBOL_PATH or --symbols, as srv\*FOLDER\*https://SERVER"
        ):
            pdb_symbols(symbol_path(text, {}), identity, download=True)
