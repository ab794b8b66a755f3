"""How fast it is, as ratios against named rivals in the same run: `make bench`.

Throughput: the engine against a minimal blocking loop (rival.py, rival_net.py) on the same simulator, over a Unix
socket, a pty and KDNET on loopback; and where the time of one round trip goes.
Line share: on a paced line, how much of what the target sends while reading is dump payload.
Noise: on a line that turns over bits, the adaptive read size against the best of fixed ones, in virtual time.
Memory: resident size of `kdbridge dump` of a 64 GiB machine with 200 MiB of content.
Planning and rendering: processor time of the kernel plan a page; writing a dump against `cp`.
Value: what a dump that was cut off shows in WinDbg's engine, by how much was read (docs/value-curve.svg).
"""

from __future__ import annotations

import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import trio

from kdbridge.opening import open_target
from kdbridge.transports.sim import open_sim
from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.kdnet import parse_key

from .checkpoints import checkpoints
from .machine import machine
from .noise import noise
from .planning import planning, rendering
from .rival import blocking_dump
from .rival_net import blocking_dump_net, crypto_seconds
from .value import value

_ROUNDS = 31
# A round is short, and the two take turns: the clock of a machine, and what else it does, change from second to second.
_PAGES = 1024
_NET_PAGES = 512
_NET_READ = 1096  # bytes that one reply of a version 5 target carries
_SERIAL_READ = 3944
_KEY = "1.2.3.4"
_SLOW_PAGES = {115200: 40, 921600: 320}


@dataclass
class Cost:
    """Seconds that reading took: by the clock, in our own code, and in the system's calls."""

    wall: float
    user: float
    system: float
    last: bytes
    """The last page, as a witness."""


async def engine_dump(url: str, pages: int) -> Cost:
    """What it costs to read so many pages through the whole engine."""
    async with open_target(url, wait=30) as target:
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        last = b""
        assert target.physical is not None
        async for page in target.physical.read_pages(PageRuns([PageRun(0x400, pages)])):
            last = bytes(page.data or b"")
        after = resource.getrusage(resource.RUSAGE_SELF)
        wall = time.perf_counter() - start
    return Cost(wall, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime, last)


def where_time_goes(name: str, cost: Cost, pages: int, read: int, crypto: float) -> None:
    """One round trip, taken apart; `crypto` is seconds for all of them."""
    trips = pages * PAGE_SIZE / read
    shares = {
        "cryptography": crypto, "our code": cost.user - crypto, "system calls, and looking for the answer": cost.system,
        "waiting for the target": cost.wall - cost.user - cost.system,
    }  # fmt: skip
    parts = ", ".join(f"{what} {seconds / trips * 1e6:.0f} us" for what, seconds in shares.items() if seconds > 0)
    print(f"round trips over {name}: {trips / cost.wall:.0f} a second; each: {parts}", flush=True)


def throughput(where: str, name: str) -> None:
    """The ratio of the engine's throughput to the rival's, taken in turns."""
    costs: list[Cost] = []
    ratios: list[float] = []
    with machine(where) as url:
        for _ in range(_ROUNDS):
            ours = trio.run(engine_dump, url, _PAGES)
            theirs, theirs_last = blocking_dump(url, 0x400, _PAGES)
            assert ours.last == theirs_last, "the two did not read the same"
            ratios.append(theirs / ours.wall)
            costs.append(ours)
    _show(name, ratios, costs, _PAGES, 0.8)
    where_time_goes(name, min(costs, key=lambda cost: cost.wall), _PAGES, _SERIAL_READ, 0.0)


def throughput_net() -> None:
    """The same over KDNET on loopback, against a loop that does the same cryptography."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    costs: list[Cost] = []
    ratios: list[float] = []
    with machine(f"net:127.0.0.1:{port},key={_KEY}"):
        for _ in range(_ROUNDS):
            ours = trio.run(engine_dump, f"net:port={port},key={_KEY}", _NET_PAGES)
            theirs, theirs_last = blocking_dump_net(port, parse_key(_KEY).raw, 0x400, _NET_PAGES)
            assert ours.last == theirs_last, "the two did not read the same"
            ratios.append(theirs / ours.wall)
            costs.append(ours)
    _show("KDNET on loopback", ratios, costs, _NET_PAGES, 0.7)
    trips = _NET_PAGES * PAGE_SIZE // _NET_READ
    where_time_goes("KDNET", min(costs, key=lambda cost: cost.wall), _NET_PAGES, _NET_READ, crypto_seconds(trips))


def _show(name: str, ratios: list[float], costs: list[Cost], pages: int, goal: float) -> None:
    ratio, rate = statistics.median(ratios), statistics.median(pages * PAGE_SIZE / cost.wall for cost in costs)
    print(
        f"throughput over {name}: {ratio:.2f} of a minimal blocking loop (goal {goal:.2f}; "
        f"{rate / (1 << 20):.1f} MiB/s; {len(ratios)} rounds, {min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


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
    """The resident size of a dump of a machine that is much larger than RAM, while it reads and while it writes."""
    with tempfile.TemporaryDirectory() as folder:
        line = f"unix:{folder}/line"
        with machine(line, "--memory", "64G", "--content", "200M", "--processors", "4"):
            command: list[str | Path] = [
                Path(sys.executable).parent / "kdbridge",
                "dump",
                line,
                Path(folder, "big.dmp"),
                "--kind",
                "kernel",
            ]
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            sizes: list[int] = []
            while process.poll() is None:
                found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
                sizes += [int(found[1]) >> 10] if found else []
                time.sleep(0.1)  # noqa: TID251  (a sample of another process, in real time)
            assert process.returncode == 0, process.stderr.read()[-2000:] if process.stderr else ""
            written = Path(folder, "big.dmp").stat().st_size >> 20
        quarter = len(sizes) // 4
        shown = ", ".join(f"{max(sizes[at * quarter : (at + 1) * quarter])}" for at in range(4))
        what = f"kernel dump ({written} MiB) of 64 GiB with 200 MiB of content"
        print(f"resident memory, {what}: at most {max(sizes)} MiB (goal 200); in each quarter of its time: {shown}")


def main() -> None:
    """All of it."""
    with tempfile.TemporaryDirectory() as folder:
        throughput(f"unix:{folder}/line", "a Unix socket")
        throughput("pty:", "a pty")
    throughput_net()
    checkpoints()
    for baud in _SLOW_PAGES:
        share, use = trio.run(_share, baud), trio.run(_line_use, baud)
        print(f"line of {baud} baud: {share:.3f} of the bytes the target sends are payload (goal 0.950); "
              f"{use:.3f} of what the line can carry")  # fmt: skip
    noise()
    memory()
    planning()
    rendering()
    value()


if __name__ == "__main__":
    main()
