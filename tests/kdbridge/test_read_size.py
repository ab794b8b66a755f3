"""The read size on a noisy line: the best by brute force, learnt from what comes, full on a clean line."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.noise import RATES, share
from kdbridge.read_size import EXCHANGE, FRAME, LEAST, ReadSize, best_size, payload_share

_MOST = 3944
_BAUD = 11520.0


@given(
    st.floats(-7, -1.5).map(lambda power: 10.0**power),
    st.floats(100, 20_000),
    st.floats(0, 20_000),
    st.integers(1, 4096),
)
def test_the_best_size_is_the_one_that_trying_all_finds(rate: float, exchange: float, repeat: float, most: int) -> None:
    found = best_size(most, rate, exchange, repeat)
    assert min(LEAST, most) <= found <= most
    tried = max(payload_share(size, rate, exchange, repeat) for size in range(min(LEAST, most), most + 1))
    assert payload_share(found, rate, exchange, repeat) >= tried * (1 - 1e-9)


def test_the_share_is_what_counting_tries_gives() -> None:
    seed = 3
    chance = random.Random(seed)
    for rate, size in ((1e-4, 1024), (8e-4, 512), (8e-4, 128)):
        whole = (1 - rate) ** (size + FRAME)
        line = data = 0
        for _ in range(20_000):
            line += EXCHANGE + size
            while chance.random() > whole:
                line += EXCHANGE + size
            data += size
        assert payload_share(size, rate) == pytest.approx(data / line, rel=0.03), f"seed {seed}"


def test_a_clean_line_is_read_at_full_size_from_its_first_byte() -> None:
    size = ReadSize(_MOST)
    received = 0
    assert size.ceiling == _MOST
    for _ in range(500):
        received += _MOST + 89
        size.answered(_MOST, received, 0, 0.36)
        assert size.ceiling == _MOST


def _noisy(size: ReadSize, chance: random.Random, rate: float, reads: int, so_far: tuple[int, int]) -> tuple[int, int]:
    received, damaged = so_far
    for _ in range(reads):
        asked = min(_MOST, size.ceiling)
        spent = asked + EXCHANGE
        received += asked + FRAME + 16
        while chance.random() > (1 - rate) ** (asked + FRAME):
            received += asked + FRAME
            spent += asked + EXCHANGE
            damaged += 1
        size.answered(asked, received, damaged, spent / _BAUD)
    return received, damaged


@pytest.mark.parametrize("rate", [8e-5, 3e-4, 8e-4, 3e-3])
@pytest.mark.parametrize("seed", range(4))
def test_it_finds_a_size_nearly_as_good_as_the_best(rate: float, seed: int) -> None:
    chance = random.Random(f"{rate} {seed}")
    size = ReadSize(_MOST)
    so_far = _noisy(size, chance, rate, 20 if rate < 1e-3 else 2, (0, 0))
    shares: list[float] = []
    for _ in range(300):
        so_far = _noisy(size, chance, rate, 1, so_far)
        shares.append(payload_share(min(size.ceiling, _MOST), rate))
    best = payload_share(best_size(_MOST, rate), rate)
    assert sum(shares) / len(shares) >= 0.95 * best, f"seed {seed}"


def test_it_grows_back_when_the_line_gets_better() -> None:
    size = ReadSize(_MOST)
    so_far = _noisy(size, random.Random(5), 1e-3, 300, (0, 0))
    assert size.ceiling < 800
    received, damaged = so_far
    began = received
    while size.ceiling != _MOST:
        asked = min(size.ceiling, _MOST)
        received += asked + 89
        size.answered(asked, received, damaged, (asked + EXCHANGE) / _BAUD)
        assert received - began < 1 << 20, "a MiB without an error, and it still asks for less"


def test_a_read_that_was_given_up_makes_the_next_smaller() -> None:
    size = ReadSize(_MOST)
    size.unanswered(_MOST, 100_000, 25)
    assert size.ceiling < _MOST // 2


def test_a_slow_answer_makes_longer_reads_worth_their_risk() -> None:
    rate = 8e-4
    prompt, slow = ReadSize(_MOST), ReadSize(_MOST)
    for size, latency in ((prompt, 0.0), (slow, 0.1)):
        received = damaged = 0
        for read in range(400):
            asked = 16 if read % 40 == 0 else min(size.ceiling, 600)
            again = read % 3 == 0
            received += (asked + FRAME) * (1 + again) + 16
            damaged += again
            size.answered(asked, received, damaged, (latency + (asked + EXCHANGE) / _BAUD) * (1 + again))
    assert slow.error_rate == pytest.approx(prompt.error_rate, rel=0.3)
    assert slow.ceiling > 1.5 * prompt.ceiling
    assert payload_share(1000, rate, 1500, 1500) > payload_share(300, rate, 1500, 1500)


_SIZES = {0.0: (3944,), 1e-6: (3944,), 1e-5: (3944, 1536), 1e-4: (512,)}
_PAGES = {0.0: 10, 1e-6: 60, 1e-5: 50, 1e-4: 20}
_SEEDS = {0.0: 1, 1e-6: 1, 1e-5: 2, 1e-4: 6}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.slow
def test_on_a_paced_line_it_brings_home_nearly_what_the_best_fixed_size_does(rate: float) -> None:
    seeds = range(1, _SEEDS[rate] + 1)

    def mean(size: int | None) -> float:
        return sum(share(rate, seed, size, _PAGES[rate])[0] for seed in seeds) / len(seeds)

    fixed = {size: mean(size) for size in _SIZES[rate]}
    # So few pages are a lottery where timers run out all the time; `make bench` reads more, and holds 0.95.
    goal = 0.95 if rate < 1e-4 else 0.85
    assert mean(None) >= goal * max(fixed.values()), f"seeds {seeds}: {fixed}"
