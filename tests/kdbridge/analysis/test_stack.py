"""Stacks are those that the simulator made: exact where unwind data are there, guesses that say so elsewhere."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import trio.testing

import kdbridge
from kdbridge.analysis.model import Stack, Trust
from kdbridge.analysis.names import Names
from kdbridge.analysis.reading import ReadOnce
from kdbridge.analysis.stack import walk
from kdbridge.discovery import discover
from kdbridge.memory.files import DumpFile
from kdbridge.plan import small_plan
from kdbridge.target import Target
from kdbridge.transports.sim import open_sim
from protocol.arch import AMD64
from simulator.call_chains import plan_chain
from simulator.kernel import KernelOptions, SimulatedKernel, StopKind, build_kernel
from simulator.scenarios import SCENARIOS, ScenarioOptions, start
from tests.kdbridge.poking import poke_pointer, unmap
from tests.kdbridge.simulated import SimulatedSource

_STOPS: tuple[StopKind, ...] = ("bugcheck-first", "bugcheck-final", "breakpoint", "running")
_CHAINS = 25


@functools.lru_cache
def _machine(stop: StopKind = "bugcheck-final", build: int = 19041, chains: int | None = None) -> SimulatedKernel:
    processors = 5 if chains is None else _CHAINS + 1
    size = 32 << 20 if chains is None else 64 << 20
    return build_kernel(
        KernelOptions(processors=processors, memory_size=size, stop=stop, build=build, call_chains=chains)
    )


def _fresh(**options: object) -> SimulatedKernel:
    """One that may be broken."""
    return build_kernel(replace(KernelOptions(processors=2, memory_size=32 << 20), **options))  # type: ignore[arg-type]


async def _look(kernel: SimulatedKernel) -> tuple[ReadOnce, Target, Names]:
    target = await discover(SimulatedSource(kernel))
    return ReadOnce(SimulatedSource(kernel)), target, Names(target.modules, kernel=kernel.kernel_base)


async def _stack(kernel: SimulatedKernel, number: int, **more: object) -> Stack:
    source, target, names = await _look(kernel)
    context = target.processors[number].context
    assert context is not None
    return await walk(source, target, names, context, processor=number, **more)  # type: ignore[arg-type]


def _lines(stack: Stack) -> list[tuple[int, int, int]]:
    return [(frame.stack_pointer, frame.return_address, frame.instruction) for frame in stack.frames]


def _told(kernel: SimulatedKernel, number: int) -> list[tuple[int, int, int]]:
    frames = kernel.processors[number].frames
    return [(frame.stack_pointer, frame.return_address, frame.instruction) for frame in frames]


@pytest.mark.parametrize(("stop", "build"), [*itertools.product(_STOPS, (19041,)), ("running", 3790)])
async def test_every_processor_s_stack_is_what_the_machine_s_maker_tells(stop: StopKind, build: int) -> None:
    kernel = _machine(stop, build)
    source, target, names = await _look(kernel)
    for number, processor in enumerate(target.processors):
        assert processor.context is not None
        stack = await walk(source, target, names, processor.context, processor=number)
        assert _lines(stack) == _told(kernel, number)
        assert stack.whole and not any(frame.trust.guessed for frame in stack.frames)
        user = kernel.processors[number].frames[-1].return_address
        assert stack.ended.startswith("user mode at" if user else "the thread's first call")
        assert [str(frame.place).partition("+")[0] for frame in stack.frames] == [
            frame.function.partition("!")[0] for frame in kernel.processors[number].frames
        ]
    assert source.bytes_read < 8 << 10, "all of them together"


@pytest.mark.parametrize("seed", [1, 2])
async def test_fifty_random_call_chains_are_exact(seed: int) -> None:
    """Each unwind operation, parts of functions, epilogs, interrupts across stacks: see tests/simulator."""
    kernel = _machine(chains=seed)
    source, target, names = await _look(kernel)
    frames = 0
    for number in range(1, _CHAINS + 1):
        context = target.processors[number].context
        assert context is not None
        stack = await walk(source, target, names, context, processor=number)
        assert _lines(stack) == _told(kernel, number), f"chain {number}"
        assert stack.whole and not any(frame.trust.guessed for frame in stack.frames)
        links = plan_chain(seed, number).links[::-1]
        for below, frame in zip(links, stack.frames[1:], strict=False):
            by_processor = frame.trust is Trust.MACHINE_FRAME
            assert by_processor == below.interrupts == ("frame at" in frame.note)
            assert (frame.trust is Trust.LEAF) == ("leaf" in below.routine.uses)
        for below, above, frame in zip(links, links[1:], stack.frames[1:], strict=False):
            assert ("on another stack" in frame.note) == (below.stack != above.stack)
        frames += len(stack.frames)
    assert frames > 150


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_every_scenario_s_stacks_are_exact_and_cheap(scenario: str) -> None:
    kernel = start(scenario, ScenarioOptions(memory_size=32 << 20)).kernel
    _, target, names = await _look(kernel)
    for number, processor in enumerate(target.processors):
        assert processor.context is not None
        source = ReadOnce(SimulatedSource(kernel))
        stack = await walk(source, target, names, processor.context, processor=number)
        assert _lines(stack) == _told(kernel, number) and stack.whole
        assert source.bytes_read < 4 << 10, "64 KiB are allowed"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
async def test_and_so_are_250_more(seed: int) -> None:
    kernel = build_kernel(KernelOptions(processors=_CHAINS + 1, memory_size=64 << 20, call_chains=seed))
    for number in range(1, _CHAINS + 1):
        assert _lines(await _stack(kernel, number)) == _told(kernel, number), f"chain {number}"


async def test_a_trap_frame_is_where_the_note_says() -> None:
    kernel = _machine("bugcheck-final")
    stack = await _stack(kernel, kernel.stopped_processor)
    (interrupted,) = [frame for frame in stack.frames if frame.trust is Trust.MACHINE_FRAME]
    address = int(interrupted.note.removeprefix("trap frame at ").replace("`", ""), 16)
    words = kernel.read_virtual(address, 0x190)
    assert words is not None
    assert int.from_bytes(words[0xD0:0xD8], "little") == kernel.bug_check[1], "KTRAP_FRAME.FaultAddress"
    assert int.from_bytes(words[0x168:0x170], "little") == interrupted.instruction == kernel.bug_check[4]
    assert int.from_bytes(words[0x180:0x188], "little") == interrupted.stack_pointer


@pytest.mark.parametrize("scenario", ["bugcheck", "running"])
def test_a_live_machine_is_asked_for_little(scenario: str) -> None:
    async def ask() -> None:
        async with kdbridge.open(way.url, transport=way, break_in=scenario == "running") as opened:
            target = await opened.discover()
            source = ReadOnce(opened)
            stopped = way.running.kernel.stopped_processor
            context = await source.context(stopped)
            names = Names(target.modules, kernel=target.version.kern_base)
            stack = await walk(source, target, names, context, processor=stopped)
            assert _lines(stack) == _told(way.running.kernel, stopped)
            assert source.bytes_read < 4 << 10, "64 KiB are allowed"

    way = open_sim(f"sim:{scenario}", scenario, {"processors": "1", "memory": "16M"})
    trio.run(ask, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["bugcheck", "nt52"])
def test_small_dumps_of_ours_hold_all_that_stacks_need(scenario: str, tmp_path: Path) -> None:
    async def bring_home() -> None:
        async with kdbridge.open(way.url, transport=way) as opened:
            snapshot = await opened.snapshot(tmp_path / "snapshot", small_plan)
        with snapshot:
            await kdbridge.render(snapshot, snapshot.target, tmp_path / "small.dmp", kind=kdbridge.DumpKind.SMALL)
        with DumpFile(tmp_path / "small.dmp") as dump:
            target = await discover(dump)
            names = Names(target.modules, kernel=target.version.kern_base)
            for number, processor in enumerate(target.processors):
                assert processor.context is not None
                stack = await walk(dump, target, names, processor.context, processor=number)
                assert _lines(stack) == _told(way.running.kernel, number) and stack.whole

    way = open_sim(f"sim:{scenario}", scenario, {"memory": "32M"})
    trio.run(bring_home, clock=trio.testing.MockClock(autojump_threshold=0))


def _pages(kernel: SimulatedKernel, name: str, section: str) -> list[int]:
    """Addresses of the pages of a section, by the section table in memory."""
    module = next(one for one in kernel.modules if one.name == name)
    head = kernel.read_virtual(module.base, 0x1000)
    assert head is not None
    at = head.index(section.encode().ljust(8, b"\0"))
    size, rva = (int.from_bytes(head[at + n : at + n + 4], "little") for n in (8, 12))
    return list(range(module.base + rva, module.base + rva + size, 0x1000))


async def test_headers_that_are_not_there_cost_nothing() -> None:
    """The loader's entry of an image says too where its unwind data are."""
    kernel = _fresh()
    for module in kernel.modules:
        unmap(kernel, module.base)
    for number in range(2):
        stack = await _stack(kernel, number)
        assert _lines(stack) == _told(kernel, number) and stack.whole


