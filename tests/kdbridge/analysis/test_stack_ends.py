"""Where a stack is known to be whole: the machine's maker knows where it ends, and breaks it here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdbridge.analysis.model import Stack, Trust
from kdbridge.analysis.names import Names
from kdbridge.analysis.stack import walk
from kdbridge.discovery import discover
from kdbridge.discovery.notes import try_read_pointer
from kdbridge.memory.files import DumpFile
from kdbridge.plan.threads import stack_of_thread, working
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.poking import poke_pointer
from tests.kdbridge.simulated import SimulatedSource

_FIRST_CALL = "the thread's first call"


def _machine(stop: str) -> SimulatedKernel:
    return build_kernel(KernelOptions(processors=2, memory_size=16 << 20, stop=stop))  # type: ignore[arg-type]


async def _stack(kernel: SimulatedKernel, number: int, *, knows_threads: bool = True) -> Stack:
    source = SimulatedSource(kernel)
    target = await discover(source)
    context = target.processors[number].context
    assert context is not None
    names = Names(target.modules, kernel=kernel.kernel_base)
    return await walk(source, target if knows_threads else replace(target, kdbg=None), names, context, processor=number)


async def test_a_stack_that_was_overwritten_with_zeroes_is_not_whole() -> None:
    kernel = _machine("breakpoint")
    told = kernel.processors[0].frames
    for number in (3, 2, 1):
        poke_pointer(kernel, told[number].stack_pointer - 8, 0)
        stack = await _stack(kernel, 0)
        assert [frame.stack_pointer for frame in stack.frames] == [one.stack_pointer for one in told[:number]]
        assert not stack.whole
        assert stack.ended.startswith("the return address is 0 far from the thread's stack base at ")


async def test_where_the_thread_s_stack_is_not_known_nothing_proves_that_it_is_whole() -> None:
    """A running thread that stands where it began, and one that does not, look the same."""
    kernel = _machine("breakpoint")
    stack = await _stack(kernel, 0, knows_threads=False)
    assert len(stack.frames) == len(kernel.processors[0].frames)
    said = (f"the return address is 0: {_FIRST_CALL}, or an overwritten stack", False)
    assert (stack.ended, stack.whole) == said
    poke_pointer(kernel, kernel.processors[0].thread + kernel.profile.kthread.initial_stack, 0)
    stack = await _stack(kernel, 0)
    assert (stack.ended, stack.whole) == said


@pytest.mark.parametrize(("kept", "whole"), [(0x370, True), (0x3000, True), (-0x1000, False)])
async def test_a_stack_begins_below_what_is_kept_of_user_mode(kept: int, whole: bool) -> None:
    """KTHREAD.InitialStack lies so far below StackBase, in Windows 10 of x64 370h."""
    kernel = _machine("breakpoint")
    layout, processor = kernel.profile.kthread, kernel.processors[0]
    began = processor.stack_base + min(kept, 0)
    poke_pointer(kernel, processor.thread + layout.initial_stack, began)
    poke_pointer(kernel, processor.thread + layout.stack_base, began + abs(kept))
    stack = await _stack(kernel, 0)
    assert (stack.ended == _FIRST_CALL, stack.whole) == (whole, whole)


async def test_an_interrupted_call_to_nowhere_is_not_the_first_call() -> None:
    """The driver called address 0: that is what the trap frame says, and the caller waits above."""
    kernel = _machine("bugcheck-final")
    told = kernel.processors[0].frames
    number = next(at for at, one in enumerate(told) if one.instruction == kernel.bug_check[4])
    trap_frame = told[number - 1].stack_pointer
    poke_pointer(kernel, trap_frame + 0x168, 0)
    stack = await _stack(kernel, 0)
    assert [frame.instruction for frame in stack.frames[:number]] == [one.instruction for one in told[:number]]
    assert stack.frames[number].instruction == 0 and stack.frames[number].trust is Trust.MACHINE_FRAME
    assert stack.frames[number + 1].instruction == told[number + 1].instruction
    assert (stack.ended, stack.whole) == (f"guesses led to {_FIRST_CALL}", False)


async def test_a_trap_frame_of_zeroes_does_not_lead_to_user_mode() -> None:
    kernel = _machine("bugcheck-final")
    told = kernel.processors[0].frames
    number = next(at for at, one in enumerate(told) if one.instruction == kernel.bug_check[4])
    for offset in range(0x168, 0x190, 8):
        poke_pointer(kernel, told[number - 1].stack_pointer + offset, 0)
    stack = await _stack(kernel, 0)
    assert not stack.whole and "user mode" not in stack.ended


@pytest.mark.parametrize(("name", "kept", "threads"), [("triage_x64.dmp", 0x370, 3), ("triage_arm64.dmp", 0x250, 3)])
async def test_real_threads_begin_there(name: str, kept: int, threads: int, shared: Path) -> None:
    """Just below InitialStack a real thread's first call has a return address of 0, whatever it does."""
    found = []
    with DumpFile(shared / "data/dumps" / name) as dump:
        target = await discover(dump)
        assert target.kdbg is not None
        for processor in target.processors:
            thread = (await working(dump, target, processor)).thread
            stack = await stack_of_thread(dump, target, thread.address) if thread is not None else None
            if thread is None or stack is None:
                continue
            offset = target.kdbg.block["offset_kthread_initial_stack"]
            began = await try_read_pointer(dump, thread.address + offset)
            assert began is not None
            found.append((stack.address + stack.size - began, await try_read_pointer(dump, began - 8)))
    assert found == [(kept, 0)] * threads
