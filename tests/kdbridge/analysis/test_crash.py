"""The crash context, held against the simulated machines' truth and Windows' own dumps."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from kdbridge.analysis.crash import crash_context
from kdbridge.analysis.model import CrashContext
from kdbridge.analysis.names import Names
from kdbridge.analysis.stack import walk
from kdbridge.analysis.stopped import stopped_processor
from kdbridge.discovery import discover
from kdbridge.memory.files import DumpFile
from kdbridge.source import Source
from kdbridge.target import Kdbg, Target
from protocol.arch import AMD64
from protocol.layouts.kdbg import KDDEBUGGER_DATA64
from simulator.kernel import BugCheck, KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.simulated import SimulatedSource

_SMALL = KernelOptions(memory_size=32 << 20, content_size=0, processors=3, stopped_processor=1)
_NON_VOLATILE = {"rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15"}


async def _crash(source: Source, target: Target) -> CrashContext:
    names = Names(target.modules, (), target.version.kern_base)
    found = await crash_context(source, target, names, stopped_processor(target))
    assert found is not None
    return found


def _machine(**wishes: object) -> SimulatedKernel:
    return build_kernel(replace(_SMALL, **wishes))  # type: ignore[arg-type]


def _with_saved_context(target: Target, address: int) -> Target:
    """The machine's KDBG with another SavedContext."""
    assert target.kdbg is not None
    block = KDDEBUGGER_DATA64.encode({"saved_context": address}, target.kdbg.block.raw)
    decoded = KDDEBUGGER_DATA64.decode(block, least=0x208)
    return replace(target, kdbg=Kdbg(target.kdbg.address, decoded, encoded=False))


@pytest.mark.parametrize("code", [0xD1, 0x0A])
async def test_the_trap_frame_of_the_instruction_that_a_parameter_names(code: int) -> None:
    kernel = _machine(bug_check=BugCheck(code))
    source = SimulatedSource(kernel)
    target = await discover(source)
    crash = await _crash(source, target)
    frames = kernel.processors[1].frames
    (at,) = [number for number, frame in enumerate(frames) if frame.instruction == kernel.bug_check[4]]
    assert crash.context["rip"] == kernel.bug_check[4]
    assert crash.context["rsp"] == frames[at].stack_pointer
    assert crash.better_than_break and crash.processor == 1
    module = frames[at].function.partition("!")[0]
    (image,) = [one for one in kernel.modules if one.name == module]
    assert (crash.place.module, crash.place.offset) == (module, kernel.bug_check[4] - image.base)
    assert crash.passed_over == ()
    # The frames between gave back what the trap frame has no room for, so the walk goes on exactly.
    assert crash.known >= _NON_VOLATILE
    names = Names(target.modules, (), target.version.kern_base)
    stack = await walk(source, target, names, crash.context, known=crash.known, processor=1)
    assert [(one.instruction, one.stack_pointer) for one in stack.frames] == [
        (one.instruction, one.stack_pointer) for one in frames[at:]
    ]


async def test_what_was_saved_of_the_caller_of_the_bug_check() -> None:
    kernel = _machine(bug_check=BugCheck(0xC9, (1, 2, 3, 4)))
    source = SimulatedSource(kernel)
    target = await discover(source)
    crash = await _crash(source, target)
    truth = AMD64.context.decode(kernel.read_virtual(kernel.kdbg["saved_context"], AMD64.context.size) or b"")
    assert crash.context == truth and "KeBugCheckEx kept" in crash.origin
    (frame,) = [one for one in kernel.processors[1].frames if one.function == "nt!KeBugCheckEx"]
    assert crash.context["rsp"] == frame.stack_pointer


async def test_what_cannot_be_used_is_told_and_passed_over() -> None:
    kernel = _machine(bug_check=BugCheck(0x7E, (0xC0000005, 0xFFFFF800_00001234, 0x10, 0x4141414141414141)))
    source = SimulatedSource(kernel)
    target = _with_saved_context(await discover(source), kernel.kernel_base)
    crash = await _crash(source, target)
    assert crash.context.raw == kernel.processors[1].context() and not crash.better_than_break
    assert crash.origin == "processor 1 as it stands"
    told = "\n".join(crash.passed_over)
    assert "the CONTEXT that parameter 4 points to: 41414141`41414141 is not canonical" in told
    assert "a trap frame of the instruction at fffff800`00001234: none was found on the stack" in told
    assert "the CONTEXT that KeBugCheckEx kept of its caller: at" in told and "lies no CONTEXT" in told
    assert "the exception record that parameter 3 points to: 00000000`00000010 is no kernel address" in told
    # The parameters still say which exception it was.
    assert crash.exception is not None
    assert (crash.exception.code, crash.exception.place.address) == (0xC0000005, 0xFFFFF800_00001234)


