"""The waveform behind bytes that make no sense: what a UART reads that listens at another speed, or upside down.

A leader of KD, sent at another speed, is misread in one way only. So what the usual speeds would have made of the
beginning of a packet is looked for; and text is found by trying which characters can have been read like this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, product
from math import ceil

from protocol.packet import HEADER, INITIAL_PACKET_ID, SYNC_PACKET_ID

__all__ = ["USUAL_RATES", "Ear", "Misheard", "mishear", "unravel"]

USUAL_RATES = (115200, 9600, 57600, 38400, 19200, 230400, 460800, 921600, 4800, 2400, 1200)
"""Speeds (baud) that are tried, the likeliest first."""

_SKEWS = (1.0, 0.99, 1.01)
"""Clocks differ a little; where a bit is sampled at its edge, that decides."""
_LEAST_HEARD = 3
"""Bytes of a beginning that must have been heard for it to be known."""
_LEAST_TIMES = 3
"""How often a shorter one must have been heard, each time after a silence."""
_LEAST_TEXT = 16
_LONGEST_TEXT = 60
_LONGEST_HEARD = 400
_SLOWEST = 1 / 9
"""Ratio of speeds from which on every byte is heard as one or more 00."""
_QUIET = 24
_BUDGET = 1200
_HEADS = tuple(
    HEADER.pack(0x30303030, kind, size, INITIAL_PACKET_ID | flags, 0)[:known]
    for kind, size, flags, known in (
        (7, 0xF0, SYNC_PACKET_ID, 12), (7, 0xF0, 0, 12), (7, 0xF0, 1, 12), (2, 0x38, 0, 12), (2, 0x38, 1, 12),
        (7, 0, 0, 6), (3, 0, 0, 6), (2, 0, 0, 6), (11, 0, 0, 6),
    )
)  # fmt: skip
"""Beginnings of packets that a target sends: state changes, short replies; and leaders with a type and any size."""
_CHARACTERS = bytes([*b" etaoinsrhldcumfpgwybvkxjqz", *range(0x20, 0x7F), 0x0D, 0x0A, 0x1B, 0x09])
_TRIED = bytes(dict.fromkeys(_CHARACTERS))


@dataclass(frozen=True, slots=True)
class Misheard:
    """What was sent, if it was read with this ratio of speeds (theirs to ours), or upside down."""

    ratio: float
    inverted: bool
    text: str
    """Empty: beginnings of packets were found."""
    times: int
    """How often the beginning was found, or how many characters fit."""
    length: int
    """Bytes as they were heard that fit each time."""
    score: int = 0
    """How much speaks for it."""


@dataclass(slots=True)
class Ear:
    """A UART of 8N1 at the receiving end. Its bit is `bit` of the sender's bits long."""

    bit: float
    at: float = 1.0
    """Where it looks for the next falling edge, in bits of the sender."""
    late: bool = True
    """An edge in the very middle of its stop bit is over for it; else it is the next start."""
    strict: bool = True
    """It looks in the middle of a start bit whether it is one."""

    def hear(self, levels: Sequence[int]) -> int | None:
        """The next byte, if the levels so far are enough to know it."""
        at = int(self.at)
        end = len(levels)
        while at < end:
            if levels[at] or not levels[at - 1]:
                at += 1
                continue
            if at + 9.5 * self.bit >= end:
                return None
            if self.strict and levels[int(at + self.bit / 2)]:
                at += 1
                continue
            byte = 0
            for number in range(8):
                byte |= levels[int(at + (number + 1.5) * self.bit)] << number
            self.at = max(at + 1, int(at + 9.5 * self.bit) + 1 if self.late else ceil(at + 9.5 * self.bit))
            return byte
        self.at = max(self.at, end)
        return None


def _bits(byte: int, inverted: bool) -> list[int]:
    levels = [0, *(byte >> bit & 1 for bit in range(8)), 1]
    return [1 - level for level in levels] if inverted else levels


@lru_cache(4096)
def mishear(data: bytes, ratio: float, inverted: bool = False, late: bool = True, strict: bool = True) -> bytes:
    """What is heard for certain of `data` sent after a silence at `ratio` times the receiver's speed."""
    levels = [int(not inverted)] * _QUIET
    for byte in data:
        levels += _bits(byte, inverted)
    ear, out = Ear(ratio, late=late, strict=strict), bytearray()
    while (byte_heard := ear.hear(levels)) is not None:
        out.append(byte_heard)
    return bytes(out)


def unravel(bursts: Sequence[bytes], ratios: Sequence[float]) -> list[Misheard]:
    """What may have been sent, the likeliest first. `ratios` of speeds, theirs to ours, without 1.

    `bursts`: what was heard, split where the line was silent. Where the ratio is so large that a packet's beginning
    becomes one byte, or so small that every byte becomes 00, nothing is found.
    """
    # What is slower than our end cannot change faster than once in one of its own bits.
    slowest = _longest_bit(bursts)
    possible = [ratio for ratio in ratios if 1 / ratio <= slowest]
    found = [*_packets(bursts, possible)]
    if not found:
        found = [*_texts(bursts, possible)]
    return sorted(found, key=lambda one: (one.score, -abs(one.ratio - 1)), reverse=True)


