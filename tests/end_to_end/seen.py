"""One call of the engine in which it is asked for all that it can tell of a machine, and what it must have said."""

from __future__ import annotations

from simulator.kernel import SimulatedKernel
from tests.end_to_end import truth
from tests.end_to_end.printed import (
    parse_bug_check,
    parse_images,
    parse_modules,
    parse_registers,
    parse_session,
    parse_stack,
)
from tests.referee import Transcript

__all__ = ["ROOTLESS", "assert_seen", "assert_standing", "questions"]

ROOTLESS = "WARNING: Unable to reset page directories"
"""What it says when it comes to a processor whose top page table it does not have."""

_SPECIAL = f"r {','.join(truth.SPECIAL)}"


def _of(number: int) -> str:
    return f"~{number}s; r; {_SPECIAL}; k"


def questions(kernel: SimulatedKernel) -> tuple[str, ...]:
    """The commands."""
    return (
        ".bugcheck", "r", "k", "lm", "lmv", ".time", "vertarget",
        *(_of(processor.number) for processor in kernel.processors),
    )  # fmt: skip


def assert_seen(transcript: Transcript, kernel: SimulatedKernel, rootless: frozenset[int] = frozenset()) -> None:
    """The engine saw the machine as it stopped, as the simulator knows it.

    `rootless` processors run in an address space whose top page table nobody could read: of those it says so.
    """
    assert parse_bug_check(transcript[".bugcheck"].text) == kernel.bug_check
    assert parse_modules(transcript["lm"].text) == truth.loaded(kernel)
    assert parse_images(transcript["lmv"].text) == truth.images(kernel)
    assert parse_session(transcript["vertarget"].text) == truth.session(kernel)
    assert transcript[".time"].lines == transcript["vertarget"].lines[-2:]
    assert_standing(f"{transcript['r'].text}\n{transcript['k'].text}", kernel, kernel.stopped_processor)
    for number in range(len(kernel.processors)):
        text = transcript[_of(number)].text
        assert (ROOTLESS in text) == (number in rootless)
        assert_standing(text.replace(ROOTLESS, ""), kernel, number, special=True)


def assert_standing(text: str, kernel: SimulatedKernel, number: int, *, special: bool = False, **changed: int) -> None:
    """What `r; k` printed is where this processor stopped: every register, every frame down to the first.

    `changed` registers differ from those it was made with.
    """
    processor = kernel.processors[number]
    above, header, below = text.partition("Child-SP")
    expected = truth.registers(processor.context_values) | changed
    if special:
        expected |= truth.special_registers(processor)
    assert parse_registers(above) == expected, f"processor {number}"
    assert truth.where(kernel, parse_stack(header + below)) == truth.stack(kernel, processor), f"processor {number}"
