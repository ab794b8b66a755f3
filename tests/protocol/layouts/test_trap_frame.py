"""KTRAP_FRAME, held against a real one: Windows made the CONTEXT in the dump's header from the frame on its stack."""

from __future__ import annotations

from pathlib import Path

from protocol.arch import AMD64
from protocol.layouts.trap_frame import KTRAP_FRAME64, TRAP_FRAME_REGISTERS

# dump-formats 4.1: where the stack section lies in the file, and the address of its first byte.
_SECTION, _TOP_OF_STACK = 0xE390, 0xFFFF8504_29890EE8
_FRAME = 0xFFFF8504_29891F90


def test_a_real_frame_holds_the_registers_of_the_context_that_was_made_of_it(shared: Path) -> None:
    data = (shared / "data/dumps/triage_x64.dmp").read_bytes()
    at = _SECTION + _FRAME - _TOP_OF_STACK
    frame = KTRAP_FRAME64.decode(data[at : at + KTRAP_FRAME64.size])
    context = AMD64.context.decode(data[0x348 : 0x348 + AMD64.context.size])
    assert context["rip"] == 0xFFFFF804_8B58334C
    for name in TRAP_FRAME_REGISTERS:
        assert frame[name] == context[name], name
    assert [frame[f"xmm{number}"] for number in range(6)] == [context[f"xmm{number}"] for number in range(6)]


def test_registers_of_a_frame_are_registers_of_a_context() -> None:
    assert set(TRAP_FRAME_REGISTERS) <= set(AMD64.context.fields)
