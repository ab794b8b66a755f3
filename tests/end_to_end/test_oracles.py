"""Other people's readers open what was brought home over the line: every page equals the machine's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import trio
import trio.testing

import kdbridge
from kdbridge import DumpKind, DumpLayoutChoice, complete_plan
from kdbridge.transports.sim import SimTransport, open_sim
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRuns
from protocol.arch import AMD64
from protocol.dumpfile.complete import UNREADABLE_PAGE
from protocol.dumpfile.header import DumpType
from simulator.kernel import SimulatedKernel
from simulator.scenarios import RunningScenario
from tests.oracles import kdmp, leechcore, volatility
from tests.oracles.oracle import Oracle

pytestmark = pytest.mark.slow

Laid = dict[int, dict[int, bytes]]
"""Bytes by offset in a page, by frame."""

_READERS: dict[DumpType, tuple[Callable[[Path], AbstractContextManager[Oracle]], ...]] = {
    DumpType.FULL: (kdmp.open_oracle, volatility.open_oracle, leechcore.open_oracle),
    DumpType.BITMAP_FULL: (kdmp.open_oracle, volatility.open_oracle, leechcore.open_oracle),
    DumpType.BITMAP_KERNEL: (kdmp.open_oracle, leechcore.open_oracle),
}
"""Who reads which type."""

_BEYOND = 0x400
"""Frames behind the end of memory that are asked for, too: nobody may find something there."""


def _laid_over(running: RunningScenario) -> Laid:
    """What a dump holds that the machine's memory does not: registers as the target tells them, the plain KDBG."""
    kernel = running.kernel
    parts = [
        (processor.context_address, answering.context[: AMD64.context.size])
        for processor, answering in zip(kernel.processors, running.target.machine.processors, strict=True)
    ]
    if kernel.kdbg_key is not None:
        parts.append((kernel.kdbg_address, kernel.kdbg.raw))
    laid: Laid = {}
    for address, data in parts:
        for at, part in _by_page(address, data):
            physical = kernel.tables.translate(at)
            assert physical is not None
            laid.setdefault(physical >> PAGE_SHIFT, {})[physical & PAGE_SIZE - 1] = part
    return laid


