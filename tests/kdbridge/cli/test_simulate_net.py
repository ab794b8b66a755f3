"""kdbridge simulate on a network: a machine that pokes, with its key out of sight."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.kdbridge.cli.calling import call, served
from tests.kdbridge.cli.conftest import Home

_KEY = "17890.af3489a.9345kjm.lio147"
_FORM = "net:HOST:PORT, such as net:127.0.0.1:50000,key=w.x.y.z,version=5"


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_it_pokes_whoever_it_was_told_to() -> None:
    port = _free_port()
    with served("breakpoint", "--memory", "16M", "--on", f"net:127.0.0.1:{port},key={_KEY},version=2") as machine:
        assert machine.url == f"net:port={port},key=…"
        ended = call("info", f"net:port={port},key={_KEY},bind=127.0.0.1", real_clock=True)
        assert ended.code == 0 and "build 19041" in ended.out
        assert _KEY not in ended.err + ended.out


@pytest.mark.slow
def test_a_dump_is_put_on_a_bad_network(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDBRIDGE_KEY", _KEY)
    port = _free_port()
    faults = "loss=0.01,dup=0.05,jitter=0.002,seed=3"
    with served(home.complete, "--on", f"net:127.0.0.1:{port}", "--fault", faults):
        ended = call("info", f"net://127.0.0.1:{port}", real_clock=True)
    assert ended.code == 0 and ended.out == call("info", home.complete).out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--on", "net:h:5"), f"kdbridge: there is no key: write {_FORM}, or put it into KDBRIDGE_KEY"),
        (("--on", f"net:h,key={_KEY}"), f"kdbridge: 'h' names no port; write {_FORM}"),
        (("--on", f"net:h:5,key={_KEY},version=3"),
         "kdbridge: version=3 is none that was ever seen; there are 2, 4 and 5"),
        (("--on", f"net:h:5,key={_KEY}", "--baud", "9600"),
         "kdbridge: a network has no --baud, and nobody hangs up there (--once)"),
        (("--on", f"net:h:5,key={_KEY}", "--once"),
         "kdbridge: a network has no --baud, and nobody hangs up there (--once)"),
        (("--on", f"net:h:5,key={_KEY}", "--fault", "loss=2"),
         "kdbridge: 'loss=2': loss is a number from 0 to 1, such as loss=0.05"),
        (("--on", f"net:h:5,key={_KEY}", "--fault", "rain=1"),
         ("kdbridge: 'rain=1' is no fault of a network, or is given twice; "
          "there are loss, dup, reorder, delay, jitter, seed")),
        (("--on", "pty:", "--fault", "drop=2"), "kdbridge: 'drop=2': drop is a number from 0 to 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_one_sentence(
    words: tuple[str, ...], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KDBRIDGE_KEY", raising=False)
    ended = call("simulate", *words)
    assert (ended.code, ended.out, ended.last) == (2, "", complaint)
