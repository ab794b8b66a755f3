"""How fast it is, as ratios against named rivals in the same run: `make bench`.

Throughput: the engine against a minimal blocking loop (rival.py) on the same simulator, over a Unix socket and a pty.
Line share: on a paced line, how much of what the target sends while reading is dump payload.
Memory: resident size of `kdbridge dump` of a 64 GiB machine with 200 MiB of content.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import trio

from kdbridge.opening import open_target
from kdbridge.transports.sim import open_sim
from protocol.address import PAGE_SIZE, PageRun, PageRuns

from .rival import blocking_dump

_ROUNDS = 11
_PAGES = 4096  # 16 MiB a round
_SLOW_PAGES = {115200: 40, 921600: 320}


@contextlib.contextmanager
def machine(where: str) -> Iterator[str]:
    """A simulated machine in another process; gives the URL of its line."""
    command = [sys.executable, "-m", "simulator", "bugcheck", "--on", where, "--memory", "128M", "--processors", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline().strip() if process.stdout else ""
        assert line, "the simulator did not start"
        yield line
    finally:
        process.terminate()
        process.wait(10)


async def engine_dump(url: str, pages: int) -> tuple[float, bytes]:
    """Seconds to read so many pages through the whole engine; and the last page, as a witness."""
    async with open_target(url, wait=30) as target:
        start = time.perf_counter()
        last = b""
        assert target.physical is not None
        async for page in target.physical.read_pages(PageRuns([PageRun(0x400, pages)])):
            last = bytes(page.data or b"")
        return time.perf_counter() - start, last


def throughput(where: str, name: str) -> None:
    """The ratio of the engine's throughput to the rival's, taken in turns."""
    ratios: list[float] = []
    rates: list[float] = []
    with machine(where) as url:
        for _ in range(_ROUNDS):
            ours, last = trio.run(engine_dump, url, _PAGES)
            theirs, theirs_last = blocking_dump(url, 0x400, _PAGES)
            assert last == theirs_last, "the two did not read the same"
            ratios.append(theirs / ours)
            rates.append(_PAGES * PAGE_SIZE / ours / (1 << 20))
    ratio, rate = statistics.median(ratios), statistics.median(rates)
    print(f"throughput over a {name}: {ratio:.2f} of a minimal blocking loop (goal 0.80; {rate:.1f} MiB/s)", flush=True)


async def _share(baud: int) -> float:
    transport = open_sim("sim:bugcheck", "bugcheck", {"baud": str(baud), "memory": "64M", "processors": "1"})
    async with open_target("sim:bugcheck", transport=transport, wait=30) as target:
        before = target.session.engine.bytes_received
        count = 0
        assert target.physical is not None
        async for page in target.physical.read_pages(PageRuns([PageRun(0x400, _SLOW_PAGES[baud])])):
            count += len(page.data or b"")
        return count / (target.session.engine.bytes_received - before)


async def _line_use(baud: int) -> float:
    """Payload against what the line could have carried in the time it took."""
    transport = open_sim("sim:bugcheck", "bugcheck", {"baud": str(baud), "memory": "64M", "processors": "1"})
    async with open_target("sim:bugcheck", transport=transport, wait=30) as target:
        assert target.physical is not None
        start = time.perf_counter()
        count = 0
        async for page in target.physical.read_pages(PageRuns([PageRun(0x400, _SLOW_PAGES[baud])])):
            count += len(page.data or b"")
        return count / ((time.perf_counter() - start) * baud / 10)


def memory() -> None:
    """The largest resident size of a dump of a machine that is much larger than RAM."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "big.dmp")
        command: list[str | Path] = [
            Path(sys.executable).parent / "kdbridge", "dump", "sim:bugcheck?memory=64G&content=200M&processors=4",
            out, "--kind", "kernel", "--keep-snapshot", Path(folder, "snapshot"),
        ]  # fmt: skip
        program = shutil.which("time") or "/usr/bin/time"
        if not Path(program).exists():
            command = [sys.executable, "-m", "benchmarks.resident", *map(str, command)]
        else:
            command = [program, "-v", *command]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.search(r"Maximum resident set size \(kbytes\): (\d+)", done.stderr)
        assert found is not None, done.stderr[-2000:]
        print(f"resident memory, dump of 64 GiB with 200 MiB of content: {int(found[1]) / 1024:.0f} MiB (goal 200)")


def main() -> None:
    """All of it."""
    with tempfile.TemporaryDirectory() as folder:
        throughput(f"unix:{folder}/line", "Unix socket")
        throughput("pty:", "pty")
    for baud in _SLOW_PAGES:
        share, use = trio.run(_share, baud), trio.run(_line_use, baud)
        print(f"line of {baud} baud: {share:.3f} of the bytes the target sends are payload (goal 0.950); "
              f"{use:.3f} of what the line can carry")  # fmt: skip
    memory()


if __name__ == "__main__":
    main()
