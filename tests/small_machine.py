"""A machine small enough to be laid out by hand: some pages of seeded bytes, mapped at one kernel address."""

from __future__ import annotations

import random
from collections.abc import Iterable

from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.arch import AMD64
from protocol.layouts.version import GetVersion64
from protocol.state_change import ExceptionChange, StateChange
from simulator.image import MemoryImage
from simulator.machine import Behaviour, Machine, VirtualProcessor
from simulator.target import Activity, KdTarget
from tests.wire import Line, target_link

__all__ = [
    "KERNEL",
    "PC",
    "PHYSICAL_SIZE",
    "SIZE",
    "content",
    "small_machine",
    "stopped_line",
    "stopped_target",
    "version_of_19041",
]

KERNEL = 0xFFFFF800_00000000
"""Virtual address of physical address 0."""

SIZE = 64 * PAGE_SIZE
"""Bytes mapped at KERNEL."""

PHYSICAL_SIZE = SIZE
PC = KERNEL + 0x2000
"""Where processors stand."""


def version_of_19041() -> GetVersion64:
    return GetVersion64(0xF, 19041, 6, 2, 0x47, 0x8664, 12, 3, 0x31, 0, KERNEL, KERNEL + 0x3000, KERNEL + 0x4000)


def content(seed: int = 1) -> bytes:
    """What memory holds: a witness outside the machine. No byte at PC or behind it is an int3."""
    data = bytearray(random.Random(seed).randbytes(SIZE))
    data[0x2000:0x2020] = b"\x90" * 32
    return bytes(data)


def small_machine(
    *, processors: int = 1, holes: Iterable[int] = (), behaviour: Behaviour | None = None, seed: int = 1
) -> Machine:
    """`holes` are pages (counted from KERNEL) that neither virtual nor physical addresses reach."""
    image = MemoryImage(PageRuns([PageRun(0, SIZE // PAGE_SIZE)]))
    image.write(0, content(seed))
    gone = set(holes)
    image.unreadable |= gone

    def translate(root: int, address: int) -> int | None:
        physical = address - KERNEL
        return physical if 0 <= physical < SIZE and physical // PAGE_SIZE not in gone else None

    made = [
        VirtualProcessor(
            number,
            AMD64.context.encode(
                {
                    "context_flags": 0x10001F, "rip": PC + number * 0x20, "rsp": KERNEL + 0x8000, "e_flags": 0x246,
                    "seg_cs": 0x10, "seg_ss": 0x18, "seg_ds": 0x2B, "seg_es": 0x2B, "seg_fs": 0x53, "seg_gs": 0x2B,
                    "rax": number,
                }
            ),
            AMD64.special_registers.encode({"cr0": 0x80050033, "cr3": 0x1AA000, "cr4": 0x6F8, "kernel_dr7": 0x400}),
            KERNEL + 0x10000 + number * 0x1000,
            KERNEL + 0x10180 + number * 0x1000,
            KERNEL + 0x20000 + number * 0x1000,
        )
        for number in range(processors)
    ]  # fmt: skip
    return Machine(image, translate, version_of_19041(), made, behaviour or Behaviour())


def stopped_target(machine: Machine | None = None) -> KdTarget:
    """A target whose debugger acknowledged its state change and went away: silent, waiting for a request."""
    target = KdTarget(machine or small_machine(), target_link())
    target.begin(Activity.WAITING, target.make_change(ExceptionChange(0x80000003, 0, 0, PC, (0,), True)), 0.0)
    # Its state change was acknowledged long ago: ids without SYNC.
    return target


def stopped_line(machine: Machine | None = None) -> Line:
    """A debugger that has taken over a stopped target: both ends' counters agree, nothing is under way."""
    line = Line(stopped_target(machine))
    line.host.send_reset(line.now)
    line.run(5.0, lambda: line.host.change is not None)
    line.settle()
    assert isinstance(line.host.change, StateChange)
    line.events.clear()
    line.sent_by_host.clear()
    line.sent_by_target.clear()
    return line
