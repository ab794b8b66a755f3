"""Call chains: an unwinder of our own finds the frames that are told, and what each caller had in its registers."""

from __future__ import annotations

import itertools

import pytest

from simulator.kernel import BugCheck, KernelOptions, SimulatedKernel, StopKind, build_kernel
from tests.simulator.unwinder import Frame, Unwinder

_STOPS: tuple[StopKind, ...] = ("bugcheck-first", "bugcheck-final", "breakpoint", "running")
_BUILDS = (3790, 7601, 9600, 19041, 22621)


def _kernel(stop: StopKind = "bugcheck-final", **options: object) -> SimulatedKernel:
    fields = {"processors": 5, "memory_size": 32 << 20, "stop": stop, **options}
    return build_kernel(KernelOptions(**fields))  # type: ignore[arg-type]


def _walk(kernel: SimulatedKernel, number: int) -> list[Frame]:
    processor = kernel.processors[number]
    root = processor.special_values["cr3"]
    unwinder = Unwinder(
        lambda address, size: kernel.read_virtual(address, size, root), [(m.base, m.size) for m in kernel.modules]
    )
    return unwinder.walk(processor.context_values)


@pytest.mark.parametrize(("stop", "build"), list(itertools.product(_STOPS, _BUILDS)))
def test_every_processor_s_stack_unwinds_to_what_is_told(stop: StopKind, build: int) -> None:
    kernel = _kernel(stop, build=build, stopped_processor=2)
    for processor in kernel.processors:
        *frames, last = _walk(kernel, processor.number)
        told = [(frame.instruction, frame.stack_pointer) for frame in processor.frames]
        assert [(frame.rip, frame.rsp) for frame in frames] == told
        assert [frame.return_address for frame in processor.frames] == [frame.rip for frame in frames[1:]] + [last.rip]
        assert last.rip == 0 or last.rip < 1 << 47, "a thread's beginning, or user mode"
        assert all(processor.stack_limit <= frame.rsp < processor.stack_base for frame in frames)


@pytest.mark.parametrize("seed", range(12))
def test_so_it_does_whatever_is_drawn(seed: int) -> None:
    kernel = _kernel(_STOPS[seed % 4], seed=seed)
    for processor in kernel.processors:
        frames = _walk(kernel, processor.number)
        assert [frame.rip for frame in frames[:-1]] == [frame.instruction for frame in processor.frames], seed


def test_a_function_s_name_is_that_of_the_place_it_stands_at() -> None:
    kernel = _kernel()
    places = {name if "!" in name else f"nt!{name}": at for name, at in kernel.symbols.items()}
    for processor in kernel.processors:
        for frame in processor.frames:
            below = [(at, name) for name, at in places.items() if at <= frame.instruction]
            assert frame.function in {name for at, name in below if at == max(below)[0]}


def test_the_saved_context_is_that_of_the_caller_of_kebugcheckex() -> None:
    """KDBG.SavedContext leads to it (kd-protocol 7.2 step 1)."""
    kernel = _kernel()
    place = kernel.kdbg["saved_context"]
    saved = kernel.read_virtual(place, 0x4D0)
    assert saved is not None
    frames = _walk(kernel, kernel.stopped_processor)
    names = [frame.function for frame in kernel.processors[kernel.stopped_processor].frames]
    of_caller = frames[names.index("nt!KeBugCheckEx")]
    # Offsets of kd-protocol 5.2.
    assert int.from_bytes(saved[0x98:0xA0], "little") == of_caller.rsp
    for name, offset in (("rbx", 0x90), ("rbp", 0xA0), ("rsi", 0xA8), ("rdi", 0xB0), ("r12", 0xD8), ("r15", 0xF0)):
        assert int.from_bytes(saved[offset : offset + 8], "little") == of_caller.registers[name], name
    code, *parameters = kernel.bug_check
    registers = [int.from_bytes(saved[offset : offset + 8], "little") for offset in (0x80, 0x88, 0xB8, 0xC0)]
    assert registers == [code, *parameters[:3]]


def test_a_bad_access_says_where() -> None:
    """Parameters of D1: address, IRQL, read, instruction; and CR2, the trap frame and the code agree."""
    kernel = _kernel(bug_check=BugCheck(0xD1))
    code, address, level, access, instruction = kernel.bug_check
    assert (code, level, access) == (0xD1, 2, 0)
    stopped = kernel.processors[kernel.stopped_processor]
    assert stopped.special_values["cr2"] == address
    frames = _walk(kernel, stopped.number)
    at_fault = next(frame for frame in frames if frame.rip == instruction)
    assert kernel.read_virtual(instruction, 3) == bytes.fromhex("8b4110"), "mov eax,[rcx+10h]"
    assert kernel.read_virtual(address, 1) is None
    trap = next(f for f in stopped.frames if f.function == "nt!KiPageFault")
    # KTRAP_FRAME: FaultAddress at D0, Rip at 168 of the frame that rsp points to.
    frame = kernel.read_virtual(trap.stack_pointer, 0x190)
    assert frame is not None
    assert int.from_bytes(frame[0xD0:0xD8], "little") == address
    assert int.from_bytes(frame[0x168:0x170], "little") == instruction
    assert int.from_bytes(frame[0x180:0x188], "little") == at_fault.rsp


def test_other_bug_checks_keep_their_parameters() -> None:
    kernel = _kernel(bug_check=BugCheck(0xC4, (0x91, 2, 3, 4)))
    assert kernel.bug_check == (0xC4, 0x91, 2, 3, 4)
    names = [frame.function for frame in kernel.processors[kernel.stopped_processor].frames]
    assert names[:5] == [
        "nt!DbgBreakPointWithStatus", "nt!KiBugCheckDebugBreak", "nt!KeBugCheck2", "nt!KeBugCheckEx", "mydrv!GiveUp",
    ]  # fmt: skip


def test_the_home_slots_of_kebugcheckex_hold_its_parameters() -> None:
    """What WinDbg's kv shows."""
    kernel = _kernel(bug_check=BugCheck(0x50, (1, 2, 3, 4)))
    names = [frame.function for frame in kernel.processors[kernel.stopped_processor].frames]
    frames = _walk(kernel, kernel.stopped_processor)
    caller = frames[names.index("nt!KeBugCheckEx") + 1]
    homes = kernel.read_virtual(caller.rsp, 0x28)
    assert homes is not None
    assert [int.from_bytes(homes[at : at + 8], "little") for at in range(0, 0x28, 8)] == [0x50, 1, 2, 3, 4]
