"""The waveform of asynchronous bytes: what a UART reads that listens at another speed, or to levels upside down."""

from __future__ import annotations

__all__ = ["resample"]

_QUIET = 24
"""Bits of idle line before and after what is sent at once."""


def resample(data: bytes, sent_at: float, read_at: float, *, inverted: bool = False) -> bytes:
    """What a UART makes of bytes sent at `sent_at` baud after a silence, if it reads at `read_at`. Both are 8N1.

    A byte without its stop bit is handed up as it was read, as drivers do.
    """
    levels = [1] * _QUIET
    for byte in data:
        levels += [0, *(byte >> bit & 1 for bit in range(8)), 1]
    levels += [1] * _QUIET
    return _sampled([1 - level for level in levels] if inverted else levels, sent_at / read_at)


def _sampled(levels: list[int], bit: float) -> bytes:
    """`bit` is the length of the reader's bit, in bits of the sender."""
    out = bytearray()
    at, end = 1, len(levels)
    while at < end:
        if levels[at] or not levels[at - 1] or levels[min(int(at + bit / 2), end - 1)]:
            # No edge, or the low is too short for a start bit.
            at += 1
            continue
        byte = 0
        for number in range(8):
            byte |= levels[min(int(at + (number + 1.5) * bit), end - 1)] << number
        out.append(byte)
        at = max(at + 1, int(at + 9.5 * bit) + 1)
    return bytes(out)
