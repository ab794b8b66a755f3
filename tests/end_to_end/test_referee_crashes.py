"""The crashes by their bug check: Microsoft's engine sees the parameters, the stack, and where the exception was."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.crashes import CRASHES
from simulator.kernel import KernelOptions, build_kernel
from simulator.options import BugCheck
from tests.dumps import written
from tests.end_to_end.printed import parse_bug_check, parse_registers, parse_stack
from tests.referee import Kdexec, parse
from tests.simulator.dumped import dump_plan

pytestmark = pytest.mark.referee

_CONTEXTS = {0x3B: 3, 0x7E: 4}
"""The parameter that points to a CONTEXT, by code."""
_TRAP_FRAMES = {0x139: 2}
"""The same of a trap frame."""


@pytest.mark.parametrize("code", CRASHES, ids=lambda code: f"{code:02x}")
def test_the_engine_sees_each_crash_as_it_was_made(code: int, tmp_path: Path, kdexec: Kdexec) -> None:
    kernel = build_kernel(
        KernelOptions(memory_size=32 << 20, content_size=0, processors=1, bug_check=BugCheck(code), many_prints=True)
    )
    assert kernel.guilty == "mydrv"
    dump = written(tmp_path / "crash.dmp", *dump_plan(kernel, 1))
    places = [f".cxr {kernel.bug_check[n]:x}" for at, n in _CONTEXTS.items() if at == code]
    places += [f".trap {kernel.bug_check[n]:x}" for at, n in _TRAP_FRAMES.items() if at == code]
    seen = parse(kdexec("-z", dump, ".bugcheck", "k 50", "lm", *(f"{place};r" for place in places)))
    assert parse_bug_check(seen[".bugcheck"].text) == kernel.bug_check
    frames = kernel.processors[0].frames
    printed = parse_stack(seen["k 50"].text)[: len(frames)]
    assert [(one.stack_pointer, one.return_address) for one in printed] == [
        (one.stack_pointer, one.return_address) for one in frames
    ]
    for place in places:
        lines = seen[f"{place};r"].text.splitlines()
        registers = parse_registers("\n".join(line for line in lines if "=" in line or "`" in line))
        assert registers["rip"] == registers["at"] == kernel.crash_site
