"""Proof that a machine is the one a Snapshot was taken of, and still in the same stop.

Everything that a restart or a continue changes is compared with what was read before: who it is, the KDBG, the times,
the bug check, where and with which registers it stopped, and a sample of the pages that were brought home.
"""

from __future__ import annotations

import random
from contextlib import aclosing
from dataclasses import dataclass

from protocol.address import PageRun, PageRuns, format_address
from protocol.arch import Architecture

from .discovery import look_again
from .errors import TargetRefusedError
from .snapshot import Snapshot
from .source import PhysicalMemory, Source, require_architecture
from .target import Target

__all__ = ["Proof", "prove_same_stop"]

_SAMPLE = 16
_MAY_DIFFER = 0.25
"""Of the sampled pages: in some lie the counters and buffers of the target's own debugger."""
_SECOND = 10_000_000  # of 100 ns
_GONE = "cannot be read any more"


@dataclass(frozen=True, slots=True)
class Proof:
    """What was compared, and what is not as it was."""

    compared: tuple[str, ...]
    differences: tuple[str, ...]
    pages: int
    """Pages that were read again for it."""

    @property
    def same(self) -> bool:
        """Whether it is the same machine in the same stop."""
        return not self.differences


class _Comparison:
    def __init__(self) -> None:
        self.compared: list[str] = []
        self.differences: list[str] = []

    def add(self, what: str, same: bool, difference: str) -> None:
        self.compared.append(what)
        if not same:
            self.differences.append(difference)

    def proof(self, pages: int = 0) -> Proof:
        return Proof(tuple(self.compared), tuple(self.differences), pages)


async def prove_same_stop(
    source: Source,
    physical: PhysicalMemory | None,
    snapshot: Snapshot,
    *,
    sample: int = _SAMPLE,
    seed: int | None = None,
) -> Proof:
    """Compare the machine with a Snapshot of it, by some KiB of reads and `sample` pages that are chosen at random.

    Raises what reading raises when the machine goes away meanwhile.
    """
    before = snapshot.target
    comparison = _Comparison()
    version = await source.version()
    comparison.add(
        "version",
        version == before.version,
        f"build {before.version.build}, kernel at {format_address(before.version.kern_base)}, became "
        f"build {version.build}, kernel at {format_address(version.kern_base)}",
    )
    if version != before.version:
        # Another kernel, or elsewhere: no address that could be compared means the same here.
        return comparison.proof()
    _compare_stop(source, before, comparison)
    await _compare_kernel(source, before, comparison)
    await _compare_registers(source, require_architecture(version.machine_type, source.name), before, comparison)
    pages = 0
    if physical is not None and sample:
        pages = await _compare_pages(physical, snapshot, sample, random.Random(seed), comparison)
    return comparison.proof(pages)


def _compare_stop(source: Source, before: Target, comparison: _Comparison) -> None:
    then, now = before.stop, source.stop
    if then is None or now is None:
        return
    same = (then.program_counter, then.thread, then.exception_code) == (
        now.program_counter, now.thread, now.exception_code,
    )  # fmt: skip
    comparison.add(
        "place of the stop", same,
        f"it stood at {format_address(then.program_counter)}, and now stands at {format_address(now.program_counter)}"
        + ("" if then.thread == now.thread else " in another thread"),
    )  # fmt: skip


async def _compare_kernel(source: Source, before: Target, comparison: _Comparison) -> None:
    again = await look_again(source, before)
    if before.kdbg is not None:
        same = again.kdbg is not None and again.kdbg.address == before.kdbg.address
        same = same and again.kdbg is not None and again.kdbg.block.raw == before.kdbg.block.raw
        comparison.add("KDBG", same, f"the KDBG {'is not what it was' if again.kdbg else _GONE}")
    then, now = before.shared_data, again.shared_data
    if then is not None:
        if now is None:
            comparison.add("times", False, f"KUSER_SHARED_DATA {_GONE}")
        else:
            boot = now.system_time - now.interrupt_time - then.system_time + then.interrupt_time
            same = abs(boot) < _SECOND
            comparison.add("boot time", same, "it was started at another time: the machine was restarted")
            ran = (now.interrupt_time - then.interrupt_time) / _SECOND
            if same:
                comparison.add("clock", ran == 0, f"its clock went on by {ran:,.3f} s: somebody let it continue")
    if before.bug_check_code is not None:
        data = again.bug_check
        became = _GONE if data is None else f"changed; it is of bug check {data[0]:#x} now"
        same = data == (before.bug_check_code, *before.bug_check_parameters)
        comparison.add("bug check", same, f"the data of bug check {before.bug_check_code:#x} {became}")


async def _compare_registers(
    source: Source, architecture: Architecture, before: Target, comparison: _Comparison
) -> None:
    stopped = before.stop.processor if before.stop is not None else 0
    known = next((p for p in before.processors if p.number == stopped), None)
    if known is None or known.context is None:
        return
    try:
        now = await source.context(stopped)
    except TargetRefusedError:
        return
    then = known.context
    changed = [name for line in architecture.display for name in line if then[name] != now[name]]
    shown = ", ".join(architecture.display_names.get(name, name) for name in changed[:4])
    comparison.add(
        f"registers of processor {stopped}", not changed,
        f"{len(changed)} registers of processor {stopped} are not what they were ({shown})",
    )  # fmt: skip


async def _compare_pages(
    physical: PhysicalMemory, snapshot: Snapshot, sample: int, rng: random.Random, comparison: _Comparison
) -> int:
    held = snapshot.held
    numbers = rng.sample(range(held.page_count), min(sample, held.page_count))
    runs = PageRuns(PageRun(_nth(held, number), 1) for number in numbers)
    pages = differing = 0
    async with aclosing(physical.read_pages(runs)) as reads:  # type: ignore[type-var]
        async for page in reads:
            pages += 1
            differing += page.data is None or bytes(page.data) != snapshot.page(page.pfn)
    if pages:
        comparison.add(
            f"{pages} of {held.page_count} pages read before", differing <= pages * _MAY_DIFFER,
            f"{differing} of {pages} pages that were read before hold something else now",
        )  # fmt: skip
    return pages


def _nth(runs: PageRuns, number: int) -> int:
    for run in runs:
        if number < run.page_count:
            return run.base_page + number
        number -= run.page_count
    raise IndexError(number)
