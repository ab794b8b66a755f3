"""The program as a whole: help, exit codes, what is on which stream, and what happens when a stream goes away."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kdbridge.cli.main import VERBS, commands
from tests.kdbridge.cli.calling import PROGRAM, call, program, sim
from tests.kdbridge.cli.conftest import Home

_VERBS = sorted(VERBS)


def test_the_verbs_are_those_of_the_issue() -> None:
    reading = {"dump", "resume", "info", "registers", "memory", "convert", "verify", "simulate", "ports", "keygen"}
    analysing = {"analyze", "triage-name", "modules", "processes", "stack", "print-buffer"}
    assert set(_VERBS) == reading | analysing | {"doctor", "decode", "tap"} | {"break", "continue", "reboot", "crash"}


@pytest.mark.parametrize("verb", _VERBS)
def test_each_verb_has_help(verb: str) -> None:
    for option in ("--help", "-h"):
        ended = call(verb, option)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith(f"Usage: kdbridge {verb} ")
        assert ("  --json " in ended.out) == (verb not in {"simulate", "tap"})
    command = commands.get_command(click.Context(commands), verb)
    assert command is not None
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert options and [option.name for option in options if not option.help] == [], "every option says what it does"


def test_the_program_tells_of_its_verbs_targets_and_exit_codes() -> None:
    ended = program("--help")
    assert (ended.code, ended.err) == (0, "")
    for verb in _VERBS:
        assert f"\n  {verb} " in ended.out
    assert "Exit codes: 0 done · 1 done, with shortcomings named · 2 usage · 3 no contact" in ended.out
    assert call("--version").out.startswith("kdbridge, version ")


def test_a_command_loads_nothing_that_it_does_not_use() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, kdbridge.cli.main, kdbridge.cli.analyze; print(*sys.modules)"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert "kdbridge.opening" in loaded
    assert {"simulator", "urllib.request", "scapy", "kdbridge.cli.dump"} & set(loaded) == set()


def test_what_is_no_command_is_a_usage_error() -> None:
    for words in ((), ("explode",), ("info",), ("info", "--nope", "x"), ("dump", sim(), "x", "--kind", "tiny")):
        ended = call(*words)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith("Usage: kdbridge")


@pytest.mark.parametrize(
    ("target", "code", "complaint"),
    [
        ("sim:nope", 2, "kdbridge: sim:nope: there is no scenario 'nope'; there are: bugcheck, "),
        (
            "sim:bugcheck?mem=16M",
            2,
            "kdbridge: sim:bugcheck?mem=16M: a simulated machine knows no option mem; it knows ",
        ),
        ("sim:bugcheck?memory=16Q", 2, "kdbridge: '16Q' is not a size"),
        ("sim:bugcheck?memory=1M", 2, "kdbridge: sim:bugcheck?memory=1M: 0x100000 bytes of memory: at least 16 MiB"),
        ("sim:bugcheck?processors=0", 2, "kdbridge: sim:bugcheck?processors=0: 0 processors: between 1 and 256"),
        ("sim:bugcheck?processors=-1", 2, "kdbridge: sim:bugcheck?processors=-1: processors=-1 is not a number"),
        ("sim:bugcheck?memory", 2, "kdbridge: sim:bugcheck?memory: 'memory' is not an option"),
        ("tcp:nohost", 2, "kdbridge: 'tcp:nohost' should name a host and a port"),
        ("usb:x", 2, "kdbridge: usb:x: debugging over USB is not supported in this version"),
        ("unix:/nowhere/x", 3, "kdbridge: unix:/nowhere/x: "),
        ("serial:/dev/ttyNOWHERE", 3, "kdbridge: serial:/dev/ttyNOWHERE: there is no port /dev/ttyNOWHERE"),
    ],
)
def test_a_target_that_cannot_be_reached_is_told_of_in_one_sentence(target: str, code: int, complaint: str) -> None:
    ended = call("info", target)
    assert (ended.code, ended.out) == (code, "")
    assert ended.last.startswith(complaint)
    assert ended.err.count("\n") == 2, "what is listened to, and the sentence"


def test_a_wait_in_which_nobody_can_answer_is_a_usage_error() -> None:
    for wait in ("0", "-1", "nan"):
        ended = call("info", sim(), f"--wait={wait}")
        assert (ended.code, ended.machines) == (2, ())
        assert ended.err == f"kdbridge: --wait {wait}: nothing can answer in that time\n"
    assert call("info", sim(), "--wait", "soon").code == 2


def test_the_answer_is_on_stdout_and_all_else_on_stderr(home: Home) -> None:
    ended = program("info", sim("bugcheck-attached"), "--json")
    assert ended.code == 0
    assert ended.document["schema"] == 1
    assert ended.err.splitlines()[0] == f"listening on {sim('bugcheck-attached')}"
    assert "*** Fatal System Error: 0x000000d1" in ended.err
    assert program("verify", home.small).out.endswith("good\n")


# ---- streams that go away -------------------------------------------------------------------------------------------


def test_a_reader_that_has_seen_enough_is_no_mishap(home: Home) -> None:
    script = '"$0" registers "$1" --all | head -1; echo ${PIPESTATUS[0]}'
    done = subprocess.run(
        ["bash", "-c", script, PROGRAM, home.small], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("processor 0 (stopped the machine)\n0\n", "")


def test_a_disk_that_is_full_is_told_of(home: Home) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = program("info", home.small, "--json", stdout=full)
        assert (ended.code, ended.err) == (
            5, "kdbridge: standard output cannot be written: No space left on device\n",
        )  # fmt: skip
        # Nobody reads what is said meanwhile: no reason not to bring a dump home.
        out = home.folder / "unheard.dmp"
        ended = program("dump", sim(), out, "--kind", "kernel", stderr=full)
        assert (ended.code, ended.out) == (0, "")
    assert out.read_bytes() == home.small.read_bytes()


def test_streams_that_are_closed_are_done_without(home: Home) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$0" info "$1" >&-; echo $?; "$0" verify "$1" 2>&-; echo $?', PROGRAM, home.small],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-2:], done.stderr) == ("0", ["good", "0"], "")


@pytest.mark.slow
def test_names_that_are_no_text_are_taken_and_shown_as_well_as_can_be(home: Home, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/gr\xfcn.dmp"
    Path(os.fsdecode(name)).write_bytes(home.small.read_bytes())
    ended = program("verify", name, environment={"LC_ALL": "C.UTF-8"})
    assert ended.code == 0 and "/gr.n.dmp: type 6 (BITMAP_KERNEL), " in ended.out, ended
    ended = program("info", name + b"x", environment={"LC_ALL": "C.UTF-8"})
    assert ended.code == 5
    assert ended.last.startswith("kdbridge: ") and ended.last.endswith(
        "/gr.n.dmpx cannot be read: No such file or directory"
    )
    # An alphabet without the middle dot.
    ended = program("--help", environment={"PYTHONIOENCODING": "iso8859-5"})
    assert ended.code == 0 and "Exit codes: 0 done \\xb7 1 done" in ended.out


def test_ctrl_c_twice_ends_in_one_sentence() -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "info", "tcp-listen:127.0.0.1:0"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave
    )
    os.close(slave)
    said = b""
    while b"listening on" not in said:
        said += os.read(master, 1000)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    said += os.read(master, 10000)
    os.close(master)
    assert (process.returncode, out) == (130, b"")
    assert said.splitlines()[-1] == b"kdbridge: interrupted"
    assert b"Traceback" not in said
