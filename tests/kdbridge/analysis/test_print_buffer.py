"""The buffer of prints in the ways a KDBG may tell of it, full and not, whole and in part; laid down by the test."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdbridge.analysis.model import Missing
from kdbridge.analysis.print_buffer import LARGEST_PRINT_BUFFER, print_buffer
from kdbridge.analysis.reading import ReadOnce
from kdbridge.discovery import discover
from kdbridge.target import Kdbg, Target
from protocol.address import PAGE_SIZE
from protocol.structure import Structure
from simulator.kernel import BugCheck, KernelOptions, build_kernel
from tests.kdbridge.analysis.made_up import MadeUp, target_of
from tests.kdbridge.simulated import SimulatedSource

_VARIABLES, _BUFFER = 0xFFFFF800_10000000, 0xFFFFF800_20000000
_WRITE, _ROLLOVERS, _POINTER, _SIZE, _FIRST, _END = (_VARIABLES + 8 * n for n in range(6))


def _target(**fields: int) -> Target:
    return replace(target_of(), kdbg=Kdbg(0, Structure("KDDEBUGGER_DATA64", fields, b""), encoded=False))


def _memory(written: int, size: int, rollovers: int, text: bytes, buffer: int = _BUFFER) -> MadeUp:
    words = (buffer + written, rollovers, buffer, size, buffer, buffer + size)
    return MadeUp({_VARIABLES: b"".join(word.to_bytes(8, "little") for word in words), buffer: text})


_NEW = {"kd_print_circular_buffer_ptr": _POINTER, "kd_print_buffer_size": _SIZE}
_VALUES = {"kd_print_circular_buffer": _BUFFER, "kd_print_circular_buffer_end": _BUFFER + 0x20}
_INDIRECT = {"kd_print_circular_buffer": _FIRST, "kd_print_circular_buffer_end": _END}
_BOTH = {"kd_print_write_pointer": _WRITE, "kd_print_rollover_count": _ROLLOVERS}


async def _text(source: MadeUp, target: Target) -> str | None:
    text, missing = await print_buffer(source, target)
    assert (text is None) <= bool(missing)
    return text


async def _why(source: MadeUp, target: Target) -> Missing:
    text, (missing,) = await print_buffer(source, target)
    assert text is None and missing.what == "the kernel's print buffer"
    return missing


@pytest.mark.parametrize("fields", [_NEW, _VALUES, _INDIRECT, _NEW | _VALUES, _NEW | _INDIRECT])
async def test_every_way_to_tell_where_it_is(fields: dict[str, int]) -> None:
    text = b"later\0\n".ljust(0x10, b".") + b"sooner\n".ljust(0x10, b".")
    assert await _text(_memory(0x10, 0x20, 0, text), _target(**fields, **_BOTH)) == "later\n........."
    full = await _text(_memory(0x10, 0x20, 3, text), _target(**fields, **_BOTH))
    assert full == "sooner\n.........later\n........."
    assert await _text(_memory(0, 0x20, 0, text), _target(**fields, **_BOTH)) == ""
    assert await _text(_memory(0x20, 0x20, 1, text), _target(**fields, **_BOTH)) == (
        "later\n.........sooner\n........."
    )


async def test_what_cannot_be_is_not_read_and_why_is_told() -> None:
    text = bytes(0x20)
    told = _target(**_NEW, **_BOTH)
    assert (await _why(_memory(0, 0x20, 0, text), target_of())).why == "without the KDBG nothing tells where it is"
    assert (await _why(_memory(0, 0x20, 0, text), _target())).why == "the KDBG does not tell where it is"
    gone = await _why(MadeUp({}), told)
    assert gone.why == "the variables that tell where it is cannot be read"
    assert gone.ranges == ((_WRITE, 8), (_POINTER, 8), (_SIZE, 4))
    outside = await _why(_memory(0x21, 0x20, 0, text), told)
    assert outside.why.endswith("does not fit together") and outside.ranges == ()
    huge = await _why(_memory(0x10, LARGEST_PRINT_BUFFER + 1, 1, text), told)
    assert huge.why.endswith("does not fit together")
    elsewhere = await _why(_memory(0x10, 0x20, 0, b""), told)
    assert (elsewhere.why, elsewhere.ranges) == (
        "it lies at fffff800`20000000, which cannot be read", ((_BUFFER, 0x10),)
    )  # fmt: skip


async def test_the_largest_is_read_and_pages_that_are_gone_are_told() -> None:
    text = b"a" * PAGE_SIZE
    source = _memory(PAGE_SIZE, LARGEST_PRINT_BUFFER, 1, text)  # only the first page is there
    found, (missing,) = await print_buffer(source, _target(**_NEW, **_BOTH))
    assert found == text.decode()
    assert (missing.why, missing.ranges) == (
        "parts of it cannot be read", ((_BUFFER + PAGE_SIZE, LARGEST_PRINT_BUFFER - PAGE_SIZE),)
    )  # fmt: skip
    source = _memory(2 * PAGE_SIZE, 3 * PAGE_SIZE, 0, text)
    found, (missing,) = await print_buffer(source, _target(**_NEW, **_BOTH))
    assert missing.ranges == ((_BUFFER + PAGE_SIZE, PAGE_SIZE),)
    assert found == f"{text.decode()}\n[4096 bytes at {_BUFFER + PAGE_SIZE:#x} cannot be read]\n"


async def test_a_simulated_machine_that_printed_too_much() -> None:
    """The simulator's words for what each line says; the oldest that is left is cut off where the buffer begins."""
    options = KernelOptions(
        memory_size=32 << 20, content_size=0, processors=1, many_prints=True, bug_check=BugCheck(0x3B)
    )
    source = ReadOnce(SimulatedSource(build_kernel(options)))
    found, missing = await print_buffer(source, await discover(source))
    assert found is not None and missing == ()
    lines = found.splitlines()
    assert len(found) == PAGE_SIZE
    assert lines[-1] == "*** Fatal System Error: 0x0000003b"
    numbers = [int(line.split()[2]) for line in lines[1:] if line.startswith("mydrv: request")]
    assert numbers == list(range(numbers[0], 160)) and numbers[0] > 0
