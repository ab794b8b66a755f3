"""The rounds: each draws something by its seed, does it, and says in a word what came of it. FOUND is a finding.

A new one is a function from seed and an empty folder to that word, and a line in ROUNDS.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import trio
import trio.testing

from kdbridge.target import Target
from protocol.errors import KdError
from simulator.target import KdTarget
from tests.end_to_end.killed import Killing
from tests.end_to_end.noisy import found_over_a_good_line, noisy_dump
from tests.fault_matrix.line import Strike, StruckLine, To, machine_with
from tests.fault_matrix.phases import SCRIPTS, Bench, outcome_of
from tests.fuzz.driver import fuzz
from tests.fuzz.targets import TARGETS, counts

__all__ = ["ROUNDS", "Round"]


@dataclass(frozen=True)
class Round:
    """One kind of round."""

    play: Callable[[int, Path], str]
    longest: float = 120.0
    """Seconds on the real clock, after which it hangs: where, is printed, and torture ends."""
    drawn: bool = True
    """Whether it comes up by itself, or only when it is named."""


def _virtually(play: Callable[[], Awaitable[str]]) -> str:
    async def run() -> str:
        return await play()

    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


@functools.cache
def _found() -> Target:
    return found_over_a_good_line()


# ---- a dump over a line with any faults ---------------------------------------------------------------------------

_RATES = {
    "flip": 1e-4, "drop": 1e-3, "insert": 1e-3, "overrun": 1e-3, "loss": 0.1, "dup": 0.1, "truncate": 0.05,
    "stall": 0.05,
}  # fmt: skip
"""The worst of each that a line may have and still bring something home."""


def _any_line(seed: int) -> str:
    draw = random.Random(f"line {seed}")
    names = draw.sample(sorted(_RATES), draw.choice((1, 1, 1, 2, 3)))
    faults = [f"{name}={_RATES[name] * 10 ** -draw.uniform(0, 2) / len(names):.3g}" for name in names]
    if draw.random() < 0.2:
        faults.append(f"way={draw.choice(('host', 'target'))}")
    if draw.random() < 0.2:
        faults.append(f"latency={draw.choice((1, 16))}")
    if draw.random() < 0.1:
        faults.append("text=login%3A%20")
    if draw.random() < 0.2:
        faults.append("echo")
    return ",".join([*faults, f"seed={seed}"])


def _noisy(faults: str, seed: int, folder: Path, pages: int = 8, share: float = 0.0) -> str:
    async def play() -> str:
        known = None if seed % 10 == 0 else _found_now
        try:
            dump = await noisy_dump(folder, faults, seed, found=known, pages=pages, share=share)
        except KdError as error:
            return f"{type(error).__name__}: {faults}: {error}"
        if dump.wrong != (() if share else dump.unseen):
            return f"FOUND: {faults}: pages {dump.wrong} are wrong"
        return f"{'sum kept' if dump.wrong else 'right'}: {faults}, {dump.seconds:.0f} s"

    _found_now = _found()
    return _virtually(play)


def _dump_with_loss(seed: int, folder: Path) -> str:
    return _must(_noisy(f"loss=0.05,seed={seed}", seed, folder, pages=16))


def _dump_with_flips(seed: int, folder: Path) -> str:
    return _must(_noisy(f"flip=1e-4,seed={seed}", seed, folder, share=1.0))


def _must(outcome: str) -> str:
    return outcome if outcome.startswith(("right", "sum kept", "FOUND")) else f"FOUND: {outcome}"


def _dump_over_any_line(seed: int, folder: Path) -> str:
    return _noisy(_any_line(seed), seed, folder)


# ---- a session in which several packets are struck ----------------------------------------------------------------


def _struck(seed: int, folder: Path) -> str:
    """Three packets of any kind are lost, damaged, cut off or preceded by noise, at any moment of a session."""
    draw = random.Random(f"struck {seed}")
    moment = draw.choice(sorted(SCRIPTS))
    strikes = [_any_strike(draw) for _ in range(3)]

    async def play() -> str:
        line = StruckLine(machine_with(*SCRIPTS[moment]))
        outcome, bench, seconds = await outcome_of(moment, Bench(line, _Several(strikes)))
        target = bench.line.running.target
        assert isinstance(target, KdTarget)
        twice = [name for name, count in Counter(e.request.name for e in target.machine.touched).items() if count > 1]
        if twice:
            return f"FOUND: {moment}: {twice} carried out twice"
        return f"{outcome}: {moment}, {seconds:.0f} s"

    return _virtually(play)


class _Several(Strike):
    """Strikes by number: the nth unit each way, whatever it is."""

    def __init__(self, strikes: list[Strike]) -> None:
        super().__init__("host", "", lambda raw: raw, struck=1)
        self._strikes = strikes

    def on(self, to: To, kind: str, raw: bytes) -> bytes:
        for strike in self._strikes:
            raw = strike.on(to, strike.kind, raw)
        return raw


def _any_strike(draw: random.Random) -> Strike:
    noise = draw.choice(
        (b"0" * draw.randint(1, 6), b"i" * draw.randint(1, 6), b"b", draw.randbytes(draw.randint(1, 40)))
    )
    place = draw.random()

    def flipped(raw: bytes) -> bytes:
        changed = bytearray(raw)
        if changed:
            changed[int(place * len(raw))] ^= 1 << int(8 * place)
        return bytes(changed)

    do: Callable[[bytes], bytes] = draw.choice(
        (
            lambda raw: b"",
            flipped,
            lambda raw: raw[: int(place * len(raw))],
            lambda raw: noise + raw,
            lambda raw: raw[: int(place * len(raw))] + noise + raw[int(place * len(raw)) :],
            lambda raw: raw + raw,
        )
    )
    return Strike(draw.choice(("target", "host")), "any", do, draw.randint(1, 12))


# ---- hostile input ------------------------------------------------------------------------------------------------


_INPUTS = 20_000
"""Of all targets together: each gets its share, which takes about a second."""


def _fuzzed(seed: int, folder: Path) -> str:
    name = random.Random(f"fuzz {seed}").choice(sorted(TARGETS))
    count = counts(_INPUTS, list(TARGETS.values()))[name]
    result = fuzz(TARGETS[name], count, seed)
    if result.findings:
        return f"FOUND: python -m tests.fuzz --only {name} --seed {seed} --count {count}: {result.findings[0]}"
    return f"right: {name}, {result.count:,} inputs"


# ---- kill -9 ------------------------------------------------------------------------------------------------------


def _killed(seed: int, folder: Path, kills: int) -> str:
    """One dump, killed at random moments and gone on with: in real time, over a line that makes it last."""
    killing = Killing(folder, seed, memory=64 << 20 if kills > 10 else 16 << 20)
    killing.run(kills, most_seconds=1.0)
    return f"right: {killing.lives} kills, of which the worst cost {killing.lost_most} pages"


ROUNDS: dict[str, Round] = {
    "loss": Round(_dump_with_loss),
    "flips": Round(_dump_with_flips),
    "line": Round(_dump_over_any_line),
    "struck": Round(_struck),
    "fuzz": Round(_fuzzed),
    "killed": Round(functools.partial(_killed, kills=5), longest=300.0),
    "killed-100": Round(functools.partial(_killed, kills=100), longest=3600.0, drawn=False),
}