@pytest.mark.parametrize("section", [".pdata", ".rdata"])
async def test_without_unwind_data_calls_are_found_on_the_stack_and_marked(section: str) -> None:
    """.rdata holds UNWIND_INFO. A driver's int3: all of its callers wait behind calls."""
    kernel = _fresh(stop="breakpoint")
    for name in ("nt", "mydrv"):
        for page in _pages(kernel, name, section):
            unmap(kernel, page)
    stack = await _stack(kernel, 0)
    *told, last = _told(kernel, 0)
    assert _lines(stack)[:-1] == told
    assert (stack.frames[-1].stack_pointer, stack.frames[-1].instruction) == (last[0], last[2])
    assert [frame.trust for frame in stack.frames] == [Trust.REGISTERS] + [Trust.SCANNED] * len(told)
    assert stack.frames[1].note == "the unwind data of mydrv.sys cannot be read"
    assert stack.frames[2].note.startswith("below a guess")
    assert not stack.whole
    assert stack.ended == (
        "the unwind data of ntoskrnl.exe cannot be read; no return address was found on the stack above"
    )


async def test_what_a_processor_pushed_is_found_too() -> None:
    """The faulting instruction is behind no call: the trap's machine frame leads to it."""
    kernel = _fresh()
    for name in ("nt", "mydrv"):
        for page in _pages(kernel, name, ".pdata"):
            unmap(kernel, page)
    stack = await _stack(kernel, 0)
    lines = iter(_lines(stack)[:-1])
    told = _told(kernel, 0)
    assert all(any(sp == line[0] and at == line[2] for line in lines) for sp, _, at in told[:-1]), "in their order"
    (fault,) = [frame for frame in stack.frames if frame.instruction == kernel.bug_check[4]]
    assert fault.trust is Trust.SCANNED and fault.note.endswith("looks like a machine frame")


