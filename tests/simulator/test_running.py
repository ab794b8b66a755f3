"""A processor that goes on: capstone says what its instructions are, the made stack where they lead."""

from __future__ import annotations

import random

import capstone
import pytest

from protocol.arch import AMD64
from protocol.ntstatus import STATUS_BREAKPOINT, STATUS_SINGLE_STEP
from protocol.structure import Structure
from simulator.kernel import KernelOptions, SimulatedKernel, StopKind, build_kernel
from simulator.machine import Machine
from simulator.running import executes
from simulator.scenarios import machine_of

_TRACE = 0x100


def _made(stop: StopKind) -> tuple[SimulatedKernel, Machine]:
    """A machine, with the int3 that it stands on behind it."""
    kernel = build_kernel(KernelOptions(stop=stop, processors=1, memory_size=16 << 20))
    machine = machine_of(kernel)
    machine.processors[0].set(rip=machine.processors[0].program_counter + 1)
    return kernel, machine


def _registers(machine: Machine) -> Structure:
    return AMD64.context.decode(machine.processors[0].context)


def test_it_returns_through_the_calls_that_led_to_where_it_stood() -> None:
    kernel, machine = _made("breakpoint")
    step = executes(kernel)
    callers = kernel.processors[0].frames[1:5]
    for frame in callers:
        machine.breakpoints.insert(frame.instruction)
    for frame in callers:
        stop = step(machine)
        assert stop is not None and stop.code == STATUS_BREAKPOINT
        found = _registers(machine)
        assert (found["rip"], found["rsp"]) == (frame.instruction, frame.stack_pointer)
        machine.prepare_report()  # the breakpoint is gone, as a debugger finds it


def test_single_steps_are_the_instructions_that_capstone_sees() -> None:
    kernel, machine = _made("breakpoint")
    step = executes(kernel)
    reader = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    reader.detail = True
    crashing = [f"mydrv!{name}" for name in ("GiveUp", "AverageDepth", "UnlinkEntry", "TellOwner", "StopOwner")]
    never = {kernel.symbols[name] for name in (*crashing, "labflt!FlushWorkItem")}
    seen = set()
    for _ in range(500):
        before = _registers(machine)
        rip, rsp = before["rip"], before["rsp"]
        instruction = next(reader.disasm(machine.read_virtual(rip, 15), rip, 1))
        stack = int.from_bytes(machine.read_virtual(rsp, 8), "little")
        machine.processors[0].set(e_flags=before["e_flags"] | _TRACE)
        stop = step(machine)
        if stop is None:
            break
        assert stop.code == STATUS_SINGLE_STEP
        after = _registers(machine)
        assert after["e_flags"] & _TRACE == 0 and after["dr6"] == 0xFFFF4FF0
        behind = rip + instruction.size
        mnemonic = instruction.mnemonic
        seen.add(mnemonic)
        if mnemonic == "ret":
            assert (after["rip"], after["rsp"]) == (stack, rsp + 8)
        elif mnemonic == "call":
            _, relative, offset = instruction.op_str.rstrip("]").partition("rip + ")
            slot = machine.read_virtual(behind + int(offset, 16), 8) if relative else b""
            target = int.from_bytes(slot, "little") if relative else int(instruction.op_str, 16)
            if target in never:
                assert (after["rip"], after["rsp"]) == (behind, rsp)
            else:
                assert (after["rip"], after["rsp"]) == (target, rsp - 8)
                assert int.from_bytes(machine.read_virtual(rsp - 8, 8), "little") == behind
        elif mnemonic == "je":
            target = int(instruction.op_str, 16)
            assert after["rip"] == (target if before["e_flags"] & 0x40 else behind)
        else:
            assert after["rip"] == behind
            _, changed = instruction.regs_access()
            names = {instruction.reg_name(number) for number in changed}
            for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r12", "r14", "r15"):
                touched = {name, f"e{name[1:]}" if name[1:].isalpha() else f"{name}d"} & names
                assert touched or after[name] == before[name], f"{instruction} changed {name}"
    else:
        pytest.fail("it never rests")
    assert seen >= {"call", "ret", "push", "pop", "sub", "add", "mov", "xor", "je", "test"}


