"""Small dumps: every byte is the machine's, registers are always there, and a check finds what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdbridge.dump import DumpKind, render, verify
from kdbridge.errors import DumpError
from kdbridge.memory.files import DumpFile
from kdbridge.plan import kernel_plan, small_plan
from kdbridge.snapshot import Snapshot
from protocol.address import VirtualAddress
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.captured import capture

_SMALL = KernelOptions(memory_size=16 << 20)


@pytest.fixture
def kernel() -> SimulatedKernel:
    return build_kernel(_SMALL)


async def _made(folder: Path, kernel: SimulatedKernel) -> tuple[Snapshot, Path]:
    snapshot = await capture(folder / "snapshot", kernel, small_plan)
    out = folder / "small.dmp"
    made = await render(snapshot, snapshot.target, out, kind=DumpKind.SMALL)
    assert (made.missing, made.shortcomings) == (0, ())
    return snapshot, out


def _registers(kernel: SimulatedKernel) -> list[tuple[int, int]]:
    """Where CONTEXTs lie: what the target's debugger gives of them need not be what memory holds."""
    return [(processor.context_address, processor.context_address + 0x4D0) for processor in kernel.processors]


async def test_every_piece_is_the_memory_of_the_machine(tmp_path: Path, kernel: SimulatedKernel) -> None:
    _, out = await _made(tmp_path, kernel)
    with DumpFile(out) as dump:
        assert dump.small is not None
        total = 0
        for start, size in dump.small.memory.ranges():
            data = await dump.virtual.read(VirtualAddress(start), size)
            truth = kernel.read_virtual(start, size)
            assert truth is not None, f"{start:#x}"
            wrong = [start + at for at in range(size) if data[at] != truth[at]]
            assert all(any(low <= at < high for low, high in _registers(kernel)) for at in wrong), f"{wrong[0]:#x}"
            total += size
        assert total > 200 << 10
        for processor in kernel.processors:
            assert (await dump.context(processor.number)).raw[:0x4D0] == processor.context()


async def test_a_check_finds_the_byte_that_is_wrong(tmp_path: Path, kernel: SimulatedKernel) -> None:
    snapshot, out = await _made(tmp_path, kernel)
    with DumpFile(out) as dump:
        checked = await verify(dump, snapshot)
        assert checked.good and "pieces compared" in checked.notes[0]
        assert dump.small is not None
        stack = kernel.processors[kernel.stopped_processor].context_values["rsp"]
        block = next(one for one in dump.small.layout.blocks if one.address <= stack + 16 < one.address + one.size)
    data = bytearray(out.read_bytes())
    data[block.file_offset + stack + 16 - block.address] ^= 1
    out.write_bytes(data)
    with DumpFile(out) as dump:
        checked = await verify(dump, snapshot)
    assert checked.problems == (f"the byte at {stack + 16:#x} is not what was read",)


async def test_before_a_page_is_read_there_are_registers_modules_and_the_bug_check(
    tmp_path: Path, kernel: SimulatedKernel
) -> None:
    full = await capture(tmp_path / "full", kernel, small_plan)
    out = tmp_path / "nothing.dmp"
    with Snapshot.create(tmp_path / "empty", full.target) as empty:
        with pytest.raises(DumpError, match="--partial writes what there is"):
            await render(empty, empty.target, out, kind=DumpKind.SMALL)
        made = await render(empty, empty.target, out, kind=DumpKind.SMALL, partial=True)
    assert made.missing > 0
    with DumpFile(out) as dump:
        assert (dump.layout.header.comment or "").startswith("PARTIAL: ")
        for processor in kernel.processors:
            assert (await dump.context(processor.number)).raw[:0x4D0] == processor.context()
        checked = await verify(dump)
    assert [module.base for module in checked.target.modules] == [module.base for module in kernel.modules]
    assert checked.target.bug_check_code == kernel.bug_check[0]


async def test_it_is_made_of_a_larger_dump_too(tmp_path: Path, kernel: SimulatedKernel) -> None:
    big = await capture(tmp_path / "big", kernel, kernel_plan)
    await render(big, big.target, tmp_path / "kernel.dmp", kind=DumpKind.KERNEL)
    _, direct = await _made(tmp_path, kernel)
    with DumpFile(tmp_path / "kernel.dmp") as dump:
        out = tmp_path / "converted.dmp"
        await render(dump, big.target, out, kind=DumpKind.SMALL)
    with DumpFile(out) as converted, DumpFile(direct) as small:
        assert converted.small is not None and small.small is not None
        for start, size in small.small.memory.ranges():
            data = await small.virtual.read(VirtualAddress(start), size)
            assert await converted.virtual.read(VirtualAddress(start), size) == data
        assert converted.small.modules == small.small.modules


async def test_a_machine_without_registers_is_named(tmp_path: Path, kernel: SimulatedKernel) -> None:
    snapshot = await capture(tmp_path / "snapshot", kernel, small_plan)
    mute = tuple(replace(processor, context=None) for processor in snapshot.target.processors)
    made = await render(snapshot, replace(snapshot.target, processors=mute), tmp_path / "x.dmp", kind=DumpKind.SMALL)
    assert made.shortcomings == tuple(f"registers of processor {one.number}" for one in mute)
