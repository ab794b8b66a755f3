"""A small dump against what else there is of the same machine: every byte is compared, or it is said that none was."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdbridge.dump import Verified, verify
from kdbridge.errors import UsageError
from kdbridge.memory.files import DumpFile, RawImage
from protocol.address import PAGE_SIZE
from simulator.kernel import SimulatedKernel
from tests.dumps import place_in, rendered
from tests.simulator.dumped import dump_plan
from tests.simulator.small_dumped import small_dumped, small_machine


@dataclass(frozen=True)
class _Made:
    """One machine in two dumps, neither of them by the code under test."""

    kernel: SimulatedKernel
    small: Path
    complete: Path

    async def check(self) -> Verified:
        with DumpFile(self.small) as dump, DumpFile(self.complete) as complete:
            return await verify(dump, complete)

    def place(self, address: int) -> int:
        """Where the byte at this virtual address lies in the complete dump."""
        return place_in(self.complete, self.kernel.tables, address)


@pytest.fixture(scope="module")
def files() -> tuple[SimulatedKernel, bytes, bytes]:
    kernel = small_machine()
    return kernel, small_dumped(kernel).data, rendered(*dump_plan(kernel, 1))


@pytest.fixture
def made(files: tuple[SimulatedKernel, bytes, bytes], tmp_path: Path) -> _Made:
    kernel, small, complete = files
    (tmp_path / "small.dmp").write_bytes(small)
    (tmp_path / "complete.dmp").write_bytes(complete)
    return _Made(kernel, tmp_path / "small.dmp", tmp_path / "complete.dmp")


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x5A
    path.write_bytes(data)


def _blocks(path: Path) -> list[tuple[int, int, int]]:
    """Address, file offset and size of each block (dump-formats 4.2)."""
    data = path.read_bytes()
    table, count = struct.unpack_from("<II", data, 0x2078)
    return [struct.unpack_from("<QII", data, table + 16 * number) for number in range(count)]


async def test_every_byte_is_compared_with_a_dump_of_pages(made: _Made) -> None:
    found = await made.check()
    assert (found.good, found.problems, found.compared) == (True, (), 0)
    assert found.compared_bytes >= sum(size for _, _, size in _blocks(made.small)) > 0x1000
    pieces = found.notes[0].partition(" pieces compared with ")
    assert pieces[0].startswith(f"{found.compared_bytes} of {found.compared_bytes} bytes in ")
    assert pieces[2] == str(made.complete)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(lambda kernel: kernel.processors[1].context_values["rsp"] + 0x10, id="stack"),
        pytest.param(lambda kernel: kernel.processors[2].context_address + 0x78, id="rax"),
        pytest.param(lambda kernel: kernel.symbols["KiProcessorBlock"] + 1, id="KiProcessorBlock"),
    ],
)
async def test_the_byte_that_differs_is_named(place: Callable[[SimulatedKernel], int], made: _Made) -> None:
    address = place(made.kernel)
    start, offset, _ = next(one for one in _blocks(made.small) if one[0] <= address < one[0] + one[2])
    _flip(made.small, offset + address - start)
    found = await made.check()
    assert not found.good
    assert f"the byte at {address:#x} is not the one that {made.complete} has" in found.problems


async def test_special_registers_are_the_target_s_own_and_counted(made: _Made) -> None:
    kernel = made.kernel
    place = kernel.processors[0].prcb + kernel.kdbg["offset_prcb_proc_state_special_reg"]
    _flip(made.complete, made.place(place) + 8)  # CR2, as memory held it before the stop
    found = await made.check()
    assert (found.good, found.problems) == (True, ())
    assert "1 bytes differ where registers or a decoded KDBG were laid over them" in found.notes


async def test_where_nothing_could_be_compared_nothing_is_called_good(made: _Made, shared: Path) -> None:
    stranger = shared / "data/dumps/dbgeng-written/triage_type4.dmp"
    with DumpFile(made.small) as dump, DumpFile(stranger) as other:
        found = await verify(dump, other)
    assert (found.good, found.compared_bytes) == (False, 0)
    assert found.problems == (f"{stranger} has none of the dump's memory: nothing was compared",)


async def test_witnesses_that_cannot_be_compared_with_are_refused(made: _Made, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(2 * PAGE_SIZE))
    with DumpFile(made.small) as small, DumpFile(made.complete) as complete, RawImage(tmp_path / "raw") as raw:
        with pytest.raises(UsageError, match=r"raw cannot be read by virtual address, as the small dump .*small\.dmp"):
            await verify(small, raw)
        with pytest.raises(UsageError, match=r"small\.dmp is a small dump, which has no pages: check that one"):
            await verify(complete, small)
