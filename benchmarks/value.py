"""What a dump that was cut off can show, by how much was read: our order against memory in ascending order."""

from __future__ import annotations

import os
import random
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import trio
import trio.testing

from kdbridge.budget import Budget
from kdbridge.dump import DumpKind, render
from kdbridge.opening import open_target
from kdbridge.plan import Plan, PlannedPages, kernel_plan
from kdbridge.snapshot import Snapshot
from kdbridge.source import Source
from kdbridge.target import Target
from kdbridge.transports.sim import SimTransport, open_sim
from protocol.errors import KdError
from simulator.kernel import SimulatedKernel
from tests.referee import Kdexec, RefereeError, Transcript, parse, serving

from .curve import Curve, draw

__all__ = ["ITEMS", "value"]

ITEMS = ("bug check", "all registers", "the stopped stack", "modules", "all current stacks", "processes")
_MOMENTS = 20
_FIRST, _LAST = 16 << 10, 6 << 20
_PICTURE = Path("docs/value-curve.svg")


async def _ascending(source: Source, target: Target) -> AsyncIterator[PlannedPages]:
    if target.runs is not None:
        yield PlannedPages(target.runs, "memory, ascending", target.runs.page_count)


async def _cut_off(way: SimTransport, plan: Plan, folder: Path, moments: list[int]) -> list[Path | None]:
    """One capture, and the file that could be written at each of these moments (in bytes read)."""
    files: list[Path | None] = []
    async with open_target(way.url, transport=way) as target:
        found = await target.discover()
        with Snapshot.create(folder / "snapshot", found) as snapshot:
            for number, moment in enumerate(moments):
                held = snapshot.held.page_count * 4096
                await target.fill(snapshot, plan, budget=Budget(size=max(moment - held, 1)))
                path = folder / f"{number}.dmp"
                kind = DumpKind.best_of(snapshot.reached)
                if plan is _ascending:
                    kind = DumpKind.COMPLETE
                try:
                    await render(snapshot, found, path, kind=kind or DumpKind.SMALL, partial=True)
                except KdError:
                    files.append(None)
                else:
                    files.append(path)
    return files


def _seen(kdexec: Kdexec, path: Path | None, kernel: SimulatedKernel) -> set[str]:
    """Which of ITEMS Microsoft's engine shows as the machine's own truth has them."""
    if path is None:
        return set()
    processors = kernel.processors
    head = kernel.symbols["PsActiveProcessHead"]
    words = [".bugcheck", "lm", f"dl {head:x} 10 2"]
    words += [
        command
        for one in processors
        for command in (f"~{one.number}s", f"r;.echo {one.number}", f"k;.echo {one.number}")
    ]
    try:
        answers = parse(kdexec("-z", path, *words))
    except RefereeError:
        return set()
    right = {one.number: _right_registers(answers, one.number, one.context_values["rip"]) for one in processors}
    stacks = {
        one.number: _right_stack(answers, one.number, [frame.return_address for frame in one.frames])
        for one in processors
    }
    links = [process.address + kernel.profile.eprocess.active_process_links for process in kernel.processes]
    shown = _text(answers, f"dl {head:x} 10 2").replace("`", "").lower()
    lines = _text(answers, "lm")
    found = {
        "bug check": f"{kernel.bug_check[0]:X}" in _text(answers, ".bugcheck").upper(),
        "all registers": all(right.values()),
        "the stopped stack": stacks[kernel.stopped_processor],
        "modules": all(f"{module.base:016x}" in lines.replace("`", "") for module in kernel.modules),
        "all current stacks": all(stacks.values()),
        "processes": all(f"{link:016x}" in shown for link in links),
    }
    return {name for name, there in found.items() if there}


def _text(answers: Transcript, command: str) -> str:
    try:
        return answers[command].text
    except RefereeError:
        return ""


def _right_registers(answers: Transcript, number: int, rip: int) -> bool:
    found = re.search(r"rip=([0-9a-f]{16})", _text(answers, f"r;.echo {number}"))
    return found is not None and int(found[1], 16) == rip


def _right_stack(answers: Transcript, number: int, returns: list[int]) -> bool:
    """Whether every return address of the true call chain is in what `k` prints, in order."""
    rows = re.findall(
        r"^[0-9a-f]{8}`[0-9a-f]{8} ([0-9a-f]{8}`[0-9a-f]{8})", _text(answers, f"k;.echo {number}"), re.MULTILINE
    )
    shown = [int(row.replace("`", ""), 16) for row in rows]
    wanted = [address for address in returns if address]
    return shown[: len(wanted)] == wanted


def value() -> None:
    """The table and the picture. Without Microsoft's engine: a reason."""
    tool = Path(os.environ.get("KDBRIDGE_SHARED", "../shared")) / "windbg" / "kdexec"
    if not tool.exists():
        print(f"value curve: not made, {tool} is not here", flush=True)
        return
    kdexec = Kdexec(tool)
    draw_from = random.Random(6)
    moments = sorted(int(_FIRST * (_LAST / _FIRST) ** draw_from.random()) for _ in range(_MOMENTS))
    curves: list[Curve] = []
    for name, plan in (("kdbridge", kernel_plan), ("ascending", _ascending)):
        with tempfile.TemporaryDirectory() as folder:
            way = open_sim("sim:bugcheck", "bugcheck", {"memory": "32M", "processors": "4", "baud": "115200"})
            kernel = way.running.kernel
            files = trio.run(
                _cut_off, way, plan, Path(folder), moments, clock=trio.testing.MockClock(autojump_threshold=0)
            )
            with serving():
                seen = [_seen(kdexec, path, kernel) for path in files]
        for moment, items in zip(moments, seen, strict=True):
            lacking = ", ".join(item for item in ITEMS if item not in items) or "nothing"
            print(
                f"value, {name}: {moment >> 10:6} KiB read: {len(items)} of {len(ITEMS)}; lacking: {lacking}",
                flush=True,
            )
        curves.append(Curve(name, [(moment, len(items)) for moment, items in zip(moments, seen, strict=True)]))
    _PICTURE.write_text(draw(curves, len(ITEMS), "bytes read", "of six things, how many WinDbg's engine shows"))
    print(f"value curve drawn into {_PICTURE}", flush=True)
