"""Carrying on: a link that breaks is looked for again, and a target that changed is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import cast

import pytest
import trio

from kdbridge.carry_on import carried_on
from kdbridge.errors import NoContactError, TargetChangedError, TargetLostError, TransportLostError, TransportOpenError
from kdbridge.opening import OpenTarget


class _Line:
    """A target that can be had at some times only. Each connection is a number."""

    def __init__(self, there: Callable[[float], bool] = lambda now: True) -> None:
        self.there = there
        self.tries: list[float] = []
        self.open = 0
        self.said: list[str] = []

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[OpenTarget]:
        self.tries.append(trio.current_time())
        if not self.there(trio.current_time()):
            raise TransportOpenError("there is no port")
        self.open += 1
        try:
            yield cast("OpenTarget", len(self.tries))
        finally:
            self.open -= 1


async def test_the_connection_over_which_the_work_was_finished_stays_open() -> None:
    line = _Line()

    async def work(target: OpenTarget) -> None:
        pass

    async with carried_on(line.connect, work, patience=inf, report=line.said.append) as opened:
        assert (cast("int", opened), line.open) == (1, 1)
    assert (line.open, line.said) == (0, [])


@pytest.mark.slow
async def test_a_line_that_was_cut_is_found_again_soon_after_it_is_back(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    for outage in (0.1, 3.0, 100.0, 100_000.0):
        start = trio.current_time()
        line = _Line(lambda now, start=start, outage=outage: not 10 < now - start < 10 + outage)  # type: ignore[misc]
        done: list[float] = []

        async def work(target: OpenTarget, start: float = start, done: list[float] = done) -> None:
            if not done and trio.current_time() - start < 10:
                await trio.sleep(10.01)
                raise TransportLostError("the cable")
            done.append(trio.current_time())

        async with carried_on(line.connect, work, patience=inf, report=line.said.append):
            pass
        late = done[0] - start - 10 - outage
        assert 0 <= late <= 1, f"{late} s after the line was back"
        assert len(line.tries) < 6 + 2 * outage, "no storm of attempts"
        assert line.said[0] == "the cable\nwhat was read is kept; looking for the target again, until Ctrl-C"
        assert line.said[1].startswith("there it is again, after ")
    assert trio.current_time() > began


@pytest.mark.parametrize("error", [TransportLostError, TargetLostError, NoContactError])
async def test_patience_ends(error: type[Exception], autojump_clock: trio.testing.MockClock) -> None:
    line = _Line(lambda now: True)

    async def work(target: OpenTarget) -> None:
        line.there = lambda now: False
        raise error("gone")

    started = trio.current_time()
    with pytest.raises(error, match="gone"):
        async with carried_on(line.connect, work, patience=60, report=line.said.append):
            raise AssertionError("nothing was finished")
    assert 40 <= trio.current_time() - started <= 60
    assert line.open == 0


async def test_without_patience_the_first_loss_ends_it() -> None:
    line = _Line()

    async def work(target: OpenTarget) -> None:
        raise TransportLostError("gone")

    with pytest.raises(TransportLostError):
        async with carried_on(line.connect, work, patience=0, report=line.said.append):
            raise AssertionError("nothing was finished")
    assert (len(line.tries), line.said) == (1, [])


async def test_what_was_never_there_is_not_waited_for() -> None:
    line = _Line(lambda now: False)

    async def work(target: OpenTarget) -> None:
        raise AssertionError("there is nobody")

    with pytest.raises(TransportOpenError):
        async with carried_on(line.connect, work, patience=inf, report=line.said.append):
            raise AssertionError("nothing was finished")
    assert len(line.tries) == 1


async def test_a_machine_that_changed_is_nothing_to_go_on_with() -> None:
    line = _Line()

    async def work(target: OpenTarget) -> None:
        raise TargetChangedError("it restarted")

    with pytest.raises(TargetChangedError):
        async with carried_on(line.connect, work, patience=inf, report=line.said.append):
            raise AssertionError("nothing was finished")
    assert (len(line.tries), line.open) == (1, 0)


async def test_ctrl_c_ends_the_looking(autojump_clock: trio.testing.MockClock) -> None:
    line = _Line()

    async def work(target: OpenTarget) -> None:
        line.there = lambda now: False
        raise TransportLostError("gone")

    with trio.move_on_after(1000) as scope:
        async with carried_on(line.connect, work, patience=inf, report=line.said.append):
            raise AssertionError("nothing was finished")
    assert scope.cancelled_caught and line.open == 0


async def test_a_sleep_of_this_computer_is_noticed(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = _Line()
    asleep = 0.0
    monkeypatch.setattr("kdbridge.carry_on.time.clock_gettime", lambda which: 1000.0 + asleep)
    monkeypatch.setattr("kdbridge.carry_on.time.monotonic", lambda: 500.0)
    times = 0

    async def work(target: OpenTarget) -> None:
        nonlocal asleep, times
        times += 1
        if times == 1:
            asleep = 7200.0
            raise TargetLostError("no answer")

    async with carried_on(line.connect, work, patience=inf, report=line.said.append):
        pass
    assert line.said[0] == "this computer slept for 7,200 s"
    assert times == 2
