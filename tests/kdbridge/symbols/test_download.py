"""Downloads from a server on loopback: what comes whole and is the image's own is kept, and nothing else."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import trio

from kdbridge.errors import FileError, TransportError
from kdbridge.symbols.download import address_of, download
from kdbridge.symbols.path import Server
from kdbridge.symbols.store import ImageIdentity
from tests.kdbridge.symbols.rivers import DATA, PLACE, WANTED, other_build, put
from tests.kdbridge.symbols.serving import files, server


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def _left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_a_file_comes_into_the_first_store_that_takes_it(tmp_path: Path) -> None:
    put(tmp_path / "blocked", b"a file where a folder should be")
    stores = (tmp_path / "blocked", tmp_path / "a", tmp_path / "b")
    with server(files({f"/symbols/{PLACE}": DATA})) as served:
        path = await download(Server(served.url, stores), WANTED)
    assert path == tmp_path / "a" / PLACE
    assert path.read_bytes() == DATA
    assert served.asked == [f"/symbols/{PLACE}"]
    assert _left(tmp_path) == [f"a/{PLACE}", "blocked"]
    assert path.stat().st_mode & 0o444 == 0o444 or os.name == "nt"


async def test_a_server_may_send_on_to_another_address(tmp_path: Path) -> None:
    """As Microsoft's does."""
    with server(lambda path: (200, {}, DATA) if path == "/blob" else (302, {"Location": "/blob"}, b"")) as served:
        assert await download(Server(served.url, (tmp_path,)), WANTED) == tmp_path / PLACE
        served.answer = lambda _: (302, {"Location": served.url}, b"")
        with pytest.raises(TransportError, match="302"):
            await download(Server(served.url, (tmp_path / "b",)), WANTED)
        served.answer = lambda _: (302, {"Location": put(tmp_path / "x").as_uri()}, b"")
        with pytest.raises(TransportError, match="302"):
            await download(Server(served.url, (tmp_path / "b",)), WANTED)


async def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    with server(files({})) as served:
        assert await download(Server(served.url, (tmp_path,)), WANTED) is None
    assert _left(tmp_path) == []


async def test_what_is_not_the_images_own_is_not_kept(tmp_path: Path) -> None:
    for body, said in (
        (other_build(), "is of another build"),
        (b"<html>Log in</html>", "begins with"),
        (b"", "begins"),
    ):
        with server(files({f"/symbols/{PLACE}": body})) as served, pytest.raises(FileError, match=said):
            await download(Server(served.url, (tmp_path,)), WANTED)
        assert _left(tmp_path) == []


async def test_a_transfer_that_breaks_off_or_is_too_long_is_not_kept(tmp_path: Path) -> None:
    length = str(len(DATA))
    for headers, body, most, said in (
        (
            {"Content-Length": length},
            DATA[:-1],
            1 << 20,
            f"the connection ended after {len(DATA) - 1} of {length} bytes",
        ),
        ({}, DATA, 1000, f"is said to be {length} bytes long; 1000 are the most"),
        ({"Content-Length": ""}, DATA, 1000, "is longer than 1000 bytes"),
    ):
        answer = 200, headers, body
        with server(lambda _, answer=answer: answer) as served, pytest.raises(TransportError, match=said):  # type: ignore[misc]
            await download(Server(served.url, (tmp_path,)), WANTED, most_bytes=most)
        assert _left(tmp_path) == []


async def test_errors_name_the_server(tmp_path: Path) -> None:
    with (
        server(lambda _: (503, {}, b"")) as served,
        pytest.raises(TransportError, match=f"{address_of(Server(served.url, ()), WANTED)}: the server answered 503"),
    ):
        await download(Server(served.url, (tmp_path,)), WANTED)
    with pytest.raises(TransportError, match="refused"):  # it is not there any more
        await download(Server(served.url, (tmp_path,)), WANTED)
    with pytest.raises(TransportError, match=r"bad host|nonnumeric port"):
        await download(Server("http://bad host:x", (tmp_path,)), WANTED)
    with pytest.raises(FileError, match="no folder takes what http://x gives: none was named"):
        await download(Server("http://x", ()), WANTED)


async def test_a_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TransportError, match="timed out"):
            await download(Server(url, (tmp_path,)), WANTED, silence=0.05)
        with trio.move_on_after(0.05) as scope:
            await download(Server(url, (tmp_path,)), WANTED, silence=1)
        assert scope.cancelled_caught, "and it can be cancelled while it waits"


def test_a_name_is_quoted_in_an_address() -> None:
    wanted = ImageIdentity("a b#c?.pdb", "A" * 32, 26)
    assert (
        address_of(Server("https://x/y", ()), wanted) == f"https://x/y/a%20b%23c%3F.pdb/{'A' * 32}1A/a%20b%23c%3F.pdb"
    )
