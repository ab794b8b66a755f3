"""The driver: so many inputs of a number each, under a limit of time and memory, and what was found."""

from __future__ import annotations

import contextlib
import random
import resource
import signal
import tempfile
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

from protocol.errors import KdError

__all__ = ["Finding", "Fuzzed", "HangError", "Limits", "Result", "Target", "fuzz", "input_of", "replay"]

_DISTINCT = 20


class Fuzzed(Protocol):
    """Something that eats hostile bytes."""

    def make(self, rng: random.Random) -> bytes:
        """One input, by this generator alone."""
        ...

    def run(self, data: bytes) -> None:
        """Take it. A KdError is a refusal; any other error is a finding."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """What is attacked, and its share of a long run. `start` is given a folder of its own."""

    name: str
    share: int
    start: Callable[[Path], Fuzzed]
    refuses: bool = True
    """Whether a KdError may come out. State machines turn them into events."""


class HangError(BaseException):
    """The input took too long. Not an Exception, so that nobody swallows it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """For one input. Time is the processor's, so that a busy machine is no finding."""

    seconds: float = 2.0
    memory: int = 64 << 20
    """Bytes at the same time, beyond what was there before."""
    traced_every: int = 64
    """Each so many-th input runs with every allocation counted, also those that are never touched."""
    address_space: int = 1 << 30
    """Bytes that the process may grow by: more is a MemoryError, wherever it happens."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that broke a promise."""

    target: str
    seed: int
    number: int
    problem: str
    trace: str
    data: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"{self.target}, seed {self.seed}, input {self.number}: {self.problem}\n{self.trace}"


@dataclass(slots=True)
class Result:
    """What a run came to."""

    target: str
    seed: int
    count: int = 0
    taken: int = 0
    """Inputs that were no error at all; the others were refused by name."""
    seconds: float = 0.0
    slowest: float = 0.0
    """Processor seconds of the slowest input."""
    largest: int = 0
    """Most bytes that a traced input had allocated at once."""
    findings: list[Finding] = field(default_factory=list)


def input_of(fuzzed: Fuzzed, target: str, seed: int, number: int) -> bytes:
    """Input `number` of this seed: the same bytes each time, whatever was run before."""
    return fuzzed.make(random.Random(f"{target} {seed} {number}"))


def fuzz(
    target: Target,
    count: int,
    seed: int,
    *,
    first: int = 0,
    limits: Limits | None = None,
    progress: Callable[[Result], None] | None = None,
) -> Result:
    """Run `count` inputs from number `first` on. Goes on after a finding; alike ones are told once."""
    limits = limits or Limits()
    result = Result(target.name, seed)
    seen: set[str] = set()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder, _bounded(limits):
        fuzzed = target.start(Path(folder))
        # What is made once and kept is no input's fault.
        _attempt(fuzzed, target, input_of(fuzzed, target.name, seed, first), limits, traced=False)
        for number in range(first, first + count):
            data = input_of(fuzzed, target.name, seed, number)
            outcome = _attempt(fuzzed, target, data, limits, traced=number % limits.traced_every == 0)
            result.count += 1
            result.taken += outcome.taken
            result.slowest = max(result.slowest, outcome.seconds)
            result.largest = max(result.largest, outcome.allocated)
            if outcome.problem and outcome.key not in seen and len(seen) < _DISTINCT:
                seen.add(outcome.key)
                result.findings.append(Finding(target.name, seed, number, outcome.problem, outcome.trace, data))
            if progress is not None and not result.count & 0x1FF:
                result.seconds = time.monotonic() - started
                progress(result)
    result.seconds = time.monotonic() - started
    return result


def replay(target: Target, data: bytes, limits: Limits | None = None) -> str:
    """Run one input, every allocation counted; what is wrong with it, or nothing."""
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder, _bounded(limits):
        outcome = _attempt(target.start(Path(folder)), target, data, limits, traced=True)
    return f"{outcome.problem}\n{outcome.trace}" if outcome.problem else ""


@dataclass(slots=True)
class _Outcome:
    taken: bool = False
    problem: str = ""
    trace: str = ""
    key: str = ""
    seconds: float = 0.0
    allocated: int = 0


def _attempt(fuzzed: Fuzzed, target: Target, data: bytes, limits: Limits, *, traced: bool) -> _Outcome:
    outcome = _Outcome()
    resident = _peak_resident()
    if traced:
        tracemalloc.start(1)
    started = time.process_time()
    try:
        with _timer(limits.seconds * (5 if traced else 1)):
            fuzzed.run(data)
        outcome.taken = True
    except KdError as error:
        if not target.refuses:
            _blame(outcome, error)
    except (Exception, HangError) as error:
        _blame(outcome, error)
    finally:
        outcome.seconds = 0.0 if traced else time.process_time() - started
        if traced:
            outcome.allocated = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    grown = max(outcome.allocated, _peak_resident() - resident)
    if grown > limits.memory and not outcome.problem:
        outcome.problem = f"{grown >> 20} MiB for an input of {len(data)} bytes"
        outcome.key, outcome.taken = "memory", False
    return outcome


def _blame(outcome: _Outcome, error: BaseException) -> None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    outcome.problem = f"{type(error).__name__}: {error}"
    outcome.trace = "".join(traceback.format_list(frames[-6:]))
    place = next((f for f in reversed(frames) if "/fuzz/driver.py" not in f.filename), frames[-1])
    # A loop is stopped anywhere in it.
    outcome.key = f"{type(error).__name__} {place.filename}" + (
        "" if isinstance(error, HangError) else f":{place.lineno}"
    )


def _peak_resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@contextlib.contextmanager
def _timer(seconds: float) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextlib.contextmanager
def _bounded(limits: Limits) -> Iterator[None]:
    """The alarm that ends a hang, and a ceiling for the whole process; both as they were afterwards."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise HangError(f"more than {limits.seconds:g} s of processor time")

    handler = signal.signal(signal.SIGPROF, stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        ceiling = pages * resource.getpagesize() + limits.address_space
        resource.setrlimit(
            resource.RLIMIT_AS, (ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard), hard)
        )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, handler)
