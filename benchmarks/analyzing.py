"""Opening and analysing a 16 GiB kernel dump: seconds and resident memory, against other people's readers of it."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from protocol.address import PAGE_SIZE, PageRuns
from protocol.dumpfile import DumpType, plan_bitmap
from protocol.dumpfile.header_layout import HEADER_LAYOUTS
from simulator.kernel import KernelOptions, build_kernel
from tests.referee import engine_home, serving
from tests.simulator.dumped import header_of, with_true_contexts

__all__ = ["analyzing"]

_MEMORY = 17 << 30
_LEAST = 16 << 30
"""Bytes of the file: most of them are holes in it, which every reader reads as zeros."""
_ROUNDS = 5
_INSTALLED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""As programs are that were installed: their modules are compiled once, and not in each run."""


@dataclass(frozen=True, slots=True)
class _Cost:
    seconds: float
    resident: int
    """MiB, of the process (or of all Wine's, for the engine) at its largest."""


def analyzing() -> None:
    """Our whole command line against volatility3's windows.crashinfo and WinDbg's engine, in turns."""
    scripts = Path(sys.executable).parent
    kdexec = Path(os.environ.get("KDBRIDGE_SHARED", "../shared")) / "windbg" / "kdexec"
    # With Wine already up: its start is no part of what the engine does.
    engine = kdexec.exists() and (engine_home() / "engine").exists()
    with tempfile.TemporaryDirectory() as folder, serving() if engine else nullcontext():
        path = _sparse_dump(Path(folder))
        readers: dict[str, Callable[[], _Cost]] = {
            "kdbridge analyze": lambda: _cost([scripts / "kdbridge", "analyze", path]),
            "volatility3 windows.crashinfo": lambda: _as_bitmap_full(
                path, lambda: _cost([scripts / "vol", "-q", "-f", path, "windows.crashinfo"])
            ),
        }
        if engine:
            for words in (".bugcheck",), (".bugcheck", "r", "k", "lm"):
                readers[f"WinDbg's engine, {', '.join(words)}"] = partial(
                    _cost, [kdexec, "-z", path, *words], "kdexec.exe"
                )
        costs: dict[str, list[_Cost]] = {name: [] for name in readers}
        for _ in range(_ROUNDS):
            for name, run in readers.items():
                costs[name].append(run())
    ours = statistics.median(cost.seconds for cost in costs["kdbridge analyze"])
    for name, found in costs.items():
        seconds, resident = statistics.median(cost.seconds for cost in found), max(cost.resident for cost in found)
        print(
            f"a kernel dump of {_LEAST >> 30} GiB (sparse), {name}: {seconds:.2f} s, of which ours takes "
            f"{ours / seconds:.2f}; at most {resident} MiB resident",
            flush=True,
        )


def _sparse_dump(folder: Path) -> Path:
    """A type 6 dump of a simulated machine in which nearly every frame has its place, and few have content."""
    kernel = build_kernel(KernelOptions(memory_size=_MEMORY, gigabyte_page=False))
    image = with_true_contexts(kernel)
    pages = image.runs - PageRuns.from_pages(image.unreadable)
    plan = plan_bitmap(header_of(kernel), image.runs, pages, DumpType.BITMAP_KERNEL)
    assert plan.total_size >= _LEAST, plan.total_size
    index = plan.index()
    path = folder / "large.dmp"
    with path.open("wb") as file:
        file.writelines(plan.prefix())
        for pfn in image.content_pages():
            offset, page = index.offset_of(pfn), image.read_page(pfn)
            if offset is not None and page is not None and any(page):
                file.seek(offset)
                file.write(page)
        file.truncate(plan.total_size)
    assert path.stat().st_blocks * 512 < _LEAST // 64, "the file is not sparse"
    assert path.stat().st_size % PAGE_SIZE == 0
    return path


def _as_bitmap_full(path: Path, run: Callable[[], _Cost]) -> _Cost:
    """Volatility 3 opens no type 6: for it, the same file says that it is of type 5, which is laid out alike."""

    def say(kind: DumpType, signature: bytes) -> None:
        with path.open("r+b") as file:
            file.seek(HEADER_LAYOUTS[64].offset_of("dump_type"))
            file.write(kind.to_bytes(4, "little"))
            file.seek(HEADER_LAYOUTS[64].size)
            file.write(signature)

    say(DumpType.BITMAP_FULL, b"FDMP")
    try:
        return run()
    finally:
        say(DumpType.BITMAP_KERNEL, b"SDMP")


def _cost(command: Sequence[str | Path], watched: str = "") -> _Cost:
    """`watched`: part of the command line of the process whose memory counts, where it is not our child's."""
    # To a file: a pipe is open until the last of a command's children has ended, Wine's services among them.
    with _watching(watched) as seen, tempfile.TemporaryFile() as printed:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, env=_INSTALLED)
        process.wait()
        took = time.perf_counter() - start
        seen.append(0)
        printed.seek(0)
        output = printed.read().decode("utf-8", "replace")
    assert process.returncode in (0, 1), output[-2000:]
    assert "d1" in output.lower() or "MajorVersion" in output, output[-2000:]
    return _Cost(took, max(seen))


@contextmanager
def _watching(watched: str) -> Iterator[list[int]]:
    """Sizes in MiB, as they are seen every 20 ms."""
    seen: list[int] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            for folder in Path("/proc").iterdir():
                with suppress(OSError, ValueError, IndexError):
                    if not folder.name.isdigit():
                        continue
                    status = (folder / "status").read_text()
                    command = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
                    parent = int(status.split("PPid:")[1].split()[0])
                    if watched in command if watched else parent == os.getpid():
                        seen.append(int(status.split("VmHWM:")[1].split()[0]) >> 10)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
