"""The crash context and its instructions, against Microsoft's engine."""

from __future__ import annotations

import random
import re
import struct
from pathlib import Path

import pytest
import trio

from kdbridge.analysis.crash import crash_context
from kdbridge.analysis.disassembly import Disassembler
from kdbridge.analysis.names import Names
from kdbridge.analysis.registers import Registers, read_trap_frame
from kdbridge.analysis.stopped import stopped_processor
from kdbridge.discovery import discover
from kdbridge.memory.files import DumpFile
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.arch import AMD64, X86
from simulator.kernel import BugCheck, KernelOptions, build_kernel
from tests.dumps import written
from tests.hand_dumps import complete, header32
from tests.kdbridge.simulated import SimulatedSource
from tests.referee import Kdexec, parse
from tests.simulator.dumped import dump_plan
from tests.x86_machine import STACK, x86_machine

_REGISTER = re.compile(r"\b(r[a-z0-9]{1,2})=([0-9a-f]{16})")
_REGISTER32 = re.compile(r"\b(e[a-z]{2})=([0-9a-f]{8})\b")
_CODE = re.compile(r"^[0-9a-f]{8}`[0-9a-f]{8} ([0-9a-f]+) +(\w+)", re.MULTILINE)


def _registers(text: str) -> dict[str, int]:
    return {name: int(value, 16) for name, value in _REGISTER.findall(text)}


async def _found(source: Source, target: Target) -> tuple[Registers, list[tuple[str, str]], list[int]]:
    """The registers, the instructions as WinDbg's `u` has them, and the addresses that the first one touches."""
    names = Names(target.modules, (), target.version.kern_base)
    crash = await crash_context(source, target, names, stopped_processor(target))
    assert crash is not None
    registers = Registers(crash.context, crash.known)
    found, missing = await Disassembler(source, names, AMD64).at(crash.place.address, registers)
    assert missing == ()
    told = [(one.data.hex(), one.text.split()[0]) for one in found]
    return registers, told, [operand.address for operand in found[0].operands]


@pytest.mark.referee
async def test_of_a_real_crash(shared: Path, kdexec: Kdexec) -> None:
    path = shared / "data/dumps/triage_x64.dmp"
    with DumpFile(path) as dump:
        registers, instructions, touched = await _found(dump, await discover(dump))
    cxr = f".cxr {0xFFFF8504_29891720:x}"
    theirs = parse(await trio.to_thread.run_sync(kdexec, "-z", path, cxr, "u @rip L6"))
    assert {name: registers.context[name] for name in _registers(theirs[cxr].text)} == _registers(theirs[cxr].text)
    assert instructions == _CODE.findall(theirs["u @rip L6"].text)
    assert [f"{one >> 32:08x}`{one & 0xFFFFFFFF:08x}" for one in touched] == re.findall(
        r"ds:002b:([0-9a-f`]+)=", theirs[cxr].text
    )


@pytest.mark.referee
async def test_of_a_trap_frame_and_the_frames_above_it(kdexec: Kdexec, tmp_path: Path) -> None:
    kernel = build_kernel(KernelOptions(memory_size=32 << 20, content_size=0, processors=2, bug_check=BugCheck(0xD1)))
    registers, instructions, _ = await _found(SimulatedSource(kernel), await discover(SimulatedSource(kernel)))
    path = written(tmp_path / "trap.dmp", *dump_plan(kernel, 1))
    frames = kernel.processors[0].frames
    (at,) = [number for number, frame in enumerate(frames) if frame.function == "mydrv!ReadBuffer"]
    # The frame of the trap handler is the one below; its Child-SP is the KTRAP_FRAME.
    trap, unwound = f".trap {frames[at - 1].stack_pointer:x}", f".frame /r {at:x}"
    theirs = parse(await trio.to_thread.run_sync(kdexec, "-z", path, unwound, trap, "u @rip L6"))
    volatile = {"rip", "rsp", "rbp", "rax", "rcx", "rdx", "r8", "r9", "r10", "r11"}
    of_trap, of_frame = _registers(theirs[trap].text), _registers(theirs[unwound].text)
    assert {name: registers.context[name] for name in volatile} == {name: of_trap[name] for name in volatile}
    others = {"rbx", "rsi", "rdi", "r12", "r13", "r14", "r15", "rbp", "rsp", "rip"}
    assert others <= registers.known
    assert {name: registers.context[name] for name in others} == {name: of_frame[name] for name in others}
    assert instructions == _CODE.findall(theirs["u @rip L6"].text)


@pytest.mark.referee
async def test_of_a_trap_frame_of_x86(kdexec: Kdexec, tmp_path: Path) -> None:
    """The kernel's own, and one that came out of user mode."""
    machine = x86_machine(pae=True)
    rng = random.Random(8)
    for at, code, stack in ((STACK + 0x200, 0x08, 0), (STACK + 0x400, 0x1B, 0x23)):
        words = [rng.randrange(1 << 32) for _ in range(0x8C // 4)]
        words[0x6C // 4], words[0x70 // 4], words[0x78 // 4] = code, 0x10246, stack or words[0x78 // 4]
        machine.put(at, struct.pack(f"<{len(words)}I", *words))
    path = tmp_path / "x86.dmp"
    path.write_bytes(complete(header32(machine, 1), machine.memory))
    traps = [f".trap {STACK + 0x200:x}", f".trap {STACK + 0x400:x}"]
    theirs = parse(await trio.to_thread.run_sync(kdexec, "-z", path, *traps))
    with DumpFile(path) as dump:
        for command in traps:
            found = await read_trap_frame(dump, X86, int(command.split()[1], 16))
            assert isinstance(found, Registers), found
            seen = {name: int(value, 16) for name, value in _REGISTER32.findall(theirs[command].text)}
            assert {"eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "eip", "esp"} <= seen.keys()
            mine = {X86.display_names.get(name, name): found.context[name] for name in found.known}
            assert {name: mine[name] for name in seen} == seen