def _by_page(address: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length = min(len(data), PAGE_SIZE - address % PAGE_SIZE)
        yield address, data[:length]
        address, data = address + length, data[length:]


def _of_the_kernel(kernel: SimulatedKernel) -> PageRuns:
    """Frames of RAM that the kernel half of the page tables maps, by the simulator's own walk."""
    leaves = kernel.tables.mapped(slots=range(256, 512))
    frames = {
        pfn
        for leaf in leaves
        for pfn in range(leaf.physical >> PAGE_SHIFT, leaf.physical + leaf.size >> PAGE_SHIFT)
        if pfn in kernel.image.runs and pfn not in kernel.image.unreadable
    }
    return PageRuns.from_pages(frames)


def _differing(running: RunningScenario, laid: Laid) -> set[int]:
    """Frames whose memory holds something else in the place of what is laid over it."""
    pages = {pfn: running.pristine.read_page(pfn) or b"" for pfn in laid}
    return {
        pfn
        for pfn, parts in laid.items()
        if any(pages[pfn][offset : offset + len(data)] != data for offset, data in parts.items())
    }


def _assert_agrees(
    oracle: Oracle, running: RunningScenario, held: PageRuns, laid: Laid, absent: bytes | None
) -> set[int]:
    """Every page of the machine, as this reader sees it; the frames in which it sees what was laid over memory."""
    pristine = running.pristine
    assert list(oracle.pages()) == list(held.pages())
    changed: set[int] = set()
    for pfn in range(pristine.runs.end_page + _BEYOND):
        seen, truth = oracle.read_page(pfn), pristine.read_page(pfn)
        if pfn not in held:
            assert seen is None, f"there is no page {pfn:#x} in the file"
        elif truth is None:
            assert seen == absent, f"page {pfn:#x} could not be read"
        elif seen != truth:
            assert seen is not None
            changed.add(pfn)
            expected = bytearray(truth)
            for offset, data in laid.get(pfn, {}).items():
                assert seen[offset : offset + len(data)] == data
                expected[offset : offset + len(data)] = data
            assert seen == expected, f"page {pfn:#x} differs where nothing was laid over it"
    return changed


async def _brought_home(way: SimTransport, folder: Path) -> kdbridge.Snapshot:
    async with kdbridge.open(way.url, transport=way) as target:
        return await target.snapshot(folder, complete_plan)


async def _made(snapshot: kdbridge.Snapshot, folder: Path, kind: DumpKind, layout: DumpLayoutChoice) -> DumpType:
    made = await kdbridge.render(snapshot, snapshot.target, folder / f"{kind}-{layout}", kind=kind, layout=layout)
    assert made.missing == 0 and made.shortcomings == ()
    return made.dump_type


_COMPLETE, _KERNEL = DumpKind.COMPLETE, DumpKind.KERNEL
_AUTO, _BITMAP = DumpLayoutChoice.AUTO, DumpLayoutChoice.BITMAP


@pytest.mark.parametrize(
    ("scenario", "options", "first"),
    [
        ("bugcheck", {"processors": "1", "memory": "40M", "content": "32M"}, DumpType.FULL),
        ("bugcheck", {"processors": "4", "memory": "24M", "unreadable": "9"}, DumpType.FULL),
        ("many-runs", {"processors": "4", "memory": "24M"}, DumpType.BITMAP_FULL),
        ("encoded-kdbg", {"processors": "1", "memory": "20M"}, DumpType.FULL),
        ("encoded-kdbg", {"processors": "4", "memory": "20M", "seed": "7"}, DumpType.FULL),
    ],
    ids=["bugcheck-1", "bugcheck-4-unreadable", "many-runs-4", "encoded-kdbg-1", "encoded-kdbg-4"],
)
async def test_every_page_is_what_the_machine_held(
    scenario: str,
    options: dict[str, str],
    first: DumpType,
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
) -> None:
    way = open_sim(f"sim:{scenario}", scenario, options)
    kernel, laid = way.running.kernel, _laid_over(way.running)
    differing = _differing(way.running, laid)
    assert differing, "memory holds all of it already: nothing would be shown"
    readable = kernel.image.runs - PageRuns.from_pages(kernel.image.unreadable)
    asked = 0
    with await _brought_home(way, tmp_path / "snapshot") as snapshot:
        assert snapshot.held == readable
        assert snapshot.unreadable == PageRuns.from_pages(kernel.image.unreadable)
        for kind, layout, expected in (
            (_COMPLETE, _AUTO, first),
            (_COMPLETE, _BITMAP, DumpType.BITMAP_FULL),
            (_KERNEL, _AUTO, DumpType.BITMAP_KERNEL),
        ):
            dump_type = await _made(snapshot, tmp_path, kind, layout)
            assert dump_type == expected
            path = tmp_path / f"{kind}-{layout}"
            for opener in _READERS[dump_type]:
                if opener is leechcore.open_oracle and path.stat().st_size < leechcore.LEAST_FILE_SIZE:
                    assert kind is _KERNEL
                    continue
                with opener(path) as oracle:
                    held = kernel.image.runs if dump_type is DumpType.FULL else readable
                    if kind is _KERNEL:
                        held = PageRuns.from_pages(oracle.pages())
                        assert not (_of_the_kernel(kernel) - held), "a page that the kernel maps is not there"
                        assert not (held - readable)
                    absent = UNREADABLE_PAGE if dump_type is DumpType.FULL else None
                    assert _assert_agrees(oracle, way.running, held, laid, absent) == differing
                    asked += 1
    assert asked == (8 if options.get("content") else 7)
