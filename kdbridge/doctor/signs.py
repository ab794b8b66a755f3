"""Signs: what the bytes on a line say, each for itself. Pure: no line, no clock. `verdicts.py` draws the conclusion."""

from __future__ import annotations

import enum
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from kdbridge.overheard import Overheard, Piece
from protocol.debug_io import GetString, PrintString, decode_debug_io
from protocol.errors import KdError
from protocol.file_io import FileIo
from protocol.layouts.version import GetVersion64
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import PacketType
from protocol.state_change import ExceptionChange, LoadSymbols, StateChange

from .damage import Damage, study
from .packets import Found, Scan, Shape, scan
from .texts import Console, look_for_text
from .waveform import USUAL_RATES, Misheard, unravel

__all__ = ["Condition", "Probed", "Signs", "find_signs"]

_PAUSE = 0.3
"""Seconds of silence between two bursts."""
_STALL = 0.7
"""Seconds in which nothing comes in the middle of a packet: longer than any adapter waits."""
_ENDED = 0.5
_LEAST_BETWEEN = 6
_HEAD = 16
_AT_ONCE = 0.15
"""Seconds: what comes again sooner was not sent again by a target that waited."""
_REPEATED = 3
_DUMPING = re.compile(
    rb"dump(?:ing)? (?:of )?physical memory|physical memory (?:to disk|dump)|dump complete|crashdmp|writing crash dump"
    rb"|\*\*\* Fatal System Error",
    re.IGNORECASE,
)


class Condition(enum.Enum):
    """What the target does, by what it says."""

    UNKNOWN = "nothing is known of it"
    STOPPED = "it is stopped"
    LOADING = "it loads modules"
    ASKING = "it waits for an answer to a question of its own"
    PRINTING = "it runs, and prints"
    DUMPING = "it told of a crash, and nothing since"


@dataclass(frozen=True, slots=True)
class Probed:
    """What became of the doctor's own questions."""

    resets: int = 0
    """RESETs that were sent."""
    asked: int = 0
    """Questions (GetVersion) that were asked."""
    answered: int = 0
    turnarounds: tuple[float, ...] = ()
    """Seconds from a question to its answer beyond what the line takes to carry both; of those answered at once."""
    retried: int = 0
    """Questions that had to be sent again."""
    silently: int = 0
    """Of those, how many without the target's having asked for it: it heard nothing of them."""
    rough: tuple[str, ...] = ()
    """Which bytes a question must not have in it: all with them failed, and all without them went well."""


@dataclass(frozen=True, slots=True)
class Signs:
    """All that is to be seen in what went over a line."""

    baud: int | None
    seconds: float
    received: int
    sent: int
    first: bytes
    """The first bytes that came."""
    packets: Counter[str] = field(default_factory=Counter)
    """Whole packets, by kind."""
    damage: Damage = field(default_factory=Damage)
    text: Console | None = None
    """All that came, as text."""
    foreign: Console | None = None
    """Text between packets."""
    misheard: tuple[Misheard, ...] = ()
    """What may have been sent at another speed, or upside down."""
    zeros: bool = False
    """All that came is 00."""
    strangers: tuple[str, ...] = ()
    """Packets that only somebody who talks to another debugger says."""
    echoed: bool = False
    resends: int = 0
    """RESENDs that the target sent."""
    resends_again: int = 0
    """Those right behind another one: what it got was damaged twice. The first alone may be for a lost acknowledge."""
    understood: bool | None = None
    """Whether the target hears what is sent to it; None: nothing was sent, or it cannot be told."""
    repeats: int = 0
    """How often a packet came again, though it had been acknowledged, after a target's time to wait for that."""
    doubles: int = 0
    """How often a packet came again at once."""
    condition: Condition = Condition.UNKNOWN
    stop: StateChange | None = None
    version: GetVersion64 | None = None
    prints: bytes = b""
    loads: tuple[str, ...] = ()
    stalls: int = 0
    """How often the line stood still in the middle of a packet."""
    died: bool = False
    """Packets came until something was sent, and nothing since."""
    probed: Probed = field(default_factory=Probed)


