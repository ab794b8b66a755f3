"""How much to ask for at once on a line that damages bytes: long reads waste less on each exchange, and die more often.

Arithmetic only. Sizes, and the time that an exchange takes beside its data, are counted in bytes of the line.
"""

from __future__ import annotations

from math import exp, expm1, log1p

__all__ = ["EXCHANGE", "FRAME", "LEAST", "ReadSize", "best_size", "payload_share"]

FRAME = 73
"""Bytes of a reply beside its data: packet header 16, manipulate 56, trailing byte."""
EXCHANGE = FRAME + 73 + 2 * 16
"""Bytes of a read beside its data: the reply's, the request's, and an acknowledge each way."""
LEAST = 64
"""No read is made smaller than this: the frame alone is larger."""

_PRIOR_ERRORS, _PRIOR_BYTES = 0.05, 10_000
"""What is believed before anything came: so little that a clean line reads at full size from its first byte, and a
line that damages one of its first packets does not."""
_HALF = 1 << 16
"""Bytes after which what was seen counts half: how fast a change of the line is believed."""
_WINDOW = _HALF / 0.6931
_QUIET = 0.01
"""So few errors are left of what was seen that the line is clean again."""
_SHORT, _LONG = 128, 512
_MANY = 4
_LONGEST_SAMPLE = 3.0
"""Seconds that one read can count for: a computer that slept says nothing of the line."""
_PRIOR_READS = 30.0
_FRAGILE = 32
"""Bytes of an exchange (of its headers and acknowledges) of which a damaged one costs a timer's second."""


def payload_share(size: int, error_rate: float, exchange: float = EXCHANGE, repeat: float = EXCHANGE) -> float:
    """Data against all that the line could carry in the same time, reading `size` bytes at once.

    `error_rate` is the probability that one byte is damaged, `exchange` what each read costs beside its data,
    `repeat` what each damaged reply costs beside the data that come again.
    """
    again = _again(size, error_rate)
    return size / (size + exchange + again * (size + repeat))


def best_size(most: int, error_rate: float, exchange: float = EXCHANGE, repeat: float = EXCHANGE) -> int:
    """The size between LEAST and `most` with the largest payload_share."""
    low, high = min(LEAST, most), most
    if error_rate <= 0 or low >= high:
        return most
    rate = -log1p(-min(error_rate, 0.5))
    # Time for each byte of data has one minimum: its slope, times size squared, only grows.
    while low < high:
        middle = (low + high) // 2
        lost = exp(min(rate * (middle + FRAME), 600.0))
        slope = -exchange + lost * rate * middle * middle + repeat * (lost * (rate * middle - 1) + 1)
        if slope < 0:
            low = middle + 1
        else:
            high = middle
    return max(low, low - 1, key=lambda size: payload_share(size, error_rate, exchange, repeat) * (size >= LEAST))


def _again(size: int, error_rate: float) -> float:
    """How often, on average, a reply must be sent again until one is whole."""
    return expm1(min(-log1p(-min(error_rate, 0.5)) * (size + FRAME), 600.0))


class ReadSize:
    """Learns from each answer what the line is like. `ceiling` is what a read should ask for at most."""

    __slots__ = (
        "_bytes", "_damaged", "_errors", "_fixed", "_long", "_lost", "_most", "_received", "_short", "ceiling",
    )  # fmt: skip

    def __init__(self, most: int = 3944) -> None:
        self.ceiling = most
        self._most = most
        self._received = 0
        self._damaged = 0
        self._bytes = 0.0
        self._errors = 0.0
        self._short = self._long = (0.0, 0)
        self._fixed = (0.0, 0.0)
        self._lost = (0.0, 0.0)

    @property
    def error_rate(self) -> float:
        """The probability that a byte comes damaged, as far as is known; forgets what is long ago."""
        return (_PRIOR_ERRORS + self._errors) / (_PRIOR_BYTES + self._bytes)

    def answered(self, size: int, received: int, damaged: int, seconds: float) -> None:
        """A reply with `size` bytes of data came, `seconds` after it was asked for.

        `received` and `damaged` count the bytes and the damaged packets since the line was opened.
        """
        fresh = received - self._received
        self._received = received
        if damaged == self._damaged:
            if size >= _LONG:
                time, length = self._long
                if not length or seconds * (length + EXCHANGE) < time * (size + EXCHANGE):
                    self._long = (seconds, size)
            elif size <= _SHORT:
                time, length = self._short
                if not time or seconds < time:
                    self._short = (seconds, size)
            if not self._errors:
                self._bytes = min(self._bytes + fresh, _WINDOW)
                return
        self._learn(size, fresh, damaged - self._damaged, seconds)
        self._damaged = damaged

    def unanswered(self, size: int, received: int, damaged: int) -> None:
        """A read of `size` bytes was given up. It counts as damaged once more than was seen."""
        self._learn(size, received - self._received, damaged - self._damaged + 1, 0.0)
        self._received, self._damaged = received, damaged

    def _learn(self, size: int, fresh: int, spoilt: int, seconds: float) -> None:
        kept = 0.5 ** (fresh / _HALF)
        # A packet that is damaged may be so in several places; where a reply comes damaged again and again, it is.
        expected = max(self.error_rate * (size + FRAME), log1p(spoilt) if spoilt >= _MANY else 0.0)
        hits = spoilt * (expected / -expm1(-expected))
        seen = self._bytes * kept + fresh
        share = min(_WINDOW / seen, 1.0) if seen else 1.0
        self._bytes = seen * share
        self._errors = (self._errors * kept + hits) * share
        if self._errors < _QUIET:
            self._errors = 0.0
            self._fixed = self._lost = (0.0, 0.0)
            self.ceiling = self._most
            return
        exchange, repeat = self._costs(size, spoilt, min(seconds, _LONGEST_SAMPLE), kept)
        self.ceiling = best_size(self._most, self.error_rate, exchange, repeat)

    def _costs(self, size: int, spoilt: int, seconds: float, kept: float) -> tuple[float, float]:
        """What a read and a repetition cost beside their data, in bytes: from the clock, where that says anything."""
        (short, few), (long, many) = self._short, self._long
        byte = (long - short) / (many - few) if short and many and long > short else 0.0
        least = max(short / byte - few, EXCHANGE) if byte else EXCHANGE
        (total, reads), (gone, times) = self._fixed, self._lost
        total, reads, gone, times = total * kept, reads * kept, gone * kept, times * kept
        prior = least + (self.error_rate * _FRAGILE / byte if byte else 0.0)
        exchange = (total + _PRIOR_READS * prior) / (reads + _PRIOR_READS)
        if byte and seconds:
            spent = seconds / byte - size
            if spoilt:
                gone += max(spent - exchange - spoilt * size, 0.0)
                times += spoilt
            else:
                total += max(spent, 0.0)
                reads += 1
        self._fixed, self._lost = (total, reads), (gone, times)
        exchange = (total + _PRIOR_READS * prior) / (reads + _PRIOR_READS)
        return exchange, (gone + _PRIOR_READS * least) / (times + _PRIOR_READS)
