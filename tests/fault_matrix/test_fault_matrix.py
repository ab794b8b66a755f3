"""Every fault of kd-protocol 9.3, both ways, at each moment of a session: it ends, in time, with what it should."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import trio.testing

from simulator.target import KdTarget
from tests.fault_matrix.line import StruckLine, To, machine_with
from tests.fault_matrix.phases import SCRIPTS, Bench, outcome_of
from tests.fault_matrix.table import MOMENTS, TABLE, WAYS, Case

pytestmark = pytest.mark.slow

_TAKES = {"attach": 0.0, "idle": 6.0, "reading": 0.0, "prints": 0.0, "leaving": 31.0}
"""Seconds that a moment takes when all goes well."""


def _cases() -> list[tuple[str, To, str, int]]:
    return [
        (row, to, moment, number)
        for row, cell in TABLE.items()
        for to in WAYS
        for moment in MOMENTS
        if not isinstance(cases := cell(to, moment), str)
        for number in range(len(cases))
    ]


def _case(row: str, to: To, moment: str, number: int) -> Case:
    cell = TABLE[row](to, moment)
    assert not isinstance(cell, str)
    return cell[number]


def _changing(target: KdTarget) -> Counter[str]:
    """How often each request that changes a machine was carried out."""
    return Counter(entry.request.name for entry in target.machine.touched)


@pytest.mark.parametrize(("row", "to", "moment", "number"), _cases())
async def test_it_ends_in_time_as_it_should(
    row: str, to: To, moment: str, number: int, autojump_clock: trio.testing.MockClock
) -> None:
    case = _case(row, to, moment, number)
    line = case.line() if case.line is not None else StruckLine(machine_with(*SCRIPTS[moment]))
    outcome, bench, seconds = await outcome_of(moment, Bench(line, case.strike, case.inject, case.prints))
    assert outcome == case.outcome, case.name
    assert seconds <= _TAKES[moment] + case.within, case.name
    target = bench.line.running.target
    if isinstance(target, KdTarget):
        assert all(count == 1 for count in _changing(target).values()), case.name
    if case.resend:
        # Whoever got it damaged; or the target that got a request where an acknowledge was due (1.9).
        asker = bench.line.said if to == "target" else bench.line.asked
        assert "resend" in asker, case.name


@pytest.mark.parametrize("moment", MOMENTS)
async def test_without_a_fault_it_takes_no_longer_than_it_takes(
    moment: str, autojump_clock: trio.testing.MockClock
) -> None:
    outcome, bench, seconds = await outcome_of(moment)
    assert (outcome, seconds) == ("right", pytest.approx(_TAKES[moment]))
    assert "resend" not in bench.line.asked + bench.line.said
    changing = {"SetContext": 1, "Continue2": 1} if moment in ("prints", "leaving") else {}
    assert _changing(bench.line.running.target) == changing


def test_the_rows_are_those_of_the_reference(shared: Path) -> None:
    text = (shared / "reference/kd-protocol.md").read_text(encoding="utf-8")
    section = text.partition("### 9.3 ")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", section, re.MULTILINE)[1:]
    assert list(TABLE) == [row for row in rows if not set(row) <= {"-"}]


def test_a_cell_without_cases_says_why() -> None:
    cells = [cell(to, moment) for cell in TABLE.values() for to in WAYS for moment in MOMENTS]
    assert len(cells) == 170
    assert all(cell for cell in cells)
    assert all(" " in cell for cell in cells if isinstance(cell, str))
