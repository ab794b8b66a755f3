"""Small dumps as sources, held against Windows' own file taken apart by hand, and against simulated machines."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from kdbridge.discovery import discover
from kdbridge.errors import DumpError, MemoryFault, TargetRefusedError
from kdbridge.memory.files import DumpFile
from protocol.address import VirtualAddress
from protocol.dumpfile.triage import encode_triage
from simulator.kernel import SimulatedKernel
from tests.simulator.dumped import header_of
from tests.simulator.small_dumped import SmallDumped, small_dumped, small_machine


@pytest.fixture(scope="module")
def kernel() -> SimulatedKernel:
    return small_machine()


@pytest.fixture(scope="module")
def made(kernel: SimulatedKernel) -> SmallDumped:
    return small_dumped(kernel)


def _open(folder: Path, data: bytes) -> DumpFile:
    path = folder / "small.dmp"
    path.write_bytes(data)
    return DumpFile(path)


def _blocks(data: bytes) -> list[tuple[int, int, int]]:
    """(address, file offset, size) of each data block, as dump-formats 4.1 says."""
    table, count = struct.unpack_from("<II", data, 0x2078)
    return list(struct.iter_unpack("<QII", data[table : table + 16 * count]))


def _at(data: bytes, address: int, size: int) -> bytes:
    """Bytes by address, out of the one block that has them."""
    (found,) = [
        data[offset + address - start : offset + address - start + size]
        for start, offset, length in _blocks(data)
        if start <= address and address + size <= start + length
    ]
    return found


async def test_registers_of_a_real_crash_are_those_in_its_blocks(shared: Path) -> None:
    path = shared / "data/dumps/triage_x64.dmp"
    data = path.read_bytes()
    (processor_block,) = struct.unpack_from("<Q", data, 0x104A8 + 0x218)
    with DumpFile(path) as dump:
        for number in range(16):
            # dump-formats 5: PrcbContext 85C0, ProcStateSpecialReg 100 in this build.
            prcb = int.from_bytes(_at(data, processor_block + 8 * number, 8), "little")
            place = int.from_bytes(_at(data, prcb + 0x85C0, 8), "little")
            context = await dump.context(number)
            assert context.raw == _at(data, place, len(context.raw)), number
            special = await dump.special_registers(number)
            assert special.raw == _at(data, prcb + 0x100, len(special.raw)), number
            assert special["cr3"] == 0x1AD000
        # dump-formats 4.2: the header's CONTEXT is where the exception was, in amdppm; WinDbg shows nt.
        assert (await dump.context(0))["rip"] == 0xFFFFF804_7BDF5A80
        assert int.from_bytes(data[0x348 + 0xF8 : 0x348 + 0x100], "little") == 0xFFFFF804_8B58334C
        with pytest.raises(TargetRefusedError, match="no registers of processor 16"):
            await dump.context(16)


async def test_every_block_of_a_real_crash_is_read_and_nothing_beside(shared: Path) -> None:
    path = shared / "data/dumps/triage_x64.dmp"
    data = path.read_bytes()
    blocks = _blocks(data)
    starts, ends = {start for start, _, _ in blocks}, {start + size for start, _, size in blocks}
    with DumpFile(path) as dump:
        covered = dict(dump.small.memory.ranges() if dump.small is not None else ())
        for start, offset, size in blocks:
            assert await dump.virtual.read(VirtualAddress(start), size) == data[offset : offset + size], hex(start)
        for end in sorted(ends - starts):
            known = any(start <= end < start + size for start, size in covered.items())
            if not known:
                with pytest.raises(MemoryFault) as caught:
                    await dump.virtual.read(VirtualAddress(end - 1), 2)
                assert (caught.value.address, caught.value.done) == (end, 1)


async def test_sections_lie_where_they_were(shared: Path) -> None:
    path = shared / "data/dumps/triage_x64.dmp"
    data = path.read_bytes()
    with DumpFile(path) as dump:
        assert dump.physical is None
        block = dump.layout.header.kd_debugger_data_block
        assert await dump.virtual.read(VirtualAddress(block), 0x380) == data[0x104A8 : 0x104A8 + 0x380]
        stack = VirtualAddress(0xFFFF8504_29890EE8)
        assert await dump.virtual.read(stack, 0x2118) == data[0xE390 : 0xE390 + 0x2118]
        # dump-formats 5: PRCB.CurrentThread 8, KTHREAD.ApcProcess B8.
        (thread,) = struct.unpack_from("<Q", data, 0x21B8 + 8)
        assert await dump.virtual.read(VirtualAddress(thread), 0x898) == data[0xDAF8 : 0xDAF8 + 0x898]
        (process,) = struct.unpack_from("<Q", data, 0xDAF8 + 0xB8)
        assert await dump.virtual.read(VirtualAddress(process), 0xA40) == data[0xD0B8 : 0xD0B8 + 0xA40]


@pytest.mark.parametrize("name", ["triage_x64", "dbgeng-written/triage_type4", "dbgeng-written/triage_type4_comment"])
async def test_the_list_of_drivers_is_the_module_list(shared: Path, name: str) -> None:
    path = shared / f"data/dumps/{name}.dmp"
    data = path.read_bytes()
    start, count = struct.unpack_from("<II", data, 0x2030)
    expected = []
    for at in range(start, start + 0x90 * count, 0x90):
        (string,) = struct.unpack_from("<I", data, at)
        (characters,) = struct.unpack_from("<I", data, string)
        base, _, size = struct.unpack_from("<QQQ", data, at + 0x38)
        expected.append((data[string + 4 : string + 4 + 2 * characters].decode("utf-16-le"), base, size))
    with DumpFile(path) as dump:
        target = await discover(dump)
    assert [(one.path, one.base, one.size) for one in target.modules] == expected
    assert target.modules[0].name == "ntoskrnl.exe"


async def test_a_simulated_machine_is_found_in_its_small_dump(
    kernel: SimulatedKernel, made: SmallDumped, tmp_path: Path
) -> None:
    with _open(tmp_path, made.data) as dump:
        target = await discover(dump)
    assert target.stop is not None and target.stop.processor == kernel.stopped_processor == 1
    for found, true in zip(target.processors, kernel.processors, strict=True):
        assert found.context is not None and found.special_registers is not None
        assert found.context.raw == true.context()
        assert found.prcb == true.prcb
        assert found.special_registers["cr3"] == true.special_values["cr3"]
    assert (target.bug_check_code, *target.bug_check_parameters) == kernel.bug_check
    assert target.build_lab == kernel.build_lab
    assert [(one.path, one.base) for one in target.modules] == [(one.path, one.base) for one in kernel.modules]
    assert [(one.name, one.start, one.end) for one in target.unloaded_modules] == [
        (one.name[:12], one.start, one.end) for one in kernel.unloaded_modules
    ]


def _written(kernel: SimulatedKernel, made: SmallDumped, **changes: object) -> bytes:
    return b"".join(encode_triage(header_of(kernel), replace(made.contents, **changes)))  # type: ignore[arg-type]


async def test_where_no_block_has_the_kprcb_its_section_is_read(
    kernel: SimulatedKernel, made: SmallDumped, tmp_path: Path
) -> None:
    stopped = kernel.processors[kernel.stopped_processor]
    blocks = tuple(block for block in made.blocks if block[0] != stopped.prcb)
    assert len(blocks) == len(made.blocks) - 1
    with _open(tmp_path, _written(kernel, made, blocks=blocks)) as dump:
        size = kernel.kdbg["size_prcb"]
        assert await dump.virtual.read(VirtualAddress(stopped.prcb), size) == made.contents.prcb
        assert (await dump.context(stopped.number)).raw == stopped.context()


async def test_a_block_is_believed_more_than_a_section(
    kernel: SimulatedKernel, made: SmallDumped, tmp_path: Path
) -> None:
    # WinDbg looks at the blocks alone: what the sections say there makes no difference (dump-formats 4.2).
    lies = {name: b"\xcc" * len(getattr(made.contents, name)) for name in ("prcb", "process", "thread")}
    with _open(tmp_path, _written(kernel, made, **lies)) as dump:
        for processor in kernel.processors:
            assert (await dump.context(processor.number)).raw == processor.context()
        for address, data in made.blocks:
            assert await dump.virtual.read(VirtualAddress(address), len(data)) == data


async def test_without_blocks_the_header_has_the_registers(
    kernel: SimulatedKernel, made: SmallDumped, tmp_path: Path
) -> None:
    with _open(tmp_path, _written(kernel, made, blocks=())) as dump:
        assert (await dump.context(0)).raw == kernel.processors[kernel.stopped_processor].context()
        with pytest.raises(TargetRefusedError):
            await dump.special_registers(0)
        target = await discover(dump)
    assert [one.base for one in target.modules] == [one.base for one in kernel.modules]
    assert (target.bug_check_code, *target.bug_check_parameters) == kernel.bug_check


async def test_without_a_kdbg_there_are_modules_and_the_registers_of_the_header(
    kernel: SimulatedKernel, made: SmallDumped, tmp_path: Path
) -> None:
    with _open(tmp_path, _written(kernel, made, debugger_data=b"\0" * 0x380)) as dump:
        target = await discover(dump)
        assert target.kdbg is None and len(target.modules) == len(kernel.modules)
        # Whose they are nobody can tell without a KDBG, and that is said.
        first, *others = [one.context for one in target.processors]
        assert first is not None and first.raw == kernel.processors[kernel.stopped_processor].context()
        assert others == [None, None]
        assert any("are the header's, which may be another's" in one.text for one in target.shortcomings)
        with pytest.raises(TargetRefusedError, match="no readable KDBG"):
            await dump.context(1)


@pytest.mark.parametrize("end", [0x2003, 0x207F])
def test_a_file_without_its_table_is_refused(made: SmallDumped, tmp_path: Path, end: int) -> None:
    with pytest.raises(DumpError, match="is not a dump that can be read"):
        _open(tmp_path, made.data[:end])


async def test_a_file_that_was_cut_off_gives_what_is_left(
    kernel: SimulatedKernel, made: SmallDumped, tmp_path: Path
) -> None:
    address, content = made.blocks[-1]
    data = made.data[: made.data.rindex(content) + 0x10]
    with _open(tmp_path, data) as dump:
        assert any("cut off" in text for text in dump.layout.shortcomings)
        with pytest.raises(MemoryFault) as caught:
            await dump.virtual.read(VirtualAddress(address), len(content))
        assert caught.value.done == 0x10
        assert (await dump.context(0)).raw == kernel.processors[0].context()