def find_signs(overheard: Overheard, probed: Probed | None = None) -> Signs:
    """Look at all that came."""
    stream = overheard.received
    ended = overheard.quiet >= _ENDED
    found, damage = scan(stream, ended=ended), study(stream, ended=ended)
    answers = scan(overheard.in_answer, ended=ended)
    speaks = bool(found.good or found.controls or found.damaged or damage.pattern)
    text = None if speaks else look_for_text(stream)
    echoed = _echoed(overheard, found)
    told = _told(found.good)
    repeats, doubles = _repeats(overheard, answers)
    return Signs(
        baud=overheard.baud,
        seconds=overheard.seconds,
        received=overheard.counted[False],
        sent=overheard.counted[True],
        first=stream[:256],
        packets=Counter(PacketType(one.packet_type).name for one in (*found.good, *found.controls)),
        damage=damage,
        text=text,
        foreign=look_for_text(found.between) if speaks and len(found.between) >= _LEAST_BETWEEN else None,
        misheard=() if speaks or text or not any(stream) else _misheard(_bursts(overheard.pieces), overheard.baud),
        zeros=bool(stream) and not any(stream),
        strangers=_strangers(scan(overheard.unasked, ended=ended)),
        echoed=echoed,
        resends=sum(_is_resend(one) for one in answers.controls),
        resends_again=sum(_is_resend(one) and _is_resend(two) for one, two in pairwise(answers.found)),
        understood=_understood(answers, repeats + doubles, overheard.counted[True] > 0, echoed),
        repeats=repeats,
        doubles=doubles,
        condition=told.condition,
        stop=told.stop,
        version=told.version,
        prints=bytes(told.prints),
        loads=tuple(dict.fromkeys(told.loads)),
        stalls=_stalls(overheard.pieces, found.good),
        died=bool(found.good and overheard.counted[True] and not overheard.in_answer),
        probed=probed or Probed(),
    )


def _bursts(pieces: Iterable[Piece]) -> list[bytes]:
    bursts: list[bytearray] = []
    last = float("-inf")
    for piece in pieces:
        if piece.sent:
            continue
        if piece.at - last > _PAUSE:
            bursts.append(bytearray())
        bursts[-1] += piece.data
        last = piece.at
    return [bytes(burst[:4096]) for burst in bursts[:64]]


def _misheard(bursts: Sequence[bytes], baud: int | None) -> tuple[Misheard, ...]:
    own = baud or USUAL_RATES[0]
    return tuple(unravel(bursts, [rate / own for rate in USUAL_RATES if rate != own]))


def _strangers(unasked: Scan) -> tuple[str, ...]:
    """Nothing was asked, so nothing can be acknowledged, and no two questions answered."""
    acknowledges = sum(one.packet_type == PacketType.ACKNOWLEDGE for one in unasked.controls)
    replies = {one.key for one in unasked.good if one.packet_type == PacketType.STATE_MANIPULATE}
    seen = []
    if acknowledges >= 2:
        seen.append(f"{acknowledges} acknowledges of packets that were not sent from here")
    if len(replies) >= 2:
        seen.append(f"{len(replies)} requests or replies that nobody here asked for")
    return tuple(seen)


def _echoed(overheard: Overheard, found: Scan) -> bool:
    """Whether what we sent came back. A target answers RESET by RESET: that alone says nothing."""
    ours = scan(overheard.sent)
    requests = [one.body for one in ours.good if one.packet_type == PacketType.STATE_MANIPULATE]
    heard = {one.body for one in found.good if one.packet_type == PacketType.STATE_MANIPULATE}
    if any(request in heard for request in requests):
        return True
    marked = {one.packet_id for one in ours.controls if one.packet_type == PacketType.RESET and one.packet_id}
    return any(one.packet_type == PacketType.RESET and one.packet_id in marked for one in found.controls)


