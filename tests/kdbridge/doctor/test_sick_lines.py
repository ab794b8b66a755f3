"""Two hundred lines, healthy and sick, drawn by seed: no verdict names a wrong cause."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from kdbridge.doctor.table import TABLE
from tests.kdbridge.doctor.sick import SICKNESSES
from tests.kdbridge.doctor.truth import HEALTHY, PAGE, TRUTH, Outcome, cases, examined, with_tables

pytestmark = pytest.mark.slow

_COUNT = 200
_CPU = 20.0
"""Seconds."""


@pytest.fixture(scope="module")
def outcomes() -> Iterator[list[Outcome]]:
    started = time.process_time()
    yield [examined(case) for case in cases(_COUNT)]
    spent = time.process_time() - started
    assert spent < 3 * _CPU, f"{spent:.0f} seconds of CPU for {_COUNT} examinations"


def test_no_wrong_cause_is_named(outcomes: list[Outcome]) -> None:
    wrong = [f"{one.case}: {one.verdict.name}: {'; '.join(one.verdict.evidence)}" for one in outcomes if one.wrong]
    assert not wrong, "\n".join(wrong)


def test_every_sickness_is_recognised_on_most_lines_that_show_it(outcomes: list[Outcome]) -> None:
    missed = []
    for sick in SICKNESSES:
        names = [one.verdict.name for one in outcomes if one.case.sick == sick and one.visible]
        known = sum(name in TRUTH[sick][1] for name in names)
        if sick and names and known == 0:
            missed.append(f"{sick}: {names}")
    assert not missed, "\n".join(missed)


def test_nothing_that_is_sent_stops_a_machine_that_runs(outcomes: list[Outcome]) -> None:
    running = [one for one in outcomes if one.case.scenario == "running" and one.written]
    assert running
    assert [one.case for one in running if b"b" in one.written] == []


def test_every_verdict_that_is_right_somewhere_is_in_the_table() -> None:
    named = {name for _, right in TRUTH.values() for name in right} | HEALTHY | {"silence", "undecided"}
    assert named <= set(TABLE)


def test_the_page_shows_the_tables_as_they_are(outcomes: list[Outcome]) -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert with_tables(lines, outcomes) == lines, "python -m tests.kdbridge.doctor.truth writes them anew"