async def test_a_page_fault_of_which_only_the_address_is_told() -> None:
    kernel = _machine(bug_check=BugCheck(0xD1))
    source = SimulatedSource(kernel)
    fault = kernel.bug_check[1]
    target = replace(await discover(source), bug_check_code=0x50, bug_check_parameters=(fault, 0, 0, 2))
    crash = await _crash(source, target)
    assert crash.context["rip"] == kernel.bug_check[4] and "of the access to" in crash.origin


async def test_without_a_bug_check_it_is_where_the_machine_stands() -> None:
    kernel = _machine(stop="breakpoint")
    source = SimulatedSource(kernel)
    crash = await _crash(source, await discover(source))
    assert crash.context.raw == kernel.processors[1].context() and not crash.better_than_break
    assert crash.place.module == "mydrv" and crash.exception is not None
    assert crash.exception.code == 0x80000003


async def test_a_machine_that_tells_no_registers_has_none() -> None:
    source = SimulatedSource(_machine(), contexts=False)
    target = _with_saved_context(await discover(source), 0)
    names = Names(target.modules, (), target.version.kern_base)
    assert await crash_context(source, target, names, stopped_processor(target)) is None


@pytest.mark.parametrize("stop", ["bugcheck-final", "bugcheck-first", "breakpoint", "running"])
@pytest.mark.parametrize("garbage", [False, True])
async def test_the_processor_that_stopped(stop: str, *, garbage: bool) -> None:
    kernel = _machine(stop=stop, processors=5, stopped_processor=3)
    target = await discover(SimulatedSource(kernel, garbage_stop=garbage))
    assert stopped_processor(target) == 3
    assert stopped_processor(replace(target, stop=None)) == (0 if stop == "breakpoint" else 3)


async def test_a_real_crash(shared: Path) -> None:
    path = shared / "data/dumps/triage_x64.dmp"
    data = path.read_bytes()
    with DumpFile(path) as dump:
        crash = await _crash(dump, await discover(dump))
    # Windows puts the exception's CONTEXT into the header of its small dumps, and keeps the record on the stack.
    header = AMD64.context.decode(data[0x348 : 0x348 + AMD64.context.size])
    names = ("rip", "rsp", "e_flags", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r15")
    assert {name: crash.context[name] for name in names} == {name: header[name] for name in names}
    assert crash.better_than_break and str(crash.place) == "amdppm+0x334c" and crash.passed_over == ()
    at = 0xE390 + 0xFFFF8504_29891EE8 - 0xFFFF8504_29890EE8
    code, _, _, address, count = struct.unpack_from("<IIQQI", data, at)
    assert crash.exception is not None
    assert (crash.exception.code, crash.exception.place.address, len(crash.exception.parameters)) == (
        code, address, count,
    )  # fmt: skip
    assert crash.exception.parameters == struct.unpack_from(f"<{count}Q", data, at + 0x20)


async def test_the_header_of_a_real_crash_where_the_parameters_lead_nowhere(shared: Path) -> None:
    path = shared / "data/dumps/triage_x64.dmp"
    data = path.read_bytes()
    with DumpFile(path) as dump:
        target = replace(await discover(dump), bug_check_parameters=(0, 0, 0, 0))
        crash = await _crash(dump, target)
    assert crash.context.raw == data[0x348 : 0x348 + AMD64.context.size]
    assert crash.origin == "the CONTEXT in the dump's header" and crash.better_than_break


async def test_a_real_machine_that_was_stopped_by_its_power_button(shared: Path) -> None:
    with DumpFile(shared / "data/dumps/triage_arm64.dmp") as dump:
        target = await discover(dump)
        crash = await _crash(dump, target)
        assert crash.context == await dump.context(stopped_processor(target))
    assert not crash.better_than_break and crash.exception is None and crash.place.module == "nt"