async def test_below_a_guess_unwind_data_help_but_prove_nothing() -> None:
    kernel = _fresh(stop="breakpoint")
    for page in _pages(kernel, "mydrv", ".pdata"):
        unmap(kernel, page)
    stack = await _stack(kernel, 0)
    assert _lines(stack) == _told(kernel, 0)
    assert stack.ended == "guesses led to the thread's first call" and not stack.whole
    assert {frame.trust for frame in stack.frames[1:]} == {Trust.SCANNED}
    assert stack.frames[-1].note == "below a guess"


async def test_code_that_cannot_be_looked_at_is_said() -> None:
    kernel = _fresh(stop="breakpoint")
    for section in (".pdata", ".text"):
        for name in ("nt", "mydrv"):
            for page in _pages(kernel, name, section):
                unmap(kernel, page)
    stack = await _stack(kernel, 0)
    assert set(_told(kernel, 0)[:-1]) <= set(_lines(stack))
    assert stack.frames[1].note == (
        "the unwind data of mydrv.sys cannot be read; whether it is behind a call is not known"
    )


async def test_an_epilog_that_cannot_be_looked_for_is_said() -> None:
    """The driver's code page is gone, its unwind data are not."""
    kernel = _fresh(stop="breakpoint")
    for page in _pages(kernel, "mydrv", ".text"):
        unmap(kernel, page)
    stack = await _stack(kernel, 0)
    assert _lines(stack) == _told(kernel, 0) and stack.whole
    assert stack.frames[1].note == "the code below could not be read: it is taken not to stand in its epilog"
    assert not any(frame.note for frame in stack.frames[2:])


async def test_a_stack_that_ends_in_a_hole() -> None:
    kernel = _fresh(stop="breakpoint")
    told = _told(kernel, 0)
    unmap(kernel, told[0][0])
    stack = await _stack(kernel, 0)
    assert len(stack.frames) == 1 and not stack.whole and not stack.frames[0].return_address
    assert stack.ended.endswith("on the stack cannot be read")


