"""How much damage KD's checksum lets through on a line like this one. Arithmetic only.

The checksum is a sum of bytes. One bit that turns over changes it by a power of two; two that turn over in opposite
directions at the same place of two bytes leave it as it was, and so do more that cancel. The header is not part of
it; of its fields only the checksum itself can hide an error in the data, like one byte more. The rest of the header
and of the message is compared with the request, and damage to it costs time, not truth.

The model: bits turn over independently of each other, and ones and zeros are alike frequent. In memory that is mostly
zeros fewer errors cancel; on a line whose errors come in bursts more may.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from math import expm1, factorial, log1p

__all__ = ["LIKELY", "LineRecord", "cancelling", "expected_silent_errors", "silent_share", "warning"]

LIKELY = 0.05
"""Silent errors to be expected in one capture, from which on all of it is read twice: one dump in twenty."""

_MESSAGE = 56
_CHECKSUM_FIELD = 1
_FRAME = 73
_MOST_ERRORS = 8


@dataclass(frozen=True, slots=True)
class LineRecord:
    """What a line did so far."""

    received: int
    """Bytes that came."""
    damaged: int
    """Packets that came damaged."""
    size: int
    """Bytes that are asked for at once."""

    @property
    def error_rate(self) -> float:
        """The probability that a byte is damaged: what makes so many packets of this size come damaged."""
        packet = self.size + _FRAME
        share = min(self.damaged * packet / max(self.received, 1), 0.99)
        return -expm1(log1p(-share) / packet)


@functools.cache
def cancelling(errors: int) -> float:
    """The probability that so many bits, turned over at random places of random data, leave the sum as it was."""
    sums: Counter[int] = Counter({0: 1})
    for _ in range(errors):
        step: Counter[int] = Counter()
        for total, ways in sums.items():
            for bit in range(8):
                step[total + (1 << bit)] += ways
                step[total - (1 << bit)] += ways
        sums = step
    return float(sums[0] / 16**errors)


def silent_share(size: int, error_rate: float) -> float:
    """Of replies with `size` bytes of data that pass for good, the share that is not."""
    hits = error_rate * (size + _MESSAGE + _CHECKSUM_FIELD)
    # Against exp(-hits), for none: both are times that, so it falls out.
    hidden = sum(hits**count / factorial(count) * cancelling(count) for count in range(2, _MOST_ERRORS + 1))
    return hidden / (1 + hidden)


def expected_silent_errors(record: LineRecord, amount: int) -> float:
    """Replies with wrong data that pass for good among those that bring `amount` bytes."""
    return amount / record.size * silent_share(record.size, record.error_rate)


def warning(record: LineRecord, amount: int, expected: float) -> str:
    """What a user is told when all is read twice from here on."""
    every = record.received / max(record.damaged, 1) / (record.size + _FRAME)
    odds = f"about {expected:,.0f} replies" if expected >= 1.5 else f"{-expm1(-expected):.0%} odds that a reply"
    return (
        f"one packet in {max(every, 1):,.0f} comes damaged, and KD's checksum is only a sum of bytes: {odds} would be "
        f"wrong and pass for good in {amount / (1 << 20):,.0f} MiB. All is read twice from here on, and what was read "
        "before a second time; that takes twice as long"
    )
