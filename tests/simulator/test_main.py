"""python -m simulator: the URL of the line is the first thing it says, and what is wrong is said by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from simulator.__main__ import main
from simulator.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parent.parent.parent


async def test_another_process_is_a_machine(tmp_path: Path) -> None:
    path = tmp_path / "line"
    command = [sys.executable, "-m", "simulator", "running", "--on", f"unix:{path}", "--memory", "16M", "--once"]
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        try:
            with trio.fail_after(60):
                first = b""
                while not first.endswith(b"\n"):
                    first += await process.stdout.receive_some(1)
                assert first.decode() == f"unix:{path}\n"
                async with await trio.open_unix_socket(path) as stream:
                    await stream.send_all(b"b")
                    change = b""
                    while len(change) < 257:
                        change += await stream.receive_some(257)
                    # The first packet of a machine, 80000003 (kd-protocol 2.1).
                    assert change[:16].startswith(bytes.fromhex("30303030 0700f000 00088080"))
                    assert change[0x30:0x34] == bytes.fromhex("03000080")
                assert await process.wait() == 0
        finally:
            process.kill()
            nursery.cancel_scope.cancel()


async def test_a_line_in_another_process_may_be_a_bad_one(tmp_path: Path) -> None:
    path = tmp_path / "line"
    command = [sys.executable, "-m", "simulator", "bugcheck", "--on", f"unix:{path}", "--memory", "16M", "--once"]
    command += ["--fault", "mute,text=login: "]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    try:
        with trio.fail_after(60):
            assert await process.stdout.receive_some(1)
            async with await trio.open_unix_socket(path) as stream:
                assert await stream.receive_some(100) == b"login: "
            assert await process.wait() == 0
    finally:
        process.kill()


def test_help_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in SCENARIOS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bugcheck"], "--on"),
        (["nonsense", "--on", "pty:"], "nonsense"),
        (["--on", "pty:", "--memory", "1.5G"], "'1.5G' is not a size"),
        (["--on", "pty:", "--memory", "G"], "'G' is not a size"),
        (["--on", "pty:", "--memory", "1K"], "at least 16 MiB"),
        (["--on", "pty:", "--processors", "0"], "0 processors"),
        (["--on", "pty:", "--processors", "257"], "257 processors"),
        (["--on", "pty:", "--baud", "0"], "'0' is not a speed"),
        (["--on", "nowhere:"], "a target can be put on"),
        (["--on", "pty:", "--fault", "flop=1"], "'flop=1' is no fault of a serial line"),
        (["--on", "net:h:5,key=1.2.3.4", "--fault", "flip=0.1"], "flip is a fault of serial lines"),
    ],
)
def test_what_is_wrong_is_said_by_name(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
