"""kdbridge tap: whoever is at its two ends does not notice it, and what it shows and records is what they said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kdbridge.cli.calling import call, program, served
from tests.kdbridge.tapping import free_port, tapping

pytestmark = pytest.mark.slow

_KEY = "1a2b.3c4d.5e6f.7g8h"
_HUNG_UP = "the debugger hung up; the next one is waited for"
_LINE = re.compile(r" *\d+\.\d{6} [→←] .{8} \S.*")


@pytest.mark.parametrize("side", ["tcp-listen:127.0.0.1:0", "unix-listen", "pty"])
def test_one_debugger_after_another_works_through_it_as_without_it(side: str, tmp_path: Path) -> None:
    path = tmp_path / "session.pcapng"
    place = side if side.startswith("tcp") else f"{side}:{tmp_path / 'line'}"
    with served("bugcheck", "--memory", "16M", "--on", "tcp:127.0.0.1:0") as machine:
        direct = program("info", machine.url)
        with tapping(place, machine.url, "--record", path) as tap:
            url = tap.place.replace("-listen", "").replace("pty:", "serial:")
            first = program("info", url)
            # A pty tells nobody that it was closed: the tap finds out when it looks, and only while nobody is there.
            tap.wait_for(_HUNG_UP, 1)
            second = program("registers", url, "--all")
            tap.wait_for(_HUNG_UP, 2)
    assert (first.code, first.out) == (direct.code, direct.out)
    assert second.code == 0
    assert tap.code == 0 and tap.said[-1] == f"the tap ends; what went by is in {path}\n"
    assert sum(_HUNG_UP in line for line in tap.said) == 2
    assert tap.shown and all(_LINE.fullmatch(line.rstrip("\n")) for line in tap.shown)
    text = "".join(tap.shown)
    assert "GetVersion" in text and "stopped: STATUS_BREAKPOINT (80000003) at " in text
    replayed = call("info", f"replay:{path}")
    assert (replayed.code, replayed.out) == (direct.code, direct.out)
    decoded = call("decode", path)
    assert decoded.code == 0
    assert sum(bool(_LINE.fullmatch(line)) for line in decoded.out.splitlines()) == len(tap.shown)


def test_what_a_target_says_while_no_debugger_is_there_is_shown() -> None:
    with (
        served("bugcheck", "--memory", "16M", "--on", "tcp:127.0.0.1:0") as machine,
        tapping("tcp-listen:127.0.0.1:0", machine.url) as tap,
    ):
        program("info", tap.place.replace("-listen", ""))
    assert "stopped: STATUS_BREAKPOINT" in tap.shown[0]


@pytest.mark.parametrize("keyed", [True, False])
def test_a_network_session_goes_through_with_and_without_the_key(keyed: bool, tmp_path: Path) -> None:
    path, port = tmp_path / "session.pcapng", free_port()
    key = f",key={_KEY}" if keyed else ""
    with (
        tapping(f"udp:127.0.0.1:{port}", f"net:port=0{key}", "--record", path) as tap,
        served("bugcheck", "--memory", "16M", "--on", f"net:127.0.0.1:{tap.place},key={_KEY}"),
    ):
        through = program("info", f"net:port={port},key={_KEY}")
    assert through.code == 0, through.err
    text = "".join(tap.shown)
    assert ("GetVersion" in text) is keyed
    assert any("there is no key" in line for line in tap.said) is not keyed
    assert any(re.match(r"a target at 127\.0\.0\.1 port \d+\n", line) for line in tap.said)
    assert _KEY not in text + "".join(tap.said) and _KEY.encode() not in path.read_bytes()
    replayed = call("info", f"replay:{path}?key={_KEY}")
    assert (replayed.code, replayed.out) == (through.code, through.out)
    decoded = call("decode", path, "--key", _KEY)
    assert decoded.code == 0, decoded.err
    found = re.search(r"authenticated: (\d+) of (\d+) datagrams", decoded.out)
    assert found is not None and found[1] == found[2]


def test_a_target_that_goes_away_ends_the_tap_and_is_named(tmp_path: Path) -> None:
    with (
        served("bugcheck", "--memory", "16M", "--on", "tcp:127.0.0.1:0") as machine,
        tapping("tcp-listen:127.0.0.1:0", machine.url) as tap,
    ):
        machine.kill()
        program("info", tap.place.replace("-listen", ""), "--wait", "1")
    assert tap.code == 4
    assert tap.said[-1].startswith(f"kdbridge: {machine.url}: the other side ended the connection")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("tcp-listen:127.0.0.1:0", "net:port=0,key=1.2.3.4"), "do not go together"),
        (("udp:127.0.0.1:50001", "tcp:127.0.0.1:5003"), "do not go together"),
        (("udp:127.0.0.1", "net:port=0"), "does not say where the debugger listens; write udp:127.0.0.1:50001"),
        (("udp:127.0.0.1:0", "net:port=0"), "does not say where the debugger listens"),
        (("udp:[::1]:99999", "net:port=0"), "does not say where the debugger listens"),
        (("nonsense", "tcp:127.0.0.1:5003"), "is not a target address"),
        (("pty:", "nonsense"), "is not a target address"),
    ],
)  # fmt: skip
def test_what_cannot_be_put_together_is_a_usage_error(words: tuple[str, str], complaint: str) -> None:
    ended = call("tap", *words)
    assert ended.code == 2
    assert complaint in ended.last and "1.2.3.4" not in ended.err
