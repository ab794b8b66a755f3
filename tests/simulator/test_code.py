"""Machine code through capstone: every instruction is one, calls go where they say, prologs and epilogs agree."""

from __future__ import annotations

import random

import capstone
import pytest

from simulator.code import NONVOLATILE, Function, assemble
from simulator.errors import SimulationError
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from simulator.modules import driver_specs, kernel_spec
from simulator.pe import ImageSpec
from simulator.profile import profile_for


@pytest.fixture(scope="module")
def kernel() -> SimulatedKernel:
    return build_kernel(KernelOptions(memory_size=32 << 20, processors=1))


def _specs() -> list[ImageSpec]:
    profile = profile_for(19041)
    return [kernel_spec(profile, (), large=False), *driver_specs(profile, small=True)]


_FUNCTIONS = [(spec.name, function) for spec in _specs() for function in spec.functions]


def _disassemble(code: bytes, address: int = 0) -> list[capstone.CsInsn]:
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    instructions = list(engine.disasm(code, address))
    assert sum(instruction.size for instruction in instructions) == len(code), "it stops in the middle"
    return instructions


@pytest.mark.parametrize(("module", "function"), _FUNCTIONS, ids=[f"{m}!{f.name}" for m, f in _FUNCTIONS])
def test_every_function_disassembles_to_its_last_byte(module: str, function: Function) -> None:
    for seed in range(5):
        assembled = assemble(function, random.Random(seed))
        instructions = _disassemble(assembled.code)
        assert instructions[-1].mnemonic in ("ret", "iretq"), (module, seed)
        boundaries = {instruction.address for instruction in instructions}
        assert set(assembled.return_sites.values()) <= boundaries
        assert assembled.event_offset is None or assembled.event_offset in boundaries
        assert {fixup.offset - 1 for fixup in assembled.fixups if not fixup.imported} <= boundaries


_FRAMED = [(module, function) for module, function in _FUNCTIONS if function.literal is None]


@pytest.mark.parametrize(("module", "function"), _FRAMED, ids=[f"{m}!{f.name}" for m, f in _FRAMED])
def test_what_the_prolog_saves_the_epilog_gives_back(module: str, function: Function) -> None:
    instructions = _disassemble(assemble(function, random.Random(1)).code)
    depth, pushed, popped = 0, [], []
    for instruction in instructions:
        if instruction.mnemonic == "push":
            pushed.append(instruction.op_str)
            depth += 8
        elif instruction.mnemonic == "pop":
            popped.append(instruction.op_str)
            depth -= 8
        elif instruction.mnemonic in ("sub", "add") and instruction.op_str.startswith("rsp, "):
            size = int(instruction.op_str.partition(", ")[2], 0)
            depth += size if instruction.mnemonic == "sub" else -size
        elif instruction.mnemonic == "call":
            entry = 0 if function.machine_frame else 8
            assert (depth + entry) % 16 == 0, "the stack is aligned at calls"
    assert pushed == popped[::-1] and set(pushed) <= set(NONVOLATILE)
    # A handler also drops the error code, with the last add.
    assert depth == (-8 if function.machine_frame else 0)


def test_calls_go_to_functions(kernel: SimulatedKernel) -> None:
    by_address = {address: name for name, address in kernel.symbols.items()}
    calls = 0
    for module, function in _FUNCTIONS:
        name = function.name if module == "nt" else f"{module}!{function.name}"
        start = kernel.symbols[name]
        size = len(assemble(function, random.Random(0)).code)
        data = kernel.read_virtual(start, 0x400 if size < 0x300 else 0x800)
        assert data is not None
        engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        found = []
        for instruction in engine.disasm(data, start):
            if instruction.mnemonic == "call":
                if instruction.bytes[0] == 0xE8:
                    target = int(instruction.op_str, 16)
                else:
                    slot = instruction.address + 6 + int.from_bytes(instruction.bytes[2:6], "little", signed=True)
                    pointer = kernel.read_virtual(slot, 8)
                    assert pointer is not None
                    target = int.from_bytes(pointer, "little")
                found.append(by_address[target])
            if instruction.mnemonic in ("ret", "iretq"):
                break
        wanted = [
            callee.removeprefix("nt!") if "!" in callee else callee if module == "nt" else f"{module}!{callee}"
            for callee in function.calls
        ]
        assert found == wanted, name
        calls += len(found)
    assert calls > 60


def test_a_stack_that_would_not_be_aligned_is_refused() -> None:
    with pytest.raises(SimulationError, match="odd: the stack would not be aligned"):
        assemble(Function("odd", locals=0x30), random.Random(1))