def test_a_worker_without_work_waits_and_the_machine_runs_on() -> None:
    kernel, machine = _made("breakpoint")
    step = executes(kernel)
    assert step(machine) is None
    resting = _registers(machine)
    assert 0 < resting["rip"] - kernel.symbols["SwapContext"] < 0x20
    assert step(machine) is None
    assert _registers(machine).raw == resting.raw


def test_after_a_break_in_the_interrupt_returns_to_the_idle_loop() -> None:
    kernel, machine = _made("running")
    step = executes(kernel)
    interrupted = next(f for f in kernel.processors[0].frames if f.function == "intelppm!MWaitIdle")
    trap = next(f for f in kernel.processors[0].frames if f.function == "nt!KiInterruptDispatchNoLockNoEtw")
    frame = machine.read_virtual(trap.stack_pointer + 0x30, 0x38)
    assert step(machine) is None
    found = _registers(machine)
    assert machine.read_virtual(found["rip"], 3) == bytes.fromhex("0f01c9"), "mwait"
    assert (found["rsp"], found["seg_cs"]) == (interrupted.stack_pointer, 0x10)
    # Of the volatile registers in the KTRAP_FRAME, those that the idle loop does not set: rdx to r11.
    volatile = [int.from_bytes(frame[at : at + 8], "little") for at in range(0, 0x38, 8)]
    assert [found[name] for name in ("r8", "r9", "r10", "r11")] == volatile[3:]
    assert (found["rax"], found["rcx"], found["rdx"]) == (0, 0, 0)


def test_a_machine_that_nobody_broke_into_does_not_run_into_the_break() -> None:
    kernel = build_kernel(KernelOptions(stop="running", processors=1, memory_size=16 << 20))
    machine = machine_of(kernel)
    before = machine.processors[0].context
    assert executes(kernel)(machine) is None
    assert machine.processors[0].context == before


def test_an_execution_breakpoint_in_a_debug_register() -> None:
    kernel, machine = _made("breakpoint")
    step, place = executes(kernel), kernel.symbols["KiSwapThread"]
    machine.processors[0].set_special(kernel_dr2=place, kernel_dr7=0x420)
    stop = step(machine)
    assert stop is not None and stop.code == STATUS_SINGLE_STEP
    found = _registers(machine)
    assert (found["rip"], found["dr6"]) == (place, 0xFFFF0FF4)
    assert step(machine) is None, "it goes on from there"
    # For data it is none of the processor's business here, and a disabled one never is.
    for control in (0x420 | 3 << 24, 0x400):
        kernel, machine = _made("breakpoint")
        machine.processors[0].set_special(kernel_dr2=place, kernel_dr7=control)
        assert step(machine) is None


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_debugger_writes_it_ends(seed: int) -> None:
    kernel, machine = _made("breakpoint")
    rng = random.Random(seed)
    step, place = executes(kernel), machine.processors[0].program_counter
    for _ in range(20):
        # Bytes of its own language, in any order, and any registers.
        words = (
            b"\x40\x50",
            b"\x48\x83\xc4",
            b"\x74\xfe",
            b"\xe8",
            b"\xff\x15",
            b"\xc3",
            b"\x48\xcf",
            b"\x0f\x01",
            b"\xf3",
        )
        code = b"".join(rng.choice((*words, rng.randbytes(1))) for _ in range(24))
        machine.write_virtual(place, code)
        names = rng.sample(("rax", "rcx", "rsp", "rbp", "rdi", "r12"), 2)
        machine.processors[0].set(rip=place, e_flags=rng.getrandbits(16), **{n: rng.getrandbits(64) for n in names})
        stop = step(machine)
        assert stop is None or stop.code in (STATUS_BREAKPOINT, STATUS_SINGLE_STEP)
    machine.write_virtual(place, b"\x74\xfe")  # je to itself
    machine.processors[0].set(rip=place, e_flags=0x40)
    assert step(machine) is None
    machine.processors[0].set(rip=0x1234_5678_9ABC_DEF0)
    assert step(machine) is None
