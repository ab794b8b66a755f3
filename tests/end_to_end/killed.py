"""A dump whose process is killed again and again, without warning, and gone on with each time.

The machine is in this process, behind a Unix socket, so that what it was asked for is known; each life of the dump is
a process of its own.
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import trio

from kdbridge.memory.files import DumpFile
from kdbridge.snapshot import Snapshot
from protocol.address import PageRuns
from protocol.manipulate import ApiNumber, Manipulate
from simulator.behaviour import Answer
from simulator.machine import Machine
from simulator.scenarios import RunningScenario, ScenarioOptions, start
from simulator.serve import run
from tests.kdbridge.cli.calling import PROGRAM

__all__ = ["Killing"]

_PROOF = 17
"""Pages that a resumed dump reads again to prove that the machine is the same; one request may end in the next page."""
_SLACK = 1.0
"""Seconds that a busy machine may take for a checkpoint, beside the second between two."""


@dataclass
class Killing:
    """One dump and its lives. `partial` is called with each partial dump."""

    folder: Path
    seed: int
    memory: int = 16 << 20
    baud: int | None = 8_000_000
    kind: str = "complete"
    partial: Callable[[Path, PageRuns], None] = lambda path, held: None
    lives: int = 0
    lost_most: int = 0
    """Pages that the worst kill cost."""
    running: RunningScenario = field(init=False)
    _reads: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.running = start("bugcheck", ScenarioOptions(memory_size=self.memory, processors=2))

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Note each page of physical memory that the machine hands out, and when."""
        answer = Machine.answer

        def noted(machine: Machine, request: Manipulate) -> Answer:
            result = answer(machine, request)
            if request.api == ApiNumber.READ_PHYSICAL_MEMORY and result.reply is not None:
                at, size = request.fields()["address"], len(result.reply.data)
                now = time.monotonic()
                self._reads += [(now, pfn) for pfn in range(at >> 12, at + size >> 12)]
            return result

        with mock.patch.object(Machine, "answer", noted):
            yield

    @property
    def out(self) -> Path:
        """The dump."""
        return self.folder / "out.dmp"

    @property
    def snapshot(self) -> Path:
        """What is kept of it meanwhile."""
        return self.folder / "out.dmp.snapshot"

    def run(self, kills: int, most_seconds: float) -> None:
        """Kill it so many times, at random moments of its reading; then let it end, and look at all it brought."""
        rng = random.Random(self.seed)
        with self._noting(), self._served() as url:
            for _ in range(kills):
                before = self._held()
                if before == self.running.kernel.image.runs:
                    break
                self._reads.clear()
                process = self._life(url)
                try:
                    # The moment is one of reading: starting Python and proving who it is takes what it takes.
                    self._wait(process, lambda before=before: self._reads and self._held() != before)  # type: ignore[misc]
                    time.sleep(rng.uniform(0.0, most_seconds))  # noqa: TID251  (another process, in real time)
                finally:
                    process.kill()
                    died = time.monotonic()
                    process.communicate()
                self._look(before, died)
            ended = self._life(url)
            said = ended.communicate()[1]
            assert ended.returncode == 0, said
        image = self.running.pristine
        with DumpFile(self.out) as dump:
            assert self.kind != "complete" or dump.held == self.running.kernel.image.runs
            wrong = [pfn for pfn in dump.held.pages() if dump.page(pfn) != image.read_page(pfn)]
        assert len(wrong) <= 2, "the overlay of two processors"

    def _look(self, before: PageRuns, died: float) -> None:
        """What a kill leaves: every page that was read a second before is there, right, and was read once."""
        self.lives += 1
        held = self._held()
        assert not before - held, "nothing that was kept is lost"
        again = [pfn for _, pfn in self._reads if pfn in before]
        assert len(again) <= 2 * _PROOF, f"{len(again)} pages were read again that were kept"
        lost = {pfn for _, pfn in self._reads if pfn not in held}
        old = [pfn for at, pfn in self._reads if pfn in lost and at < died - 1.0 - _SLACK]
        assert not old, f"{len(old)} pages that were read more than {1.0 + _SLACK} s before are lost"
        self.lost_most = max(self.lost_most, len(lost))
        made = self.folder / "partial.dmp"
        made.unlink(missing_ok=True)
        command = [PROGRAM, "convert", str(self.snapshot), str(made), "--kind", self.kind, "--partial"]
        converted = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert converted.returncode in (0, 1), converted.stderr
        image = self.running.pristine
        with DumpFile(made) as dump:
            assert not dump.held - held and (self.kind != "complete" or dump.held == held)
            wrong = [pfn for pfn in dump.held.pages() if dump.page(pfn) != image.read_page(pfn)]
        assert len(wrong) <= 2
        self.partial(made, held)

    def _life(self, url: str) -> subprocess.Popen[str]:
        words = (
            ["resume", self.out]
            if Snapshot.is_snapshot(self.snapshot)
            else ["dump", url, self.out, "--kind", self.kind]
        )
        return subprocess.Popen(
            [PROGRAM, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def _held(self) -> PageRuns:
        if not Snapshot.is_snapshot(self.snapshot):
            return PageRuns()
        with Snapshot.open(self.snapshot) as snapshot:
            return snapshot.held

    @staticmethod
    def _wait(process: subprocess.Popen[str], done: Callable[[], object]) -> None:
        for _ in range(3000):
            if done() or process.poll() is not None:
                return
            time.sleep(0.02)  # noqa: TID251  (another process, in real time)
        raise AssertionError("the dump does not get on")

    @contextmanager
    def _served(self) -> Iterator[str]:
        urls: list[str] = []
        ready = threading.Event()
        stop = trio.CancelScope()
        token: list[trio.lowlevel.TrioToken] = []

        def began(url: str) -> None:
            urls.append(url)
            ready.set()

        async def serve() -> None:
            token.append(trio.lowlevel.current_trio_token())
            with stop:
                await run(self.running.target, f"unix:{self.folder / 'line'}", self.baud, began)

        thread = threading.Thread(target=trio.run, args=(serve,), daemon=True)
        thread.start()
        assert ready.wait(30), "the machine did not get its line"
        try:
            yield urls[0]
        finally:
            token[0].run_sync_soon(stop.cancel)
            thread.join(30)
