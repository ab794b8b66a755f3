"""kdbridge: take over a stopped Windows machine through its kernel debugger line, read it, bring home a dump.

async with kdbridge.open("serial:/dev/ttyUSB0?baud=115200") as target:
    found = await target.discover()
    registers = await target.context(0)
    memory = await target.virtual.read(kdbridge.VirtualAddress(0xFFFFF780_00000000), 64)
"""

from protocol.address import PhysicalAddress, VirtualAddress

from .dump import DumpKind, DumpLayoutChoice, render, verify
from .memory.files import DumpFile, RawImage
from .opening import OpenTarget
from .opening import open_target as open
from .plan import complete_plan, kernel_plan
from .snapshot import Snapshot

__all__ = [
    "DumpFile",
    "DumpKind",
    "DumpLayoutChoice",
    "OpenTarget",
    "PhysicalAddress",
    "RawImage",
    "Snapshot",
    "VirtualAddress",
    "complete_plan",
    "kernel_plan",
    "open",
    "render",
    "verify",
]