async def test_a_call_to_nowhere() -> None:
    """rip is 0, and what called it lies on top of the stack."""
    kernel = _fresh(stop="breakpoint")
    source, target, names = await _look(kernel)
    sp, caller = kernel.processors[0].frames[0].stack_pointer, kernel.processors[0].frames[1]
    slot = sp - 8
    poke_pointer(kernel, slot, caller.instruction)
    context = target.processors[0].context
    assert context is not None
    lost = AMD64.context.decode(AMD64.context.encode({"rip": 0, "rsp": slot}, base=context.raw))
    stack = await walk(source, target, names, lost, processor=0)
    assert [frame.instruction for frame in stack.frames[:2]] == [0, caller.instruction]
    assert stack.frames[1].trust is Trust.SCANNED
    assert stack.frames[1].note == "00000000`00000000 is in no image that is loaded"


async def test_in_user_mode_there_is_one_frame() -> None:
    kernel = _machine()
    source, target, names = await _look(kernel)
    context = AMD64.context.decode(AMD64.context.encode({"rip": 0x7FF6_0000_1000, "rsp": 0x10_0000}))
    stack = await walk(source, target, names, context)
    assert (len(stack.frames), stack.ended, stack.whole) == (1, "user mode at 00007ff6`00001000", True)


async def test_a_stack_that_turns_in_a_circle() -> None:
    """The interrupted rip and rsp are those of the handler."""
    kernel = _fresh(stop="running")
    told = kernel.processors[0].frames
    number = next(at for at, frame in enumerate(told) if frame.function == "nt!KiInterruptDispatchNoLockNoEtw")
    handler = told[number]
    poke_pointer(kernel, handler.stack_pointer + 0x168, handler.instruction)
    poke_pointer(kernel, handler.stack_pointer + 0x180, handler.stack_pointer)
    stack = await _stack(kernel, 0)
    assert len(stack.frames) == number + 1 and not stack.whole
    assert stack.ended.startswith("it comes back to")


async def test_so_many_frames_and_no_more() -> None:
    kernel = _machine("running")
    stack = await _stack(kernel, 0, most=3)
    assert _lines(stack) == _told(kernel, 0)[:3]
    assert (stack.ended, stack.whole) == ("more than 3 frames were not asked for", False)


@pytest.mark.parametrize("seed", [1, 2])
async def test_registers_that_are_not_known_are_not_used(seed: int) -> None:
    """A trap frame has no non-volatile ones. What is not marked as a guess is true all the same, and often all is."""
    kernel = _machine(chains=seed)
    source, target, names = await _look(kernel)
    marked = 0
    for number in range(1, _CHAINS + 1):
        context = target.processors[number].context
        assert context is not None
        garbage = dict.fromkeys(("rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15"), 0xFFFFDEAD_BEEF0000)
        partly = AMD64.context.decode(AMD64.context.encode(garbage, base=context.raw))
        stack = await walk(source, target, names, partly, known=frozenset({"rip", "rsp", "rax"}), processor=number)
        sure = list(itertools.takewhile(lambda frame: not frame.trust.guessed, stack.frames))
        told = _told(kernel, number)
        assert [(f.stack_pointer, f.instruction) for f in sure] == [(sp, at) for sp, _, at in told[: len(sure)]]
        if len(sure) < len(stack.frames):
            marked += 1
            assert not stack.whole
        else:
            assert _lines(stack) == told
    assert 2 < marked < 20, "some need a frame register, and most do not"


def _is_in_an_image(target: Target, address: int) -> bool:
    return any(one.base + 0x1000 <= address < one.base + one.size for one in target.modules)


async def test_a_real_crash_without_unwind_data_is_guessed_and_says_so(shared: Path) -> None:
    """A small dump of Windows: what can be known is where it stands. The engine is asked in test_referee_stacks."""
    with DumpFile(shared / "data/dumps/triage_x64.dmp") as dump:
        target = await discover(dump)
        names = Names(target.modules, kernel=target.version.kern_base)
        for processor in target.processors:
            assert processor.context is not None
            stack = await walk(dump, target, names, processor.context, processor=processor.number)
            first, *others = stack.frames
            assert (first.instruction, first.stack_pointer) == (processor.context["rip"], processor.context["rsp"])
            assert len(others) >= 6 and not stack.whole
            assert {frame.trust for frame in others} == {Trust.SCANNED}
            assert all(_is_in_an_image(target, frame.instruction) for frame in others)
            assert others[0].note.startswith("the unwind data of ntoskrnl.exe cannot be read")
