"""Progress: how fast, and how long still, from what was done when."""

from __future__ import annotations

import pytest

from kdbridge.progress import Meter, Progress


def _told(interval: float = 0.25) -> tuple[Meter, list[Progress]]:
    told: list[Progress] = []
    return Meter(told.append, "reading", 1000, interval), told


def test_the_rate_is_that_of_the_last_quarter_of_a_minute() -> None:
    meter, told = _told()
    for second in range(101):
        meter.done = 10 * second if second <= 50 else 500 + 2 * (second - 50)
        meter.tell(float(second))
    at = {round((part.done if part.done <= 500 else 500 + (part.done - 500) * 5) / 10): part for part in told}
    assert at[40].rate == pytest.approx(10)
    assert at[100].rate == pytest.approx(2)
    assert at[100].time_left == pytest.approx((1000 - 600) / 2)
    assert 2 < at[57].rate < 10


def test_it_tells_a_few_times_a_second_and_not_at_every_page() -> None:
    meter, told = _told()
    for step in range(1000):
        meter.tell(step / 100)
    assert len(told) == pytest.approx(40, abs=2)
    meter.tell(9.991, always=True)
    assert told[-1].done == meter.done and len(told) == pytest.approx(41, abs=2)


def test_nobody_knows_how_long_before_there_is_a_rate_or_a_total() -> None:
    assert Progress("x", 0, 100, 0.0, 0).time_left is None
    assert Progress("x", 10, None, 5.0, 0).time_left is None
    assert Progress("x", 150, 100, 5.0, 0).time_left == 0


def test_the_first_look_has_no_rate() -> None:
    meter, told = _told()
    meter.done = 500
    meter.tell(3.0)
    assert (told[0].rate, told[0].time_left, told[0].done) == (0.0, None, 500)


def test_without_a_sink_nothing_is_kept() -> None:
    meter = Meter(None, "reading", None)
    for step in range(100_000):
        meter.tell(float(step))
    assert len(meter._points) == 0


def test_a_long_job_keeps_few_points() -> None:
    meter, told = _told()
    for step in range(40_000):
        meter.tell(step / 4)
    assert len(meter._points) <= 15 / 0.25 + 3
    assert len(told) == 40_000
