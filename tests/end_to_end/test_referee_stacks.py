"""Microsoft's engine walks the stacks that we walk: random call chains frame for frame, a real crash as far as it can.

Without unwind data (a small dump has none of Windows' images) the engine takes word after word of the stack for a
return address, down to the first zero. Of those words ours are the ones that may be return addresses, each marked.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import capstone
import pytest

from kdbridge.analysis.model import Stack, Trust
from kdbridge.analysis.names import Names
from kdbridge.analysis.stack import walk
from kdbridge.discovery import discover
from kdbridge.memory.files import DumpFile
from kdbridge.target import Target
from protocol.address import PAGE_SIZE, VirtualAddress
from simulator.kernel import KernelOptions, build_kernel
from tests.dumps import written
from tests.end_to_end.printed import parse_stack
from tests.referee import Kdexec, parse
from tests.simulator.dumped import dump_plan

pytestmark = pytest.mark.referee

_CHAINS = 25


@dataclass(frozen=True, slots=True)
class _Seen:
    """Stacks by processor: (Child-SP, RetAddr) of the engine's lines, and ours."""

    theirs: list[list[tuple[int, int]]]
    ours: list[Stack]
    target: Target


async def _look(kdexec: Kdexec, path: Path, processors: int) -> _Seen:
    commands = [f"~{number}s; k 0n99" for number in range(processors)]
    printed = parse(kdexec("-z", path, *commands))
    theirs = []
    for command in commands:
        _, header, lines = printed[command].text.partition("Child-SP")
        kept = [line for line in (header + lines).splitlines() if not line.startswith("***")]
        theirs.append([(frame.stack_pointer, frame.return_address) for frame in parse_stack("\n".join(kept))])
    ours = []
    with DumpFile(path) as dump:
        target = await discover(dump)
        names = Names(target.modules, kernel=target.version.kern_base)
        for processor in target.processors:
            assert processor.context is not None
            ours.append(await walk(dump, target, names, processor.context, processor=processor.number))
    return _Seen(theirs, ours, target)


def _lines(stack: Stack) -> list[tuple[int, int]]:
    return [(frame.stack_pointer, frame.return_address) for frame in stack.frames]


@pytest.mark.parametrize("seed", [1, 2])
async def test_fifty_random_call_chains_are_walked_alike(seed: int, kdexec: Kdexec, tmp_path: Path) -> None:
    """Every unwind operation, chained parts, epilogs of both versions, interrupts across stacks."""
    kernel = build_kernel(KernelOptions(processors=_CHAINS + 1, memory_size=64 << 20, call_chains=seed))
    seen = await _look(kdexec, written(tmp_path / "chains.dmp", *dump_plan(kernel, 1)), _CHAINS + 1)
    for number, (theirs, ours) in enumerate(zip(seen.theirs, seen.ours, strict=True)):
        assert ours.whole and not any(frame.trust.guessed for frame in ours.frames)
        if ours.ended.startswith("user mode"):
            # The engine goes on in user memory, of which it knows no image: one line that ours does not have.
            assert theirs[-1][0] == kernel.processes[3].user_stack
            theirs = theirs[:-1]
        assert _lines(ours) == theirs, f"processor {number}"


async def test_a_real_crash_is_guessed_where_the_engine_guesses(kdexec: Kdexec, shared: Path) -> None:
    """Sixteen processors of Windows 10 in a small dump, which holds stacks and not a byte of nt's unwind data."""
    seen = await _look(kdexec, shared / "data/dumps/triage_x64.dmp", 16)

    def in_code(address: int) -> bool:
        return any(one.base + PAGE_SIZE <= address < one.base + one.size for one in seen.target.modules)

    compared, disproved = 0, set[tuple[int, int]]()
    for theirs, ours in zip(seen.theirs, seen.ours, strict=True):
        # What both know: where it stands. And that nothing behind it is known is what ours says.
        assert theirs[0][0] == ours.frames[0].stack_pointer
        assert [frame.trust for frame in ours.frames] == [Trust.REGISTERS] + [Trust.SCANNED] * (len(ours.frames) - 1)
        # Each line of theirs is a word: Child-SP is where it lies, RetAddr what it is.
        assert all(above == here + 8 for (here, _), (above, _) in itertools.pairwise(theirs))
        their_words = [(slot, word) for slot, word in theirs if in_code(word)]
        our_words = [
            (above.stack_pointer - 8, frame.return_address) for frame, above in itertools.pairwise(ours.frames)
        ]
        our_words = [one for one in our_words if one[0] <= theirs[-1][0]]
        disproved |= set(their_words) - set(our_words)
        assert our_words == [one for one in their_words if one not in disproved]
        compared += len(our_words)
    assert compared == 14
    # One of their frames is none: the faulting instruction, a parameter of the bug check, whose code is in the file.
    assert [word for _, word in disproved] == [seen.target.bug_check_parameters[1]]
    with DumpFile(shared / "data/dumps/triage_x64.dmp") as dump:
        code = await dump.virtual.read(VirtualAddress(seen.target.bug_check_parameters[1] - 7), 7)
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    assert not any(one.mnemonic == "call" for at in range(6) for one in engine.disasm(code[at:], 0))
    # Processor 0 stands at the first instruction of a function: there the guess is the truth, and both have it.
    assert _lines(seen.ours[0])[0] == seen.theirs[0][0]
