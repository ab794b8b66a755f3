"""The command line, called: in this process with a clock that jumps, or as the program that a user starts."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import trio
import trio.testing

from kdbridge.cli import main
from kdbridge.snapshot import Snapshot
from simulator.scenarios import RunningScenario, ScenarioOptions, start

__all__ = ["PROGRAM", "Ended", "Served", "call", "program", "served", "sim"]

PROGRAM = str(Path(sys.executable).with_name("kdbridge"))
_SECONDS = 60


@dataclass(frozen=True)
class Ended:
    """How a command ended, what it printed, and the machines that it made."""

    code: int
    out: str
    err: str
    machines: tuple[RunningScenario, ...] = ()
    seconds: float = 0.0
    """Of virtual time that it took."""

    @property
    def document(self) -> Any:
        """All of stdout as JSON."""
        return json.loads(self.out)

    @property
    def last(self) -> str:
        """The last line of stderr."""
        return self.err.rstrip("\n").rpartition("\n")[2]

    @property
    def machine(self) -> RunningScenario:
        (only,) = self.machines
        return only


def sim(scenario: str = "bugcheck", **options: object) -> str:
    """The URL of a small machine inside the process."""
    known = {"memory": "16M", "processors": 2, **options}
    return f"sim:{scenario}?" + "&".join(f"{name}={value}" for name, value in known.items())


def call(
    *words: object,
    prepare: Callable[[RunningScenario], None] = lambda machine: None,
    on_page: Callable[[int], None] = lambda count: None,
    real_clock: bool = False,
) -> Ended:
    """`kdbridge WORDS` in this process. Time jumps to whatever is waited for, unless the target is elsewhere.

    `prepare` gets every machine that is made before anybody talks to it, `on_page` the number of pages kept so far.
    """
    machines: list[RunningScenario] = []
    pages = 0
    put = Snapshot.put

    def make(name: str, options: ScenarioOptions | None = None) -> RunningScenario:
        machine = start(name, options)
        machines.append(machine)
        prepare(machine)
        return machine

    def counted(snapshot: Snapshot, pfn: int, data: bytes | memoryview | None) -> None:
        nonlocal pages
        put(snapshot, pfn, data)
        pages += 1
        on_page(pages)

    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    clock = None if real_clock else trio.testing.MockClock(autojump_threshold=0)
    with contextlib.ExitStack() as stack:
        for patch in (
            mock.patch.object(sys, "argv", ["kdbridge", *map(str, words)]),
            mock.patch.object(sys, "stdout", streams[0]),
            mock.patch.object(sys, "stderr", streams[1]),
            mock.patch.object(trio, "run", functools.partial(trio.run, clock=clock)),
            mock.patch("kdbridge.transports.sim.start", make),
            mock.patch("kdbridge.cli.simulate.start", make),
            mock.patch.object(Snapshot, "put", counted),
        ):
            stack.enter_context(patch)
        code: object = "main did not end the process"
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int), code
    out, err = (stream.buffer.getvalue().decode("utf-8") for stream in streams)
    return Ended(code, out, err, tuple(machines), 0.0 if clock is None else clock.current_time())


def program(*words: object, environment: Mapping[str, str] | None = None, **more: Any) -> Ended:
    """`kdbridge WORDS` as a user starts it."""
    done = subprocess.run(
        [PROGRAM, *(word if isinstance(word, bytes) else str(word) for word in words)],
        env={**os.environ, "COLUMNS": "100", **(environment or {})}, stdin=subprocess.DEVNULL,
        stdout=more.pop("stdout", subprocess.PIPE), stderr=more.pop("stderr", subprocess.PIPE),
        timeout=_SECONDS, check=False, **more,
    )  # fmt: skip
    out, err = ((stream or b"").decode("utf-8", "surrogateescape") for stream in (done.stdout, done.stderr))
    assert "Traceback" not in err, err
    return Ended(done.returncode, out, err)


class Served:
    """A machine that another process is: `kdbridge simulate`."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def kill(self) -> None:
        """The machine is gone, without a word."""
        self.process.kill()
        self.process.wait(_SECONDS)


@contextlib.contextmanager
def served(*words: object, folder: Path | None = None) -> Iterator[Served]:
    """`kdbridge simulate WORDS`, until the end of the block."""
    process = subprocess.Popen(
        [PROGRAM, "simulate", *map(str, words)], cwd=folder, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    try:
        url = process.stdout.readline().rstrip("\n")
        assert url, process.stderr.read()
        yield Served(process, url)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(_SECONDS)
        process.stdout.close()
        process.stderr.close()
