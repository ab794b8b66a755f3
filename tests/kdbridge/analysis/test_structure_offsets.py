"""Offsets that a symbol file tells, where what the target itself proves is not enough; and a symbol file that lies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdbridge.analysis.analyst import Analyst
from kdbridge.analysis.images import image_identity
from kdbridge.analysis.model import Analysis, ProcessFact
from kdbridge.analysis.names import Names
from kdbridge.analysis.processes import process_facts
from kdbridge.analysis.reading import ReadOnce
from kdbridge.analysis.threads import current_thread, thread_facts
from kdbridge.discovery import discover
from kdbridge.symbols import pdb_symbols, symbol_path
from kdbridge.symbols.naming import PdbSymbols
from kdbridge.target import Module, Target
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from simulator.processes import SimulatedThread
from tests.kdbridge.simulated import SimulatedSource
from tests.kdbridge.symbols.of_a_kernel import Offsets, put_symbol_file, structures_of


def _machine(build: int = 19041, processors: int = 2, waiting: int = 2) -> SimulatedKernel:
    options = KernelOptions(
        build=build, processors=processors, memory_size=32 << 20, content_size=0, processes=5, waiting_threads=waiting
    )
    return build_kernel(options)


async def _known(kernel: SimulatedKernel) -> tuple[ReadOnce, Target]:
    source = ReadOnce(SimulatedSource(kernel))
    return source, await discover(source)


async def _symbols(source: ReadOnce, target: Target, offsets: Offsets, folder: Path) -> PdbSymbols:
    """A symbol file that is the kernel's own by GUID and age, with these structures."""
    kernel = next(one for one in target.modules if one.base == target.kernel_base)
    said = await image_identity(source, kernel)
    assert said is not None
    put_symbol_file(folder, said, offsets)

    async def identity(module: Module) -> tuple[str, str, int] | None:
        return await image_identity(source, module)

    return pdb_symbols(symbol_path(str(folder), {}), identity)


async def _names(source: ReadOnce, target: Target, offsets: Offsets, folder: Path) -> Names:
    return Names(target.modules, (await _symbols(source, target, offsets, folder),), target.kernel_base)


def _put(kernel: SimulatedKernel, address: int, data: bytes) -> None:
    physical = kernel.tables.translate(address)
    assert physical is not None
    kernel.image.write(physical, data)


def _pointer(kernel: SimulatedKernel, address: int, value: int) -> None:
    _put(kernel, address, value.to_bytes(8, "little"))


def _fact(kernel: SimulatedKernel, at: int = 0) -> ProcessFact:
    one = kernel.processes[at]
    return ProcessFact(one.address, one.process_id, None, one.name, one.directory_table_base)


def _own(kernel: SimulatedKernel, at: int = 0) -> list[SimulatedThread]:
    return [one for one in kernel.threads if one.process.address == kernel.processes[at].address]


def _break_lists_of_the_kernel(kernel: SimulatedKernel) -> None:
    for process in {one.process.address for one in kernel.threads}:  # the idle one is in no list of processes
        _pointer(kernel, process + kernel.profile.eprocess.thread_list_head, 0xFFFF_9000_DEAD_0000)


async def test_threads_that_no_guess_finds(tmp_path: Path) -> None:
    """The list in KPROCESS, the only one that is looked for without symbols, is destroyed; that in EPROCESS is not."""
    kernel = _machine()
    _break_lists_of_the_kernel(kernel)
    source, target = await _known(kernel)
    without = Names(target.modules, (), target.kernel_base)
    found, missing = await thread_facts(source, target, _fact(kernel), without, stacks=False)
    assert found == () and [one.what for one in missing] == ["threads"]
    names = await _names(source, target, structures_of(kernel), tmp_path)
    for at in range(3):
        found, missing = await thread_facts(source, target, _fact(kernel, at), names, stacks=False)
        assert [one.address for one in found] == [one.address for one in _own(kernel, at)]
        assert missing == () and None not in [one.thread_id for one in found]


async def test_an_empty_list_is_no_proof_that_there_are_none(tmp_path: Path) -> None:
    """Symbols that take KPROCESS.ProfileListHead, an empty list in most processes, for that of the threads."""
    kernel = _machine()
    source, target = await _known(kernel)
    lie = {"_KPROCESS": {"ThreadListHead": 0x18}, "_KTHREAD": {"ThreadListEntry": 0x18}}
    names = await _names(source, target, lie, tmp_path)
    found, missing = await thread_facts(source, target, _fact(kernel), names, stacks=False)
    assert [one.address for one in found] == [one.address for one in _own(kernel)] and missing == ()
    _break_lists_of_the_kernel(kernel)
    source, target = await _known(kernel)
    found, missing = await thread_facts(source, target, _fact(kernel), names, stacks=False)
    assert found == () and [one.why for one in missing] == ["where symbols say that they are, none is listed"]


async def test_a_whole_analysis_takes_them(tmp_path: Path) -> None:
    kernel = _machine()
    _break_lists_of_the_kernel(kernel)
    source, target = await _known(kernel)

    async def analysed(*offsets: Offsets) -> Analysis:
        symbols = [await _symbols(source, target, one, tmp_path) for one in offsets]
        return await Analyst(source, target, symbols=symbols).all()

    def threads(analysis: Analysis) -> list[int]:
        (current,) = [one for one in analysis.processes if analysis.stopped in one.current_on]
        return [thread.address for thread in current.threads]

    blind, seeing = await analysed(), await analysed(structures_of(kernel))
    assert threads(blind) == [] and "threads" in [one.what for one in blind.missing]
    home = next(one.process for one in kernel.threads if one.address == kernel.processors[0].thread)
    assert threads(seeing) == [one.address for one in kernel.threads if one.process.address == home.address]
    assert "threads" not in [one.what for one in seeing.missing]


