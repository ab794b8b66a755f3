"""A simulated machine in another process, as `python -m simulator` puts it on a line, and the truth about it here."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from simulator.kernel import SimulatedKernel
from simulator.scenarios import ScenarioOptions, start

__all__ = ["Served", "served"]

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Served:
    """A machine on a line."""

    url: str
    kernel: SimulatedKernel
    """The same machine, to the byte: one seed is one machine."""
    on: str

    @property
    def connection(self) -> tuple[str, ...]:
        """What the engine is told to attach to it."""
        if self.url.startswith("tcp:"):
            return "-k", f"com:port=127.0.0.1,ipport={self.url.rpartition(':')[2]}"
        if self.url.startswith("net:"):
            # net:HOST:PORT,key=…: it pokes there, and the engine listens.
            place, key, *_ = self.on.split(",")
            return "-k", f"net:port={place.rpartition(':')[2]},{key}"
        return "-k", "com:port=COM1,baud=115200"

    @property
    def environment(self) -> dict[str, str]:
        """What the engine's surroundings must say: which terminal its COM1 is."""
        return {} if self.url.startswith(("tcp:", "net:")) else {"KDEXEC_COM1": self.url.removeprefix("serial:")}


@contextlib.contextmanager
def served(scenario: str, *, on: str = "tcp:127.0.0.1:0", processors: int = 2, memory: int = 32) -> Iterator[Served]:
    """Start the machine (`memory` in MiB), and end its process when the block ends."""
    command = [sys.executable, "-m", "simulator", scenario, "--on", on, "--processors", str(processors)]
    process = subprocess.Popen([*command, "--memory", f"{memory}M"], cwd=_ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, f"the simulator ended with {process.wait()}"
        options = ScenarioOptions(processors=processors, memory_size=memory << 20)
        yield Served(url, start(scenario, options).kernel, on)
        assert process.poll() is None, "the simulator ended by itself"
    finally:
        process.terminate()
        process.communicate()
