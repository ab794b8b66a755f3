"""How much damage passes KD's checksum: the model against lines that are simulated."""

from __future__ import annotations

import itertools
import random

import pytest

from kdbridge.silent_errors import (
    LIKELY,
    LineRecord,
    cancelling,
    expected_silent_errors,
    silent_share,
    warning,
)
from protocol.packet import checksum


def test_two_errors_cancel_once_in_sixteen() -> None:
    assert cancelling(1) == 0
    assert cancelling(2) == 1 / 16
    deltas = [sign << bit if sign > 0 else -(1 << bit) for bit in range(8) for sign in (1, -1)]
    for errors in (3, 4):
        ways = sum(sum(chosen) == 0 for chosen in itertools.product(deltas, repeat=errors))
        assert cancelling(errors) == ways / 16**errors


@pytest.mark.parametrize("rate", [4e-4, 1.5e-3])
def test_so_many_wrong_replies_pass_as_a_simulated_line_lets_through(rate: float) -> None:
    seed, size = 11, 1024
    chance = random.Random(seed)
    passed = wrong = 0
    expected = silent_share(size, rate)
    while wrong < 120 and passed < 400_000:
        hits = sum(chance.random() < rate * 1081 / 12 for _ in range(12))
        if hits < 2:
            # None: good. One: always seen.
            passed += not hits
            continue
        packet = bytearray(chance.randbytes(size + 56))
        total = checksum(bytes(packet)).to_bytes(4, "little")
        line = bytearray(packet + total[:1])
        for _ in range(hits):
            line[chance.randrange(len(line))] ^= 1 << chance.randrange(8)
        came = bytes(line[:-1])
        if checksum(came) & 0xFFFFFFFF == int.from_bytes(bytes(line[-1:]) + total[1:], "little"):
            passed += 1
            wrong += came != bytes(packet)
    assert wrong >= 20, f"seed {seed}"
    assert wrong / passed == pytest.approx(expected, rel=3 / wrong**0.5), f"seed {seed}"


def test_the_error_rate_is_what_makes_so_many_packets_come_damaged() -> None:
    seed, size, rate = 4, 1024, 6e-4
    chance = random.Random(seed)
    received = damaged = 0
    for _ in range(20_000):
        received += size + 73
        damaged += chance.random() > (1 - rate) ** (size + 73)
    assert LineRecord(received, damaged, size).error_rate == pytest.approx(rate, rel=0.05), f"seed {seed}"


def test_a_line_without_an_error_is_trusted_with_any_amount() -> None:
    assert expected_silent_errors(LineRecord(200_000, 0, 3944), 1 << 40) == 0


def test_eight_gib_over_a_line_with_one_bit_in_ten_million_wrong_are_not_worth_trust() -> None:
    received = 10_000_000
    bad = LineRecord(received, 8, 3944)
    assert 0.5 < expected_silent_errors(bad, 8 << 30) < 2
    assert expected_silent_errors(bad, 8 << 20) < LIKELY


def test_the_figure_is_told() -> None:
    text = warning(LineRecord(1_000_000, 20, 3944), 64 << 20, 12.3)
    assert (
        "one packet in 12 comes damaged" in text
        and "about 12 replies would be wrong and pass for good in 64 MiB" in text
    )
    assert "33% odds that a reply" in warning(LineRecord(1_000_000, 1, 3944), 64 << 20, 0.4)