async def test_the_id_of_a_thread_alone(tmp_path: Path) -> None:
    kernel = _machine(processors=1, waiting=0)
    source, target = await _known(kernel)
    names = await _names(source, target, structures_of(kernel), tmp_path)
    thread = kernel.processors[0].thread
    raw = kernel.read_virtual(thread + kernel.profile.kthread.client_id + 8, 8)
    found, missing = await current_thread(source, target, 0, names)
    assert found is not None and raw is not None
    assert (found.thread_id, missing) == (int.from_bytes(raw, "little"), ())


async def test_names_that_may_lie_at_two_places(tmp_path: Path) -> None:
    kernel = _machine()
    for process in kernel.processes:
        # Where nothing else is, behind the real one.
        other = process.address + kernel.profile.eprocess.image_file_name + 0x100
        _put(kernel, other, (b"System" if process.process_id == 4 else b"other.exe").ljust(15, b"\0"))
    source, target = await _known(kernel)
    _, missing = await process_facts(source, target)
    assert [one.why for one in missing] == ["they may lie at any of 2 places in an EPROCESS"]
    names = await _names(source, target, structures_of(kernel), tmp_path)
    found, missing = await process_facts(source, target, names=names)
    assert [one.name for one in found] == [one.name for one in kernel.processes] and missing == ()


async def test_processes_of_which_the_first_does_not_look_like_one(tmp_path: Path) -> None:
    kernel = _machine()
    _put(kernel, kernel.processes[0].address + 1, b"\2")  # DISPATCHER_HEADER.Signalling
    source, target = await _known(kernel)
    assert (await process_facts(source, target))[0] == ()
    names = await _names(source, target, structures_of(kernel), tmp_path)
    found, missing = await process_facts(source, target, names=names)
    assert [(one.address, one.process_id, one.name) for one in found] == [
        (one.address, one.process_id, one.name) for one in kernel.processes
    ]
    assert missing == ()


async def test_a_thread_that_is_attached_to_another_process(tmp_path: Path) -> None:
    kernel = _machine()
    attached = _own(kernel)[-2].address
    _pointer(kernel, attached + kernel.profile.kthread.apc_process, kernel.processes[1].address)
    source, target = await _known(kernel)
    without = Names(target.modules, (), target.kernel_base)
    found, missing = await thread_facts(source, target, _fact(kernel), without, stacks=False)
    assert attached not in [one.address for one in found] and "threads of process 4" in [one.what for one in missing]
    names = await _names(source, target, structures_of(kernel), tmp_path)
    found, missing = await thread_facts(source, target, _fact(kernel), names, stacks=False)
    assert [one.address for one in found] == [one.address for one in _own(kernel)] and missing == ()


async def test_what_a_thread_waits_for_where_the_kdbg_does_not_tell(tmp_path: Path) -> None:
    kernel = _machine(build=7601)
    source, target = await _known(kernel)
    names = await _names(source, target, structures_of(kernel), tmp_path)
    found, _ = await thread_facts(source, target, _fact(kernel), names, stacks=False)
    waiting = [one for one in found if one.state.startswith("waiting")]
    assert waiting and all(one.state.endswith(")") for one in waiting)


async def test_parents_where_the_kdbg_does_not_tell(tmp_path: Path) -> None:
    kernel = _machine()
    source, target = await _known(kernel)
    parents = [one.parent_id for one in (await process_facts(source, target))[0]]
    blind = _without(target, "offset_eprocess_parent_cid")
    names = await _names(source, target, structures_of(kernel), tmp_path)
    found, missing = await process_facts(source, blind, names=names)
    assert [one.parent_id for one in found] == parents and missing == ()
    offset = kernel.profile.eprocess.parent_cid
    for lie in (offset + 0x80, kernel.profile.eprocess.unique_process_id, kernel.profile.eprocess.image_file_name):
        names = await _names(source, target, {"_EPROCESS": {"InheritedFromUniqueProcessId": lie}}, tmp_path)
        found, (missing_one,) = await process_facts(source, blind, names=names)
        assert {one.parent_id for one in found} == {None} and missing_one.what == "parents of processes"


def _without(target: Target, field: str) -> Target:
    """The same machine, of which the KDBG does not tell this."""
    assert target.kdbg is not None
    block = replace(target.kdbg.block, values={**target.kdbg.block.values, field: 0})
    return replace(target, kdbg=replace(target.kdbg, block=block))


@pytest.mark.parametrize("build", [19041, 7601])
@pytest.mark.parametrize("shift", [8, 0x18, -0x10, -0x18, 0x4000])
async def test_symbols_that_lie_change_nothing(build: int, shift: int, tmp_path: Path) -> None:
    kernel = _machine(build)
    lies = {
        name: {field: max(offset + shift, 0) for field, offset in fields.items()}
        for name, fields in structures_of(kernel).items()
    }
    source, target = await _known(kernel)
    without = Names(target.modules, (), target.kernel_base)
    names = await _names(source, target, lies, tmp_path)
    assert await names.structure_offset("_ETHREAD", "Cid") == kernel.profile.kthread.client_id + shift
    assert await process_facts(source, target, names=names) == await process_facts(source, target)
    assert await current_thread(source, target, 0, names) == await current_thread(source, target, 0, without)
    for at in range(3):
        told = await thread_facts(source, target, _fact(kernel, at), names, stacks=False)
        assert told == await thread_facts(source, target, _fact(kernel, at), without, stacks=False)
        assert told[0]
