"""Symbol paths as Microsoft's documentation writes them, and what each part of them means."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbridge.errors import UsageError
from kdbridge.symbols.path import Folder, Server, SymbolPath, symbol_path

HOME = {"DBGHELP_HOMEDIR": "/dbg"}
DEFAULT = Path("/dbg/sym")
URL = "https://symbols.example/download/symbols"


def _parts(text: str) -> tuple[Folder | Server, ...]:
    return symbol_path(text, HOME).parts


def test_each_form_of_the_documentation() -> None:
    """The examples of "Symbol path for Windows debuggers" and "Advanced SymSrv use", their folders renamed."""
    a, b, c = Path("/a"), Path("/b"), Path("/c d")
    assert _parts("/a") == (Folder(a),)
    assert _parts("/a;/b;/c d") == (Folder(a), Folder(b), Folder(c))
    assert _parts(f"srv*/a*{URL}") == (Folder(a), Server(URL, (a,)))
    assert _parts(f"SRV*{URL}/") == _parts(URL) == (Folder(DEFAULT), Server(URL, (DEFAULT,)))
    assert _parts(f"srv*/a*/b*{URL}") == (Folder(a), Folder(b), Server(URL, (a, b)))
    assert _parts(f"symsrv*symsrv.dll*/a*{URL}") == (Folder(a), Server(URL, (a,)))
    assert _parts(f"srv**{URL}") == (Folder(DEFAULT), Server(URL, (DEFAULT,)))
    assert _parts("srv*") == (Folder(DEFAULT),)
    assert _parts("srv*/a") == _parts("srv*/a*") == (Folder(a),)
    assert _parts("cache*") == (Folder(DEFAULT),)
    assert _parts(f"cache*/a;srv*/b*{URL};srv*{URL}") == (
        Folder(a), Folder(b), Server(URL, (a, b)), Server(URL, (a,)),
    )  # fmt: skip
    # A cache serves what is right of it.
    assert _parts(f"srv*{URL};cache*/a") == (Folder(DEFAULT), Server(URL, (DEFAULT,)), Folder(a))


def test_folders_on_other_machines_are_told_apart() -> None:
    assert _parts(r"\\server\share;srv*/a*\\mirror\symbols") == (
        Folder(Path(r"\\server\share"), share=True),
        Folder(Path("/a")),
        Folder(Path(r"\\mirror\symbols"), share=True),
    )


def test_blanks_quotes_and_empty_parts_say_nothing() -> None:
    assert _parts('; "/a" ;; /b;') == (Folder(Path("/a")), Folder(Path("/b")))
    assert not symbol_path("", HOME) and not symbol_path(" ; ", HOME)


def test_it_comes_from_the_environment_if_nobody_says_another() -> None:
    environment = {"_NT_SYMBOL_PATH": "/a", "_NT_ALT_SYMBOL_PATH": "/b"}
    assert symbol_path(None, environment).parts == (Folder(Path("/b")), Folder(Path("/a")))
    assert symbol_path("/c", environment).parts == (Folder(Path("/c")),)
    assert symbol_path(None, {}) == SymbolPath()


def test_what_the_environment_has_for_others_is_passed_over_and_said() -> None:
    """Visual Studio and others set it, too: their mistakes, or what they alone understand, stop nobody here."""
    said: list[str] = []
    environment = {
        "_NT_ALT_SYMBOL_PATH": "web*/a;/b",
        "_NT_SYMBOL_PATH": f"cache*/c;ftp://x;srv*{URL};srv*/d*file:///e",
    }
    found = symbol_path(None, environment, said.append)
    assert found.parts == (Folder(Path("/b")), Folder(Path("/c")), Server(URL, (Path("/c"),)))
    assert [note.partition(" in the symbol path: ")[0] for note in said] == ["'web*/a'", "'ftp://x'", "'file:///e'"]
    assert [note.rpartition("; this part of ")[2] for note in said] == [
        "_NT_ALT_SYMBOL_PATH is passed over", "_NT_SYMBOL_PATH is passed over", "_NT_SYMBOL_PATH is passed over",
    ]  # fmt: skip
    assert symbol_path(None, environment) == found, "and nobody need listen"
    with pytest.raises(UsageError):
        symbol_path(environment["_NT_SYMBOL_PATH"], environment, said.append)
    assert len(said) == 3


@pytest.mark.parametrize("piece", ["/{}", "web*/{}"])
def test_an_endless_variable_is_read_to_its_256th_part(piece: str) -> None:
    said: list[str] = []
    environment = {"_NT_SYMBOL_PATH": ";".join(piece.format(number) for number in range(5000))}
    found = symbol_path(None, environment, said.append)
    assert len(found.parts) == (256 if piece == "/{}" else 0)
    assert said[-1] == (
        "a symbol path of more than 256 parts is not believable; what _NT_SYMBOL_PATH names beyond them is passed over"
    )
    assert len(said) <= 258


def test_the_network_is_servers_and_shares() -> None:
    assert symbol_path(f"/a;srv*/b*{URL}", HOME).network == (Server(URL, (Path("/b"),)),)
    for text in (r"\\server\share", r"srv*/a*\\server\share"):
        assert symbol_path(text, HOME).network == (Folder(Path(r"\\server\share"), share=True),)
    assert symbol_path("/a;srv*/b;cache*", HOME).network == ()


def test_a_home_folder_is_written_as_in_shells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert _parts("srv*~/symbols") == (Folder(tmp_path / "symbols"),)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ftp://symbols.example", "servers are asked over http:// or https://"),
        ("srv*/a*file:///etc", "servers are asked over"),
        ("web*/a", r"parts with an asterisk begin with srv\*, symsrv\* or cache\*"),
        (";".join(f"/{n}" for n in range(300)), "more than 256 parts"),
        ("srv" + "".join(f"*/{n}" for n in range(300)), "more than 256 parts"),
    ],
)
def test_what_is_no_path_is_said(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        symbol_path(text, HOME)
