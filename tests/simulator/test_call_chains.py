"""Random call chains: capstone and a processor of our own get from their code to the stacks that are told."""

from __future__ import annotations

import functools

import pefile
import pytest

from simulator.call_chains import ChainPlan, plan_chain
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.simulator.emulator import NONVOLATILE, Emulator, Token

_CHAINS = 25

WANTED = {
    "PUSH_NONVOL", "ALLOC_LARGE", "ALLOC_SMALL", "SET_FPREG", "SAVE_NONVOL", "SAVE_NONVOL_FAR", "SAVE_XMM128",
    "SAVE_XMM128_FAR", "PUSH_MACHFRAME", "PUSH_MACHFRAME with error code", "EPILOG", "version 2", "chained", "indirect",
    "shrink-wrapped", "cold part", "dynamic allocation", "exception handler", "leaf", "left in prolog",
    "left in epilog", "left in early", "left in part", "left in body",
}  # fmt: skip


@functools.lru_cache
def _kernel(seed: int) -> SimulatedKernel:
    options = KernelOptions(processors=_CHAINS + 1, memory_size=64 << 20, call_chains=seed)
    return build_kernel(options)


def _interrupt(emulator: Emulator, top: int, site: int, selectors: tuple[int, int], *, error_code: bool) -> None:
    """As a processor does (Intel SDM 3A, 6.14.2): ss, rsp, rflags, cs, rip, each eight bytes, from an aligned top."""
    interrupted = emulator.registers["rsp"]
    emulator.registers["rsp"] = top & ~15
    for value in (selectors[1], interrupted, 0x246, selectors[0], site):
        emulator.push(value)
    if error_code:
        emulator.push(Token())


def _replay(kernel: SimulatedKernel, number: int, plan: ChainPlan) -> Emulator:
    """Carry the chain's code on. A stack that is switched to begins at a page, which the frame on it tells."""
    processor = kernel.processors[number]
    frames = processor.frames[::-1]
    emulator = Emulator(kernel.read_virtual)
    process = next(one for one in kernel.processes if one.address == processor.process)
    emulator.registers["rsp"] = process.user_stack if plan.from_user else processor.stack_base - 0x50
    site = frames[0].return_address
    if not plan.from_user:
        emulator.push(0)
    for at, (link, frame) in enumerate(zip(plan.links, frames, strict=True)):
        start = kernel.symbols[frame.function]
        assert frame.return_address == site
        if not link.interrupts:
            assert at == 0 or emulator.rip == start, "the call went there"
        elif at == 0 or link.stack != plan.links[at - 1].stack:
            selectors = (0x33, 0x2B) if at == 0 else (0x10, 0x18)
            before = dict(emulator.registers), dict(emulator.memory)
            _interrupt(emulator, 1 << 40, site, selectors, error_code=link.routine.error_code)
            emulator.rip = start
            if _calls(plan, at):
                _to_call(emulator, frame.instruction)
                emulator.registers["rsp"] = emulator.rsp + 8
            else:
                emulator.run_to(frame.instruction)
            base = frame.stack_pointer + (1 << 40) - emulator.rsp
            assert base % 0x1000 == 0 and (at or base == processor.stack_base)
            emulator.registers, emulator.memory = before
            _interrupt(emulator, base, site, selectors, error_code=link.routine.error_code)
        else:
            _interrupt(emulator, emulator.rsp, site, (0x10, 0x18), error_code=link.routine.error_code)
        emulator.rip = start
        if _calls(plan, at):
            _to_call(emulator, frame.instruction)
            assert emulator.memory[emulator.rsp] == frame.instruction
            assert emulator.rsp + 8 == frame.stack_pointer
            assert frame.stack_pointer % 16 == 0, "calls find the stack aligned"
        else:
            emulator.run_to(frame.instruction)
            assert emulator.rsp == frame.stack_pointer
        site = frame.instruction
    return emulator


def _calls(plan: ChainPlan, at: int) -> bool:
    return at + 1 < len(plan.links) and not plan.links[at + 1].interrupts


def _to_call(emulator: Emulator, behind: int) -> None:
    """Until the call that returns to `behind` was made."""
    for _ in range(1000):
        if emulator.memory.get(emulator.rsp) == behind:
            return
        emulator.step()
    raise AssertionError(f"nothing calls before {behind:#x}")


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_code_does_what_is_told_of_it(seed: int) -> None:
    """Stack pointers, calls, and every word on every stack: 50 chains."""
    kernel = _kernel(seed)
    words = 0
    for number in range(1, _CHAINS + 1):
        plan = plan_chain(seed, number)
        emulator = _replay(kernel, number, plan)
        told: dict[Token, int] = {}
        values = kernel.processors[number].context_values
        truth = [(emulator.registers[name], values[name]) for name in (*NONVOLATILE, "rsp")]
        for address, value in emulator.memory.items():
            word = kernel.read_virtual(address, 8)
            assert word is not None, f"chain {number}: {address:#x} is not there"
            truth.append((value, int.from_bytes(word, "little")))
        for value, there in truth:
            expected = told.setdefault(value, there) if isinstance(value, Token) else value
            assert there == expected, f"chain {number}"
        words += len(truth)
    assert words > 1000


def test_every_kind_of_unwind_data_is_among_them() -> None:
    plans = [plan_chain(seed, number) for seed in (1, 2) for number in range(1, _CHAINS + 1)]
    assert {use for plan in plans for link in plan.links for use in link.routine.uses} == WANTED
    assert any(sum(link.interrupts for link in plan.links) > 2 for plan in plans), "nested interrupts"
    assert any(len(plan.stacks) > 2 for plan in plans), "more than one other stack"
    assert any(max(plan.stacks) > 0x80 for plan in plans), "a frame of more than 512 KiB"
    assert 5 < sum(plan.from_user for plan in plans) < 45


def test_the_image_is_one_that_others_read() -> None:
    """pefile finds its exception directory where the loader's entry says."""
    kernel = _kernel(1)
    module = next(one for one in kernel.modules if one.name == "chains")
    assert module is kernel.modules[-1]
    data = kernel.read_virtual(module.base, 0x1000)
    assert data is not None
    directory = pefile.PE(data=data, fast_load=True).OPTIONAL_HEADER.DATA_DIRECTORY[3]
    entry = kernel.read_virtual(module.entry_address + 0x10, 12)
    assert entry is not None
    assert int.from_bytes(entry[:8], "little") == module.base + directory.VirtualAddress
    assert int.from_bytes(entry[8:], "little") == directory.Size > 200 * 12
