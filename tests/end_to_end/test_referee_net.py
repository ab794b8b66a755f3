"""Microsoft's engine attaches to our simulator over KDNET, in each version that this engine speaks.

It is of 2017 and knows versions up to 4. A version 5 target it tells apart from a stranger, and refuses by name: what
version 5 looks like is held against recordings instead (tests/protocol/kdnet).
"""

from __future__ import annotations

import random
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from kdbridge import DumpFile
from simulator.kernel import build_kernel
from tests.end_to_end import truth
from tests.end_to_end.printed import parse_bug_check, parse_memory
from tests.end_to_end.seen import assert_seen, assert_standing, questions
from tests.end_to_end.served import Served, served
from tests.referee import Kdexec, RefereeError, Transcript, parse

pytestmark = pytest.mark.referee

_BROKE = "Break instruction exception - code 80000003 (first chance)"


@pytest.fixture
def port() -> int:
    """A UDP port that was free a moment ago: the engine has to be told a number."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _on(port: int, version: int = 4) -> str:
    return f"net:127.0.0.1:{port},key=17890.af3489a.9345kjm.lio147,version={version}"


def _ask(kdexec: Kdexec, machine: Served, *commands: str, timeout: float = 120, **environment: str) -> Transcript:
    return parse(kdexec(*machine.connection, *commands, env=environment, timeout=timeout))


@pytest.mark.parametrize("version", [2, 4])
def test_a_machine_at_a_blue_screen(version: int, port: int, kdexec: Kdexec, tmp_path: Path) -> None:
    with served("bugcheck", on=_on(port, version), processors=4) as machine:
        kernel = machine.kernel
        words = truth.some_words(kernel, kernel.image, random.Random(version), count=200, physical=50)
        script = tmp_path / "addresses.txt"
        script.write_text(words.script)
        everything = f"$<Z:{str(script).replace('/', chr(92))}"
        transcript = _ask(kdexec, machine, ".reload", *questions(kernel), everything)
    assert "Kernel Debugger connection established." in transcript.opening
    assert_seen(transcript, kernel)
    answered = parse_memory(transcript[everything].text)
    assert answered.words == words.expected.words
    assert answered.absent == set()


def test_a_blue_screen_comes_back_after_go(port: int, kdexec: Kdexec) -> None:
    with served("bugcheck", on=_on(port)) as machine:
        transcript = _ask(kdexec, machine, ".reload", "g", "r; k", ".bugcheck")
    assert _BROKE in transcript["g"].lines
    assert_standing(transcript["r; k"].text, machine.kernel, 0)
    assert parse_bug_check(transcript[".bugcheck"].text) == machine.kernel.bug_check


def test_a_running_machine_that_is_broken_into(port: int, kdexec: Kdexec) -> None:
    with served("running", on=_on(port), processors=2) as machine:
        transcript = _ask(kdexec, machine, ".reload", *questions(machine.kernel), KDEXEC_BREAK="1")
    assert "THIS IS NOT A BUG OR A SYSTEM CRASH" in transcript.opening
    assert_seen(transcript, machine.kernel)


@pytest.mark.parametrize("version", [2, 4])
def test_a_file_that_the_engine_writes_holds_the_memory(
    version: int, port: int, kdexec: Kdexec, tmp_path: Path
) -> None:
    # From a version 4 target it reads with api 3162, many replies to a request: nobody else tells us of its form.
    out = tmp_path / "full.dmp"
    windows = f"Z:{str(out).replace('/', chr(92))}"
    with served("bugcheck", on=_on(port, version), memory=16) as machine:
        kernel = machine.kernel
        transcript = _ask(kdexec, machine, f".dump /f {windows}", "r", timeout=540)
    assert "Dump successfully written" in transcript.answers[0].lines
    assert "deadfeed" not in transcript.answers[0].text
    with DumpFile(out) as dump:
        assert dump.held == kernel.image.runs
        assert all(dump.page(pfn) == kernel.image.read_page(pfn) for pfn in kernel.image.runs.pages())


def test_a_machine_that_is_restarted_comes_back(port: int, kdexec: Kdexec) -> None:
    with served("bugcheck", on=_on(port)) as machine:
        before = _ask(kdexec, machine, "r", ".reboot")
        after = _ask(kdexec, machine, ".reload", *questions(machine.kernel), KDEXEC_BREAK="1")
    assert "Shutdown occurred at" in before[".reboot"].text
    assert_seen(after, build_kernel(replace(machine.kernel.options, stop="running", debugger_attached=True)))


def test_version_5_is_known_by_its_key_and_refused_by_its_number(port: int, kdexec: Kdexec) -> None:
    with served("bugcheck", on=_on(port, 5)) as machine, pytest.raises(RefereeError) as refused:
        _ask(kdexec, machine, "r", timeout=20)
    assert "KDNET protocol version unsupported.  You need to upgrade your debugger." in str(refused.value)
