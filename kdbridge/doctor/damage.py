"""What a line does to the packets on it, read from packets that came damaged: which bytes change, vanish or come in.

Three witnesses. What can be undone (a doubled FF, a CR put before each LF) is undone, and the packets must then be
right. What is gone is added up: the sum in the header says what is missing. And a target repeats itself, so that a
damaged packet can be held against a whole one of the same content.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from protocol.packet import HEADER, PacketType, checksum

from .packets import Found, Scan, Shape, is_header, scan

__all__ = ["Damage", "Pattern", "study"]

_HEAD = HEADER.size
_FIFO = 16
"""Bytes that a UART keeps while nobody reads it (16550)."""
_BURST = 4.0
"""Bytes: a gap that is longer, on average, is no single lost byte."""
_FEW = 6
"""Bytes that a packet lacks, on average, where they get lost one by one."""
_MOST_DIFFERENT = 0.05
"""Share of bits; where more differ, it is another packet."""
_LONGEST_BURST = 32
"""Bytes that may be lost at once, and by chance at the end of a packet."""
_COMPARED = 64
"""Damaged packets that are held against whole ones."""
_LONGEST_ALIGNED = 400
_FLOW_CONTROL = (0x11, 0x13)
_ID_WITHOUT_EIGHTH = (b"\0\0\0\0", b"\1\0\0\0", b"\0\x08\0\0", b"\1\x08\0\0")


class Pattern(enum.Enum):
    """What happens to bytes on the line."""

    TELNET = "each byte FF comes twice"
    NEWLINES = "an end of line is translated"
    FLOW_CONTROL = "the bytes 11 and 13 are missing"
    SEVEN_BITS = "the highest bit of each byte is missing"
    PARITY = "the highest bit of each byte is a parity bit"
    OVERRUN = "bytes are missing in bursts"
    LOST = "bytes are missing here and there"
    CUT = "packets end too early"
    INSERTED = "there are bytes that nobody sent"
    FLIPPED = "bits are turned over"


@dataclass(frozen=True, slots=True)
class Damage:
    """What happens to packets, and how sure that is."""

    good: int = 0
    """Whole packets with data."""
    damaged: int = 0
    broken: int = 0
    """Leaders without a header behind them."""
    pattern: Pattern | None = None
    """None: nothing happens, or it cannot be told."""
    sure: float = 0.0
    evidence: tuple[str, ...] = ()
    bit_error_rate: float | None = None
    likely: tuple[Pattern, ...] = ()
    """Without a pattern: which there may be."""

    @property
    def share(self) -> float:
        """Of packets that came, those that are not as they were sent."""
        total = self.good + self.damaged
        return self.damaged / total if total else 0.0


def study(stream: bytes, *, ended: bool = True) -> Damage:
    """What happens to the packets in these bytes."""
    found = scan(stream, ended=ended)
    good, damaged, broken = len(found.good), len(found.damaged), len(found.broken)
    if good and not damaged:
        return Damage(good)
    counts = good, damaged, broken
    if not good and not damaged and (seventh := _seven_bits(stream)) is not None:
        pattern, number, text = seventh
        return Damage(0, number, 0, pattern, _sure(number, 0.7), (text,))
    if not damaged and not broken:
        return Damage(good)
    for pattern, undone, text in _UNDONE:
        after = scan(undone(stream), ended=ended)
        better = len(after.good) - good
        if better and _holds(pattern, stream) and len(after.damaged) <= damaged // 10:
            evidence = f"{text}: undone, {_packets(better)} that were damaged are whole"
            return Damage(*counts, pattern, _sure(better, 0.9), (evidence,))
    if (eaten := _flow_control(stream, found)) is not None:
        return Damage(*counts, Pattern.FLOW_CONTROL, *eaten)
    if (swapped := _swapped(stream, found)) is not None:
        return Damage(*counts, Pattern.NEWLINES, *swapped)
    return _compared(found, counts)


def _sure(number: int, first: float) -> float:
    """The more packets say it, the surer."""
    return round(1 - (1 - first) / max(number, 1), 3)


def _packets(count: int) -> str:
    return "1 packet" if count == 1 else f"{count} packets"


# ---- what can be undone ----------------------------------------------------------------------------------------------

_ODD_RUN = re.compile(rb"(?<!\xff)(?:\xff\xff)*\xff(?!\xff)")
_LONE_LF = re.compile(rb"(?<!\r)\n")
_LONE_CR = re.compile(rb"\r(?!\n)")

_Undo = Callable[[bytes], bytes]
_UNDONE: tuple[tuple[Pattern, _Undo, str], ...] = (
    (Pattern.TELNET, lambda data: data.replace(b"\xff\xff", b"\xff"), "every FF comes twice"),
    (Pattern.NEWLINES, lambda data: data.replace(b"\r\n", b"\n"), "0A comes as 0D 0A"),
    (Pattern.NEWLINES, lambda data: data.replace(b"\r\n", b"\r"), "0D comes as 0D 0A"),
    (Pattern.NEWLINES, lambda data: data.replace(b"\r\0", b"\r"), "0D comes as 0D 00"),
    (Pattern.TELNET, lambda data: data.replace(b"\xff\xff", b"\xff").replace(b"\r\0", b"\r"),
     "every FF comes twice, and 0D as 0D 00"),
)  # fmt: skip


def _holds(pattern: Pattern, stream: bytes) -> bool:
    """Whether there is nothing in the stream that such a line would not let through."""
    if pattern is Pattern.TELNET:
        return b"\xff" in stream and _ODD_RUN.search(stream) is None
    return _LONE_LF.search(stream) is None or _LONE_CR.search(stream) is None or b"\r\0" in stream


# ---- what is gone ----------------------------------------------------------------------------------------------------


def _seven_bits(stream: bytes) -> tuple[Pattern, int, str] | None:
    """Headers of KD in what has lost its eighth bits, or has something else in their place."""
    plain = bytes(byte & 0x7F for byte in stream)
    heads = 0
    at = plain.find(b"0000")
    while at >= 0:
        head = plain[at : at + _HEAD]
        known = len(head) == _HEAD and head[4] in range(1, PacketType.FILE_IO + 1) and head[5] == 0
        if known and head[8:12] in _ID_WITHOUT_EIGHTH:
            heads += 1
        at = plain.find(b"0000", at + 4)
    if not heads:
        return None
    if plain == stream:
        return Pattern.SEVEN_BITS, heads, f"the highest bit is 0 in all {len(stream)} bytes, also where headers have 80"
    ones = [(byte & 0x7F).bit_count() & 1 for byte in stream]
    for odd, name in ((0, "even"), (1, "odd")):
        if all(byte >> 7 == one ^ odd for byte, one in zip(stream, ones, strict=True)):
            return (
                Pattern.PARITY,
                heads,
                f"the number of ones is {name} in all {len(stream)} bytes: seven bits and parity",
            )
    if all(byte & 0x80 for byte in stream):
        return Pattern.PARITY, heads, f"the highest bit is 1 in all {len(stream)} bytes: seven bits and a mark"
    return None


def _flow_control(stream: bytes, found: Scan) -> tuple[float, tuple[str, ...]] | None:
    """Whether all that is missing is 11 and 13; by the sums."""
    if any(byte in stream for byte in _FLOW_CONTROL):
        return None
    short = [one for one in found.damaged if one.shape is Shape.SHORT]
    explained = sum(_is_eaten(one) for one in short)
    others = len(found.damaged) - explained
    explained += sum(_is_eaten_in_header(stream, at) for at in found.broken[:_COMPARED])
    if not explained or others > explained // 10:
        return None
    text = (
        f"not one byte of {len(stream)} is 11 or 13, and by the sums in their headers that is just what "
        f"{_packets(explained)} lack"
    )
    return _sure(explained, 0.9), (text,)


def _is_eaten(one: Found) -> bool:
    if one.shape is not Shape.SHORT or not one.body.endswith(b"\xaa"):
        return False
    if _lacks_only_them(one.sum, one.body, one.size + 1 - len(one.body)):
        return True
    # One that is gone from the sum in the header made the payload's first byte the sum's last.
    read = one.sum.to_bytes(4, "little")
    body = read[3:] + one.body
    sums = {read[:place] + bytes([byte]) + read[place:3] for place in range(4) for byte in _FLOW_CONTROL}
    return any(_lacks_only_them(int.from_bytes(each, "little"), body, one.size + 1 - len(body)) for each in sums)


def _lacks_only_them(expected: int, body: bytes, missing: int) -> bool:
    rest = expected - checksum(body[:-1]) - _FLOW_CONTROL[0] * missing
    return missing >= 0 and rest % 2 == 0 and 0 <= rest // 2 <= missing


def _is_eaten_in_header(stream: bytes, at: int) -> bool:
    """Whether a header is one again when a byte 11 or 13 is put into it."""
    tail = stream[at : at + _HEAD + 5000]
    for place in range(4, _HEAD):
        for byte in _FLOW_CONTROL:
            mended = tail[:place] + bytes([byte]) + tail[place:]
            if not is_header(mended, 0):
                continue
            first = scan(mended).found[0]
            if first.shape is Shape.GOOD or _is_eaten(first):
                return True
    return False


def _swapped(stream: bytes, found: Scan) -> tuple[float, tuple[str, ...]] | None:
    """Whether 0D came as 0A, or 0A as 0D; by the sums."""
    for gone, instead in ((0x0D, 0x0A), (0x0A, 0x0D)):
        if gone in stream:
            continue
        hit = sum(_is_swapped(one, gone, instead) for one in found.damaged)
        if hit > 1 and len(found.damaged) - hit <= hit // 10:
            text = f"{gone:02X} never comes, and by the sums in their headers {_packets(hit)} have {instead:02X} for it"
            return _sure(hit, 0.7), (text,)
    return None


def _is_swapped(one: Found, gone: int, instead: int) -> bool:
    if one.shape is not Shape.CHANGED or not one.body.endswith(b"\xaa"):
        return False
    times, rest = divmod(one.sum - checksum(one.body[:-1]), gone - instead)
    if not rest and 0 < times <= one.body.count(instead):
        return True
    # It may be the sum itself in which one came for the other.
    expected = one.sum.to_bytes(4, "little").replace(bytes([instead]), bytes([gone]))
    times, rest = divmod(int.from_bytes(expected, "little") - checksum(one.body[:-1]), gone - instead)
    return not rest and 0 <= times <= one.body.count(instead)


def _alike(changed: Sequence[Found]) -> bool:
    """Whether copies of one packet are all damaged in the same way: what hits by chance does not do that."""
    copies: dict[tuple[int, int, int], list[bytes]] = {}
    for one in changed:
        copies.setdefault(one.key, []).append(one.body)
    return any(len(bodies) > 2 and len(set(bodies)) == 1 for bodies in copies.values())


# ---- what differs ----------------------------------------------------------------------------------------------------


def _compared(found: Scan, counts: tuple[int, int, int]) -> Damage:
    changed = [one for one in found.damaged if one.shape is Shape.CHANGED]
    others = [one for one in found.damaged if one.shape is not Shape.CHANGED]
    gaps: list[tuple[int, int]] = []
    inserted = cut = 0
    for one in others[:_COMPARED]:
        whole = _whole_of(one, found)
        if whole is None:
            continue
        body, whole = one.body, whole + b"\xaa"
        if (at := _only_gap(whole, body)) is not None:
            cut += at == len(body)
            gaps.append((_HEAD + at, len(whole) - len(body)))
            continue
        if len(body) > _LONGEST_ALIGNED:
            continue
        for what, start, end, first, last in SequenceMatcher(None, whole, body, autojunk=False).get_opcodes():
            if what in ("delete", "replace") and end - start > last - first:
                gaps.append((_HEAD + start, end - start - (last - first)))
                cut += end == len(whole)
            elif what in ("insert", "replace") and last - first > end - start:
                inserted += 1
    missing = [one.missing for one in others if one.shape is Shape.SHORT]
    flipped, bits = _flips(changed, found)
    # Where many packets bear no error, how many that are is the better measure.
    few = changed and counts[0] >= len(changed)
    rate = _rate(counts[0], changed, found) if few else flipped / bits if flipped else None
    return _named(counts, (len(changed), len(others)), gaps, inserted, cut, (flipped, rate), _alike(changed), missing)


def _only_gap(whole: bytes, body: bytes) -> int | None:
    """Where something is missing, if that is all that is wrong."""
    if len(body) >= len(whole):
        return None
    same = next((at for at, (a, b) in enumerate(zip(whole, body, strict=False)) if a != b), len(body))
    return same if whole.endswith(body[same:]) else None


def _named(
    counts: tuple[int, int, int],
    kinds: tuple[int, int],
    gaps: Sequence[tuple[int, int]],
    inserted: int,
    cut: int,
    flips: tuple[int, float | None],
    alike: bool,
    missing: Sequence[int],
) -> Damage:
    good, damaged, broken = counts
    changed, others = kinds
    flipped, rate = flips
    text = f"{damaged} of {_packets(good + damaged)} with data {'is' if damaged == 1 else 'are'} damaged"
    if changed and changed >= 3 * others and not alike:
        more = (f"{flipped} bits differ from whole packets of the same content",) if flipped else ()
        return Damage(*counts, Pattern.FLIPPED, _sure(changed, 0.6), (f"{text}, at their full length", *more), rate)
    if gaps and len(gaps) >= 2 * (inserted + changed):
        lengths = [length for _, length in gaps]
        mean, first = sum(lengths) / len(gaps), min(at for at, _ in gaps)
        where = f"{text}: {sum(lengths)} bytes are missing in {len(gaps)} places, {mean:.0f} at a time"
        if cut >= 0.4 * len(gaps) and mean >= _BURST:
            end = (f"{where}, up to the end of the packet in {cut}",)
            if len(gaps) > 1 and cut >= 0.7 * len(gaps) and mean > _LONGEST_BURST:
                return Damage(*counts, Pattern.CUT, _sure(cut, 0.6), end)
            return Damage(*counts, evidence=end, likely=(Pattern.CUT, Pattern.OVERRUN, Pattern.LOST))
        if mean >= _BURST and first >= _FIFO and not broken:
            evidence = (f"{where}, and never among the first {_FIFO} bytes of a packet",)
            if len(gaps) > 1:
                return Damage(*counts, Pattern.OVERRUN, _sure(len(gaps), 0.6), evidence)
            return Damage(*counts, evidence=evidence, likely=(Pattern.OVERRUN, Pattern.LOST, Pattern.CUT))
        if len(gaps) > (1 if mean < _BURST else 2):
            return Damage(*counts, Pattern.LOST, _sure(len(gaps), 0.6), (where,))
        return Damage(*counts, evidence=(where,), likely=(Pattern.LOST, Pattern.OVERRUN, Pattern.CUT))
    if inserted > 1 and inserted >= 2 * (len(gaps) + changed):
        where = f"{text}: bytes got into them in {inserted} places"
        return Damage(*counts, Pattern.INSERTED, _sure(inserted, 0.6), (where,))
    if not gaps and not inserted and len(missing) > max(2, 3 * changed) and sum(missing) <= _FEW * len(missing):
        where = f"{text}: by their headers, {sum(missing)} bytes are missing in {len(missing)} of them"
        return Damage(*counts, Pattern.LOST, 0.6, (where,))
    return Damage(
        *counts,
        evidence=(text if damaged else f"{broken} beginnings of packets, none with a header behind it",),
        likely=(Pattern.FLIPPED, Pattern.LOST, Pattern.OVERRUN, Pattern.INSERTED, Pattern.CUT),
    )


def _whole_of(one: Found, found: Scan) -> bytes | None:
    """A whole payload of the same content: by type, length and sum; or the likest."""
    same = [other for other in found.good if other.packet_type == one.packet_type and other.size == one.size]
    exact = next((other.body for other in same if other.sum == one.sum), None)
    if exact is not None or not same:
        return exact
    return _likest(one.body, (other.body for other in same[-8:]))


def _likest(body: bytes, wholes: Iterable[bytes]) -> bytes | None:
    for whole in wholes:
        alike = sum(a == b for a, b in zip(body, whole, strict=False))
        if alike > 0.8 * len(whole) or SequenceMatcher(None, whole, body, autojunk=False).quick_ratio() > 0.9:
            return whole
    return None


def _flips(changed: Sequence[Found], found: Scan) -> tuple[int, int]:
    """Bits that differ from whole packets, and all bits that were compared, those of whole packets too."""
    flipped = bits = 0
    for one in changed[:_COMPARED]:
        whole = _whole_of(one, found) or _majority(one, changed)
        if whole is None:
            continue
        differ = sum((a ^ b).bit_count() for a, b in zip(one.body, whole + b"\xaa", strict=False))
        if differ <= _MOST_DIFFERENT * 8 * len(one.body):
            flipped += differ
            bits += 8 * len(one.body)
    share = len(changed[:_COMPARED]) / len(changed) if changed else 1
    return flipped, bits + round(share * 8 * sum(len(one.body) for one in found.good))


def _majority(one: Found, changed: Sequence[Found]) -> bytes | None:
    copies = [other.body for other in changed if other.key == one.key and len(other.body) == len(one.body)]
    if len(copies) < 3:
        return None
    return bytes(max(set(column), key=column.count) for column in zip(*copies, strict=True))[: one.size]


def _rate(good: int, changed: Sequence[Found], found: Scan) -> float | None:
    """Errors a bit, from how many packets bear none."""
    sizes = [8 * (one.size + 1) for one in (*found.good, *changed)]
    share = len(changed) / (good + len(changed))
    if share >= 1:
        return None
    mean = sum(sizes) / len(sizes)
    return float(1 - (1 - share) ** (1 / mean))
