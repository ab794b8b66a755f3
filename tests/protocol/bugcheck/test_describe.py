"""Bug checks in words, from the headers of dumps that Windows wrote, and by the rules of each kind of parameter."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.address import parse_address
from protocol.bugcheck import BUG_CHECKS, ParameterKind, describe


def _header(dump: Path) -> tuple[int, tuple[int, ...]]:
    """Code and parameters, at 38 and 40 of a 64-bit header (dump-formats 2.1)."""
    with dump.open("rb") as file:
        head = file.read(0x60)
    return struct.unpack_from("<I", head, 0x38)[0], struct.unpack_from("<4Q", head, 0x40)


def test_a_system_thread_of_a_real_machine(shared: Path) -> None:
    code, parameters = _header(shared / "data/dumps/triage_x64.dmp")
    text = describe(code, parameters)
    assert text.name == "SYSTEM_THREAD_EXCEPTION_NOT_HANDLED_M"
    values = [line.split("  ")[0] for line in text.parameters]
    assert values[0].startswith("0xc0000005 (STATUS_ACCESS_VIOLATION: ")
    assert [parse_address(value) for value in values[1:]] == list(parameters[1:])
    # The exception's address lies in the kernel half, the two records on one kernel stack within a few pages.
    assert "exception record" in text.parameters[2] and "context record" in text.parameters[3]
    assert abs(parameters[2] - parameters[3]) < 0x6000


def test_a_power_button_of_a_real_machine(shared: Path) -> None:
    code, parameters = _header(shared / "data/dumps/triage_arm64.dmp")
    text = describe(code, parameters)
    assert text.name == "MANUALLY_INITIATED_POWER_BUTTON_HOLD"
    assert text.parameters[0] == "7000  milliseconds that it was held", "seven seconds is what Windows waits for"


_ADDRESS = 0xFFFFD105_5C2A1040


@pytest.mark.parametrize(
    ("code", "parameters", "index", "line"),
    [
        (0xD1, (_ADDRESS, 2, 0, 0), 0, "ffffd105`5c2a1040  memory that was touched"),
        (0xD1, (_ADDRESS, 2, 0, 0), 1, "2 (DISPATCH_LEVEL)  at the time"),
        (0xD1, (_ADDRESS, 0, 0, 0), 1, "0 (PASSIVE_LEVEL)  at the time"),
        (0xD1, (_ADDRESS, 11, 0, 0), 1, "11  at the time"),
        (0x0A, (_ADDRESS, 0xFF, 0, 0), 1, "255 (interrupts off)  at the time"),
        (0xD1, (_ADDRESS, 2, 0, 0), 2, "0x0 (read)  what was tried"),
        (0xD1, (_ADDRESS, 2, 1, 0), 2, "0x1 (write)  what was tried"),
        (0xD1, (_ADDRESS, 2, 8, 0), 2, "0x8 (execute)  what was tried"),
        (0x50, (_ADDRESS, 2, 0, 0), 1, "0x2 (write)  what was tried"),
        (0x50, (_ADDRESS, 0x10, 0, 0), 1, "0x10 (execute)  what was tried"),
        (0x50, (_ADDRESS, 0x77, 0, 0), 1, "0x77  what was tried"),
        (0xED, (_ADDRESS, 0xFFFFFFFF_C0000032, 0, 0), 1, "0xc0000032 (STATUS_DISK_CORRUPT_ERROR)  why"),
        (0xED, (_ADDRESS, 0xC0DE0001, 0, 0), 1, "0xc0de0001  why"),
        (0xED, (_ADDRESS, _ADDRESS, 0, 0), 1, "0xffffd1055c2a1040  why"),
        (
            0x1E,
            (0x80000003, 0, 0, 0),
            0,
            "0x80000003 (STATUS_BREAKPOINT: a breakpoint was hit)  exception that was not",
        ),
        (0xC2, (0x0A, _ADDRESS, 0x31476143, 0), 2, "'CaG1'  tag of the block"),
        (0xC2, (0x0A, _ADDRESS, 0x00000001, 0), 2, "0x1  tag of the block"),
        (0x24, (0x001904FB, 0, 0, 0), 0, "file 0x19, line 1275  where in the driver's source"),
        (0x101, (0x18, 0, _ADDRESS, 5), 3, "5  number of that processor"),
        (0x9F, (3, _ADDRESS, 0, _ADDRESS), 3, "ffffd105`5c2a1040  IRP that is held"),
        # Microsoft of 0x9F, 6: "Directed Power Down(1) or Power Up(0) completion".
        (0x9F, (6, _ADDRESS, 1, 0), 2, "0x1  1: power down, 0: power up"),
        # Microsoft of 0xC1, 30 and 31: current IRQL, pool type, size or the address being freed.
        (0xC1, (2, 1, 0x40, 0x30), 0, "2 (DISPATCH_LEVEL)  at the time"),
        (0xC1, (2, 1, 0x40, 0x30), 1, "0x1  pool type"),
        (0xC1, (2, 1, 0x40, 0x30), 2, "64 bytes  size"),
        (0xC1, (2, 1, _ADDRESS, 0x31), 2, "ffffd105`5c2a1040  block"),
        (0xC1, (2, 1, _ADDRESS, 0x31), 3, "0x31  0x20 to 0x2F"),
        (0xC1, (_ADDRESS, 0x10, 0x20, 0x21), 0, "ffffd105`5c2a1040  address that the driver tried to free"),
        (0x133, (0, 0x501, 0x500, 0), 1, "0x501  time spent, in ticks"),
        (0x133, (1, 0x1E00, _ADDRESS, 0), 1, "0x1e00  limit, in ticks"),
        (0x13A, (0x11, 0, 0, 7), 3, "0x7  reserved, or not known"),
        (0x12345, (7, 0, 0, 0), 0, "0x7  reserved, or not known"),
    ],
)
def test_a_parameter_is_written_by_its_kind(code: int, parameters: tuple[int, ...], index: int, line: str) -> None:
    assert describe(code, parameters).parameters[index].startswith(line)


@pytest.mark.parametrize(
    ("code", "parameter", "words"),
    [
        (0x139, 3, "doubly linked list"),
        (0x124, 4, "PCI Express"),
        (0x7F, 8, "Double fault"),
        (0xF4, 3, "A process ended"),
        (0xC4, 0x20010, "DDI compliance"),
        (0x12345, 0, "publishes nothing"),
        (0, 0, "No bug check happened"),
    ],
)
def test_the_first_parameter_adds_to_the_meaning(code: int, parameter: int, words: str) -> None:
    assert words in describe(code, (parameter, 0, 0, 0)).meaning


def test_another_parameter_may_add_to_the_meaning() -> None:
    assert describe(0xC1, (2, 1, 0x40, 0x30)).meaning.endswith("It asked for pool at an IRQL at which it must not.")
    assert describe(0xC1, (0x30, 1, 0x40, 0)).meaning == BUG_CHECKS[0xC1].meaning


def test_codes_that_differ_by_a_modifier_mean_the_same() -> None:
    plain, modified = describe(0x8E, (0xC0000005, 1, 2, 3)), describe(0x1000008E, (0xC0000005, 1, 2, 3))
    assert (plain.meaning, plain.parameters) == (modified.meaning, modified.parameters)
    assert modified.name == f"{plain.name}_M"


@given(
    code=st.one_of(st.sampled_from(sorted(BUG_CHECKS)), st.integers(0, 0xFFFFFFFF)),
    parameters=st.lists(st.one_of(st.integers(0, 0x100), st.integers(-(1 << 63), (1 << 65) - 1)), max_size=6),
)
def test_anything_at_all_can_be_described(code: int, parameters: list[int]) -> None:
    text = describe(code, parameters)
    assert text.name and text.meaning.endswith(".")
    assert len(text.parameters) == 4
    assert all(line.isprintable() and "  " in line for line in text.parameters)


@pytest.mark.parametrize("kind", ParameterKind)
def test_every_kind_has_a_use(kind: ParameterKind) -> None:
    rows = BUG_CHECKS.values()
    used = {parameter.kind for row in rows for parameter in row.parameters}
    used |= {parameter.kind for row in rows for case in row.subcases for parameter in case.parameters or ()}
    assert kind in used
