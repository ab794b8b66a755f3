"""Progress: a bar where a person looks, a line now and then where none does."""

from __future__ import annotations

import itertools
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from kdbridge.cli import bar
from kdbridge.cli.run import say
from kdbridge.progress import Progress
from tests.kdbridge.cli.calling import PROGRAM, call, sim

_LINE = re.compile(
    r"([\w':, ]+): ([\d.]+) (K|M)iB of ([\d.]+) MiB \((\d+) %\), ([\d.]+) KiB/s"
    r"(?:, (.+) left|, a \w+ dump in .+, all of it in (.+))"
)


@pytest.mark.slow
def test_piped_there_is_a_line_at_most_every_five_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []

    def timed(text: str) -> None:
        times.append(trio.current_time())
        say(text)

    monkeypatch.setattr(bar, "say", timed)
    baud = 115200
    # 200 pages at 11.25 KiB a second: more than a minute.
    ended = call(
        "dump", sim(baud=baud), tmp_path / "out.dmp", "--kind", "complete",
        on_page=lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 200 else None,
    )  # fmt: skip
    assert ended.code == 130
    lines = [found for line in ended.err.splitlines() if (found := _LINE.fullmatch(line))]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert len(times) > 10
    assert len(lines) == len(times)
    # A page takes a third of a second: a line is late by no more than that and a look's quarter.
    assert all(5 <= gap < 6 for gap in gaps), gaps
    assert not {"\r", "\x1b"} & set(ended.err)
    done = [float(line[2]) * (1 if line[3] == "K" else 1024) for line in lines]
    assert done == sorted(done) and done[-1] == pytest.approx(200 * 4096 / 1024, abs=6 * baud / 10 / 1024)
    for line, kib in zip(lines, done, strict=True):
        rate = float(line[6]) * 1024
        assert 0.85 * baud / 10 < rate <= baud / 10, line[0]
        assert line[4] == "15.6" and int(line[5]) == pytest.approx(kib / (15.6 * 1024) * 100, abs=1)
        minutes = re.fullmatch(r"(\d+) min(?: (\d+) s)?", line[7] or line[8])
        assert minutes is not None, line[0]
        left = int(minutes[1]) * 60 + int(minutes[2] or 0)
        assert left == pytest.approx((3998 * 4096 - kib * 1024) / rate, rel=0.02)


def test_short_work_says_nothing(tmp_path: Path) -> None:
    ended = call("dump", sim("bugcheck-attached"), tmp_path / "out.dmp", "--kind", "kernel")
    assert ended.code == 0 and "/s" not in ended.err


def test_pages_that_cannot_be_read_are_counted_in_the_line() -> None:
    assert bar._line(Progress("reading", 1 << 20, 4 << 20, 1024.0, 7)) == (
        "1.0 MiB of 4.0 MiB (25 %), 1.0 KiB/s, 51 min 12 s left, 7 pages unreadable"
    )
    assert bar._line(Progress("reading", 100, None, 0.0, 0)) == "100 bytes, 0 bytes/s"


@pytest.mark.slow
def test_a_terminal_shows_a_bar_and_ctrl_c_ends_with_what_is_kept(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    out = tmp_path / "[bold]crash.dmp"
    process = subprocess.Popen(
        [PROGRAM, "dump", sim(baud=921600), str(out)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "140"},
    )  # fmt: skip
    os.close(slave)
    said = ""
    shown = re.compile(r"kernel core: .*[KM]iB of 15\.6 MiB \(\d+ %\), [\d.]+ KiB/s, .*(left|all of it in)")
    while not shown.search(said):
        said += os.read(master, 4096).decode("utf-8", "replace")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.read() == b""
    assert process.wait(30) == 130
    said += os.read(master, 1 << 16).decode("utf-8", "replace")
    os.close(master)
    last = said.rstrip().splitlines()[-1]
    assert "kdbridge: interrupted; " in said and "Traceback" not in said
    assert last.endswith("makes a dump of what is there")
    command = shlex.split(said[said.rindex("`kdbridge") : said.rindex("`")].strip("`").replace("\r\n", ""))
    made = call(*command[1:])
    assert made.code == 1 and out.exists()


def test_what_a_machine_prints_stands_above_the_bar_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "140")

        async def main() -> None:
            with bar.shown_progress() as progress:
                progress(Progress("writing [red]x.dmp", 1 << 20, 4 << 20, 1024.0, 0))
                say("a driver says [bold]hello[/bold] [/nothing] \x1b[31m")
                progress(Progress("writing [red]x.dmp", 2 << 20, 4 << 20, 1024.0, 0))

        trio.run(main)
        monkeypatch.undo()
        said = os.read(master, 1 << 16).decode()
    os.close(master)
    assert "a driver says [bold]hello[/bold] [/nothing] .[31m\r\n" in said
    assert "writing [red]x.dmp" in said and "2.0 MiB of 4.0 MiB (50 %), 1.0 KiB/s, 34 min 8 s left" in said
    assert said.index("a driver says") < said.rindex("writing [red]x.dmp")
