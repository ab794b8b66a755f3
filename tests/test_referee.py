"""The tool that asks the debugger engine: its output is taken apart as the engine wrote it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.referee import Kdexec, RefereeError, parse, server_is_up

_PRINTED = """[kdexec] DebugCreate 00000000

Loading Dump File [Z:\\\\some.dmp]
Kernel Complete Dump File: Full address space is available
[kdexec] open 00000000
[kdexec] wait 00000000

[kdexec] > .bugcheck
Bugcheck code 000000D1
Arguments 00000000`00000028 00000000`00000002 00000000`00000000 fffff801`2c4a1d20
[kdexec] 00000000 in 3 ms

[kdexec] > dq 0 L1
00000000`00000000  ????????`????????
[kdexec] ffffffff80040205 in 1 ms

[kdexec] > g
"""


def test_each_command_has_its_answer() -> None:
    transcript = parse(_PRINTED)
    assert "Kernel Complete Dump File: Full address space is available" in transcript.opening
    assert [answer.command for answer in transcript.answers] == [".bugcheck", "dq 0 L1", "g"]
    assert transcript[".bugcheck"].lines[0] == "Bugcheck code 000000D1"
    assert transcript[".bugcheck"].result == 0
    assert transcript["dq 0 L1"].lines == ["00000000`00000000  ????????`????????"]
    assert transcript["dq 0 L1"].result == 0x80040205
    assert transcript["g"].result is None  # the engine never came back from it


def test_a_command_that_was_not_asked_has_no_answer() -> None:
    with pytest.raises(RefereeError, match="answered 0 times"):
        parse(_PRINTED)["k"]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the engine's driver: it prints as Wine does, and does what its first argument says."""
    monkeypatch.setenv("KDENGINE_HOME", str(tmp_path))
    script = tmp_path / "kdexec"
    script.write_text(
        '#!/bin/sh\nprintf "[kdexec] > r\\r\\r\\nrax=0 $GREETING\\r\\n"\n'
        'case "$1" in fail) exit 6;; hang) exec timeout "$KDEXEC_TIMEOUT" sleep 60;; linger) sleep 60 & ;; esac\n'
    )
    script.chmod(0o755)
    return script


def test_output_has_plain_line_ends(tool: Path) -> None:
    assert Kdexec(tool)("-z", tool, env={"GREETING": "hello"}) == "[kdexec] > r\nrax=0 hello\n"


def test_a_failure_tells_what_was_printed(tool: Path) -> None:
    with pytest.raises(RefereeError, match=r"status 6(.|\n)*rax=0"):
        Kdexec(tool)("fail")
    with pytest.raises(RefereeError, match=r"longer than 1 s(.|\n)*rax=0"):
        Kdexec(tool)("hang", timeout=1)


@pytest.mark.referee
def test_wine_stays_up_between_calls(kdexec: Kdexec, shared: Path) -> None:
    kdexec("-z", shared / "data/dumps/triage_arm64.dmp", ".bugcheck")
    time.sleep(4)  # noqa: TID251  (a server left to itself is gone two seconds after the call)
    assert server_is_up()