def _understood(answers: Scan, again: int, asked: bool, echoed: bool) -> bool | None:
    if not asked or echoed:
        return None
    # An answer to a debugger that is gone is repeated, whoever listens; one to our question is not.
    if answers.controls or any(_is_answer(one) for one in answers.good):
        return True
    return False if again >= _REPEATED else None


def _is_resend(one: Found) -> bool:
    return one.packet_type == PacketType.RESEND


def _is_answer(one: Found) -> bool:
    api = int.from_bytes(one.body[:4], "little")
    return one.packet_type == PacketType.STATE_MANIPULATE and api == ApiNumber.GET_VERSION


def _repeats(overheard: Overheard, answers: Scan) -> tuple[int, int]:
    """Packets that came again though each was acknowledged at once: after a while, and at once."""
    arrivals = _arrivals(overheard)
    late = at_once = 0
    last: Found | None = None
    for one in answers.found:
        if one.packet_type == PacketType.RESET:
            last = None
        elif not one.control and one.shape is Shape.GOOD:
            if last is not None and (one.packet_id, one.body) == (last.packet_id, last.body):
                waited = arrivals(one.at) - arrivals(last.at + len(last.body))
                late, at_once = (late + 1, at_once) if waited > _AT_ONCE else (late, at_once + 1)
            last = one
    return late, at_once


def _arrivals(overheard: Overheard) -> Callable[[int], float]:
    """When the byte at an offset of `in_answer` came."""
    ends: list[int] = []
    times: list[float] = []
    asked = False
    for piece in overheard.pieces:
        asked = asked or piece.sent
        if asked and not piece.sent:
            ends.append((ends[-1] if ends else 0) + len(piece.data))
            times.append(piece.at)
    return lambda offset: times[min(bisect_right(ends, offset), len(times) - 1)]


def _stalls(pieces: Sequence[Piece], good: Sequence[Found]) -> int:
    starts: list[int] = []
    length, last = 0, float("-inf")
    for piece in pieces:
        if piece.sent:
            continue
        if piece.at - last > _STALL:
            starts.append(length)
        length += len(piece.data)
        last = piece.at
    return sum(one.at < start < one.at + _HEAD + one.size for start in starts for one in good)


@dataclass(slots=True)
class _Told:
    condition: Condition = Condition.UNKNOWN
    stop: StateChange | None = None
    version: GetVersion64 | None = None
    prints: bytearray = field(default_factory=bytearray)
    loads: list[str] = field(default_factory=list)


def _told(good: Iterable[Found]) -> _Told:
    """What the target said, and so what it does."""
    told = _Told()
    for one in good:
        try:
            _take(told, one)
        except KdError:
            continue
    if told.condition is Condition.PRINTING and _DUMPING.search(told.prints):
        told.condition = Condition.DUMPING
    return told


def _take(told: _Told, one: Found) -> None:
    if one.packet_type == PacketType.STATE_CHANGE64:
        change = StateChange.decode(one.body)
        if isinstance(change.event, LoadSymbols):
            told.condition = Condition.LOADING
            told.loads.append(change.event.path or "a module")
        elif isinstance(change.event, ExceptionChange):
            told.condition, told.stop = Condition.STOPPED, change
    elif one.packet_type == PacketType.DEBUG_IO:
        message = decode_debug_io(one.body)
        if isinstance(message, PrintString):
            if not told.prints.endswith(message.text):
                told.prints += message.text
            told.condition = Condition.PRINTING if told.condition is Condition.UNKNOWN else told.condition
        elif isinstance(message, GetString):
            told.condition = Condition.ASKING
    elif one.packet_type == PacketType.FILE_IO:
        FileIo.decode(one.body)
        told.condition = Condition.ASKING
    elif one.packet_type == PacketType.STATE_MANIPULATE:
        reply = Manipulate.decode(one.body)
        if reply.api == ApiNumber.GET_VERSION and reply.union.strip(b"\0"):
            told.version = GetVersion64.decode(reply.union)
