"""What a UART makes of bytes that were sent at another speed or upside down; worked out by hand, bit by bit."""

from __future__ import annotations

import random

import pytest

from simulator.waveform import resample


def test_at_the_same_speed_all_is_as_it_was_sent() -> None:
    data = random.Random(1).randbytes(2000)
    assert resample(data, 115200, 115200) == data


@pytest.mark.parametrize("off", [0.97, 1.03])
def test_three_percent_off_is_near_enough(off: float) -> None:
    """Nine bits and a half of 3 % are less than half a bit."""
    data = random.Random(2).randbytes(2000)
    assert resample(data, 115200 * off, 115200) == data


@pytest.mark.parametrize(
    ("sent", "sent_at", "read_at", "read"),
    [
        # A start bit of the sender is the reader's start bit and its first bit.
        ("ff", 9600, 19200, "fe"),
        # Low for nine bits is low for eighteen: eight zeros, no stop bit, and no edge before the line is high again.
        ("00", 9600, 19200, "00"),
        # Start and two zeros, six in all; then ones.
        ("fc", 9600, 19200, "e0"),
        # Low for one bit is low for twelve: the byte is over before the line is high.
        ("ff", 9600, 115200, "00"),
        # A start bit that is over in a quarter of the reader's bit is none.
        ("ff", 38400, 9600, ""),
        # Low for nine bits is low for three: start and two zeros.
        ("00", 28800, 9600, "fc"),
        # The stop bit between them falls between two samples, and the second is over after five zeros.
        ("0000", 28800, 9600, "e0"),
    ],
)
def test_another_speed_reads_other_bytes(sent: str, sent_at: int, read_at: int, read: str) -> None:
    assert resample(bytes.fromhex(sent), sent_at, read_at).hex() == read


@pytest.mark.parametrize(("sent", "read"), [("00", "00"), ("ff", "00"), ("55", "55"), ("01", "7f")])
def test_upside_down_the_first_fall_is_taken_for_a_start(sent: str, read: str) -> None:
    """00 falls at its stop bit; FF and 55 at their first one; 01 at its only one, then seven are high."""
    assert resample(bytes.fromhex(sent), 115200, 115200, inverted=True).hex() == read


def test_nothing_is_nothing() -> None:
    assert resample(b"", 9600, 115200) == b"" == resample(b"", 9600, 115200, inverted=True)
