"""Small dumps whose tables, lists and pieces lie: parsed, written again, opened, and served as a machine."""

from __future__ import annotations

import contextlib
import random
import zlib
from dataclasses import replace
from pathlib import Path

import trio

from kdbridge.dump import DumpKind, render
from kdbridge.dump.verify import verify
from kdbridge.errors import MemoryFault
from kdbridge.memory.files import DumpFile
from protocol.address import VirtualAddress
from protocol.dumpfile import parse_header
from protocol.dumpfile.triage import TriageLayout, encode_triage, parse_triage
from protocol.errors import KdError
from protocol.layouts.kdbg import KDDEBUGGER_DATA64
from simulator.errors import SimulationError
from simulator.from_file import machine_of_dump
from simulator.kernel import SimulatedKernel
from tests.dumps import reader
from tests.fuzz.driver import Target
from tests.fuzz.dumps import header_fields
from tests.fuzz.mutate import Field, hostile_number, mutated
from tests.simulator.small_dumped import contents_of, small_dumped, small_machine

__all__ = ["TRIAGE", "SmallDumps"]

_RENDERED_EVERY = 8
_LARGEST_READ = 1 << 16


class SmallDumps:
    """One small dump of a simulated machine, damaged. An input is the whole file."""

    def __init__(self, folder: Path) -> None:
        kernel = small_machine()
        made = small_dumped(kernel)
        self.data = made.data
        self.path = folder / "small.dmp"
        self.fields = _fields(kernel, made.data)
        self.known = [
            kernel.kdbg_address, *kernel.symbols.values(), *(one.prcb for one in kernel.processors),
            *(one.context_address for one in kernel.processors), *(address for address, _ in made.blocks),
            *(address + len(data) for address, data in made.blocks),
        ]  # fmt: skip

    def make(self, rng: random.Random) -> bytes:
        if not rng.randrange(6):
            return mutated(rng, self.data, self.fields, [self.data])
        raw = bytearray(self.data)
        for _ in range(1 + rng.randrange(4)):
            at, width = rng.choice(self.fields)
            known = width == 8 and rng.getrandbits(1)
            value = rng.choice(self.known) if known else hostile_number(rng, width, len(raw))
            raw[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
        return bytes(raw[: rng.randrange(0x2000, len(raw))] if not rng.randrange(10) else raw)

    def run(self, data: bytes) -> None:
        layout = parse_triage(reader(data), parse_header(data), len(data))
        _check(layout, data)
        with contextlib.suppress(SimulationError):
            target = machine_of_dump(reader(data), len(data)).target
            target.handle_timeout(0.0)
            assert target.data_to_send()
            for block in layout.blocks[:16]:
                there = target.machine.read_virtual(block.address, min(block.size, _LARGEST_READ))
                assert len(there) == min(block.size, _LARGEST_READ)
        self.path.write_bytes(data)
        with DumpFile(self.path) as dump:
            trio.run(self._look, dump, layout, zlib.crc32(data))

    async def _look(self, dump: DumpFile, layout: TriageLayout, chance: int) -> None:
        target = (await verify(dump)).target
        for block in layout.blocks[:16]:
            size = min(block.size, _LARGEST_READ)
            with contextlib.suppress(MemoryFault):  # where it reaches beyond the last address
                assert len(await dump.virtual.read(VirtualAddress(block.address), size)) == size
        if not chance % _RENDERED_EVERY:
            path = dump.path.with_name("out.dmp")
            made = await render(dump, target, path, kind=DumpKind.SMALL, partial=True, force=True)
            assert path.stat().st_size == made.size


def _fields(kernel: SimulatedKernel, data: bytes) -> list[Field]:
    """The numbers that lead somewhere, each kind of them about as often as any other."""
    layout = parse_triage(reader(data), parse_header(data), len(data))
    table, drivers = layout.fields["data_blocks_offset"], layout.fields["driver_list_offset"]
    unloaded = layout.fields["unloaded_drivers_offset"]
    block = layout.debugger_data.file_offset
    names = [int.from_bytes(data[drivers + 0x90 * n : drivers + 0x90 * n + 4], "little") for n in range(3)]
    groups: list[list[Field]] = [
        [field for field in header_fields(data) if field[0] < 0x2000],
        [(at, width) for width in (4, 8) for at in range(0x2000, 0x2080, width)],
        [(table + 16 * n + at, width) for n in range(len(layout.blocks)) for at, width in ((0, 8), (8, 4), (12, 4))],
        [(drivers + 0x90 * n + at, 4) for n in range(3) for at in (0, 0x38, 0x48, 0x50)] + [(at, 4) for at in names],
        [(unloaded, 8), (unloaded + 8, 2), (unloaded + 0x30, 8), (unloaded + 0x38, 8)],
        [
            (block + KDDEBUGGER_DATA64.offset_of(name), KDDEBUGGER_DATA64.size_of(name))
            for name in KDDEBUGGER_DATA64.fields
        ],
        [
            (section.file_offset + at, 8)
            for section in (layout.prcb, layout.thread)
            for at in (8, 0x24, 0x58, kernel.kdbg["offset_prcb_context"], kernel.kdbg["offset_kthread_apc_process"])
            if at + 8 <= section.size
        ],
        [(piece.file_offset, 8) for piece in layout.blocks],
    ]
    longest = max(map(len, groups))
    return [field for group in groups for field in group * (longest // len(group))]


def _check(layout: TriageLayout, data: bytes) -> None:
    """What was found lies in the file, is no more than the file, and can be written again."""
    sections = (layout.prcb, layout.process, layout.thread, layout.call_stack, layout.debugger_data)
    assert all(piece.file_offset + piece.size <= len(data) for piece in (*layout.blocks, *sections) if piece.size)
    assert sum(piece.size for piece in layout.blocks) <= len(data)

    contents = contents_of(layout, data)
    contents = replace(
        contents, prcb=contents.prcb or b"x", call_stack=contents.call_stack or b"x",
        debugger_data=contents.debugger_data or b"x",
    )  # fmt: skip
    header = parse_header(data)
    with contextlib.suppress(KdError):
        again = b"".join(encode_triage(header, contents))
        found = parse_triage(reader(again), parse_header(again), len(again))
        assert (found.drivers, found.unloaded) == (layout.drivers, layout.unloaded)
        assert [(one.address, one.size) for one in found.blocks] == [(one.address, one.size) for one in layout.blocks]


TRIAGE = (Target("triage", 40, SmallDumps),)