def _longest_bit(bursts: Sequence[bytes]) -> float:
    """Bits of ours that a bit of theirs can be long: a byte is read from a falling edge on, so its runs are whole."""
    heard = Counter(byte for burst in bursts for byte in burst)
    runs: Counter[int] = Counter()
    for byte, times in heard.items():
        levels = [0, *(byte >> bit & 1 for bit in range(8))]
        for run in [len([*same]) for _, same in groupby(levels)][:-1]:
            runs[run] += times
    rare = heard.total() // 50
    return next((run + 1.0 for run in sorted(runs) if runs[run] > rare), float("inf"))


def _packets(bursts: Sequence[bytes], ratios: Sequence[float]) -> Iterator[Misheard]:
    for ratio, inverted in [(1.0, True), *((ratio, False) for ratio in ratios)]:
        best: Misheard | None = None
        for head in _HEADS:
            for skew, late, strict in product(_SKEWS, (True, False), (True, False)):
                pattern = mishear(head, ratio * skew, inverted, late, strict)
                telling = sum(0 < byte < 0xFF for byte in pattern)
                if len(set(pattern)) < 2 or not telling:
                    continue
                if len(pattern) >= _LEAST_HEARD:
                    times = sum(burst.count(pattern) for burst in bursts)
                else:
                    begun = sum(burst.startswith(pattern) for burst in bursts)
                    times = begun if begun >= _LEAST_TIMES and begun >= len(bursts) // 2 else 0
                if times and (best is None or times * telling > best.score):
                    best = Misheard(ratio, inverted, "", times, len(pattern), times * telling)
        if best is not None:
            yield best


def _texts(bursts: Sequence[bytes], ratios: Sequence[float]) -> Iterator[Misheard]:
    """Text that was slower than our end, or upside down: of what is faster too much is lost."""
    longest = max(bursts, key=len, default=b"")
    for ratio, inverted in [(1.0, True), *((ratio, False) for ratio in ratios if _SLOWEST < ratio < 1)]:
        for skew in _SKEWS if not inverted else (1.0,):
            text = _Text(longest[:_LONGEST_HEARD], ratio * skew, inverted).read()
            if text is not None:
                yield Misheard(ratio, inverted, text if inverted else "", len(text), 1, len(text))
                break


class _Text:
    """Looks for characters that would have been heard like this, from the beginning on."""

    def __init__(self, heard: bytes, bit: float, inverted: bool) -> None:
        self._heard, self._bit = heard, bit
        self._shapes = [(character, _bits(character, inverted)) for character in _TRIED]
        self._quiet = [int(not inverted)] * _QUIET
        self._budget = _BUDGET * (4 if inverted else 1)
        self._steps: dict[tuple[object, ...], tuple[bytes, tuple[int, ...], float]] = {}

    def read(self) -> str | None:
        """The characters, or others that sound the same; None: nothing that is text sounds like this."""
        if len(self._heard) < _LEAST_TEXT:
            return None
        # From a state on, the past does not matter: what led nowhere once is not tried again.
        seen: set[tuple[int, tuple[int, ...], float]] = set()
        stack: list[tuple[bytes, int, tuple[int, ...], float]] = [(b"", 0, tuple(self._quiet), 1.0)]
        while stack and len(seen) < self._budget:
            text, done, tail, at = stack.pop()
            # The last byte that was heard may reach into the silence behind the last character.
            if done >= len(self._heard) - 1 or len(text) >= _LONGEST_TEXT:
                return text.decode("latin-1") if len(text) >= _LEAST_TEXT and len(set(text)) > 3 else None
            if (done, tail, at) in seen:
                continue
            seen.add((done, tail, at))
            for character, bits in reversed(self._shapes):
                out, after, place = self._step(tail, at, character, bits)
                if self._heard.startswith(out[: len(self._heard) - done], done):
                    stack.append((text + bytes([character]), done + len(out), after, place))
        return None

    def _step(
        self, tail: tuple[int, ...], at: float, character: int, bits: Sequence[int]
    ) -> tuple[bytes, tuple[int, ...], float]:
        """What is heard when this character follows, and where the ear is then; `at` in bits from the tail's begin."""
        key = (tail, at, character)
        if key not in self._steps:
            levels = [*tail, *bits]
            ear, out = Ear(self._bit, at), bytearray()
            while (byte := ear.hear(levels)) is not None:
                out.append(byte)
            first = min(int(ear.at), len(levels)) - 1
            self._steps[key] = bytes(out), tuple(levels[first:]), round(ear.at - first, 6)
        return self._steps[key]
