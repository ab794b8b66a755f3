"""Both ends of a KDCOM line against any bytes at any time: events only, bounded memory, and every packet once."""

from __future__ import annotations

from collections import deque
from itertools import zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError
from protocol.kdcom import KdcomLink
from protocol.link import (
    Discard,
    Discarded,
    LinkEvent,
    LinkRestarted,
    PacketAcknowledged,
    PacketReceived,
    Role,
)
from protocol.packet import SYNC_PACKET_ID, PacketType
from tests.protocol.streams import A, chunked, streams
from tests.raw import change_bytes, events_of

pytestmark = pytest.mark.slow

_LARGEST_PACKET = 16 + 4160 + 1
_CUTS = st.lists(st.integers(0, 20_000), max_size=12)
_STEPS = st.lists(
    st.one_of(
        streams.map(lambda stream: ("hear", stream)),
        st.sampled_from([
            ("send", b""), ("send for ever", b""), ("timeout", b""), ("later", b""), ("reset", b""), ("break", b""),
            ("imply", b""), ("poll", b""), ("run", b""), ("stop", b""), ("want prompt", b""), ("give up", b""),
        ]),
    ),
    max_size=25,
)  # fmt: skip


def _step(link: KdcomLink, verb: str, data: bytes, now: float) -> None:
    match verb:
        case "hear":
            link.receive_data(data, now)
        case "send" | "send for ever":
            if link.idle:
                link.send_packet(2, bytes(56), now, tries=0 if verb == "send for ever" else None)
            else:
                with pytest.raises(LocalProtocolError):
                    link.send_packet(2, bytes(56), now)
        case "timeout":
            link.handle_timeout(link.next_timeout() or now)
        case "later":
            link.handle_timeout(now)
        case "reset" if link.role is Role.HOST:
            link.send_reset(now)
        case "break" if link.role is Role.HOST:
            link.send_break_in(now)
        case "imply" if link.role is Role.HOST:
            link.imply_acknowledge()
        case "poll" if link.role is Role.TARGET:
            link.poll()
        case "run" | "stop" if link.role is Role.TARGET:
            link.set_polling(verb == "run", now)
        case "want prompt" if link.role is Role.TARGET:
            link.want(PacketType.DEBUG_IO)
        case "give up" if link.role is Role.TARGET:
            link.give_up()


def _quiet(link: KdcomLink, now: float) -> list[LinkEvent]:
    """Let every timer run out that is due: each is done then, or moved on."""
    events: list[LinkEvent] = []
    for _ in range(_LARGEST_PACKET):
        link.handle_timeout(now)
        events += events_of(link)
        due = link.next_timeout()
        if due is None or due > now:
            return events
    raise AssertionError("time does not pass")


@pytest.mark.parametrize("role", list(Role))
@given(steps=_STEPS)
def test_whatever_comes_and_whatever_is_done_there_are_only_events(role: Role, steps: list[tuple[str, bytes]]) -> None:
    link = KdcomLink(role)
    now = 0.0
    for verb, data in steps:
        now = max(now + 0.3, link.next_timeout() or 0.0) if verb == "timeout" else now + 0.3
        _step(link, verb, data, now)
        for event in events_of(link):
            if isinstance(event, PacketReceived):
                assert event.packet_id & ~(SYNC_PACKET_ID | 1) == A and len(event.payload) <= 4160
        link.data_to_send()
        # At most one unfinished packet, and what the UART of a running target keeps.
        assert link._reader.pending < _LARGEST_PACKET
        assert link.polled <= 1 << 16
        due = link.next_timeout()
        if due is not None:
            _quiet(link, max(due, now))


def _joined(events: list[LinkEvent]) -> list[LinkEvent]:
    """Noise that came in pieces is the same noise."""
    made: list[LinkEvent] = []
    for event in events:
        last = made[-1] if made else None
        if (
            isinstance(event, Discarded)
            and isinstance(last, Discarded)
            and event.reason is last.reason is Discard.NOISE
        ):
            made[-1] = Discarded(last.reason, last.count + event.count, b"")
        elif isinstance(event, Discarded) and event.reason is Discard.NOISE:
            made.append(Discarded(event.reason, event.count, b""))
        else:
            made.append(event)
    return made


@pytest.mark.parametrize("outstanding", [False, True])
@pytest.mark.parametrize("role", list(Role))
@given(stream=streams, cuts=_CUTS)
def test_how_a_stream_is_cut_changes_nothing(role: Role, outstanding: bool, stream: bytes, cuts: list[int]) -> None:
    told: list[tuple[list[LinkEvent], bytes]] = []
    for pieces in ([stream], chunked(stream, cuts), [stream[n : n + 1] for n in range(len(stream))]):
        link = KdcomLink(role)
        if outstanding:
            link.send_packet(2, bytes(56), 0.0, tries=0)
        events: list[LinkEvent] = []
        for piece in pieces:
            link.receive_data(piece, 0.0)
            events += events_of(link)
        events += _quiet(link, 1.0)
        told.append((_joined(events), b"".join(link.data_to_send())))
    assert told[0] == told[1] == told[2]


@given(streams, _CUTS)
def test_a_host_accounts_for_every_byte(stream: bytes, cuts: list[int]) -> None:
    host = KdcomLink(Role.HOST)
    events: list[LinkEvent] = []
    for piece in chunked(stream, cuts):
        host.receive_data(piece, 0.0)
        events += events_of(host)
    events += _quiet(host, 1.0)
    heard = 0
    for event, following in zip_longest(events, events[1:]):
        match event:
            case PacketReceived():
                heard += 16 + len(event.payload) + 1
            case Discarded(reason=Discard.DUPLICATE | Discard.BAD_CHECKSUM):
                heard += 16 + event.count + 1
            case Discarded():
                heard += event.count
            case LinkRestarted():
                # A RESET, unless the packet that comes next says it by its id.
                by_id = isinstance(following, PacketReceived) and following.packet_id & SYNC_PACKET_ID
                heard += 0 if by_id else 16
            case _:
                raise AssertionError(f"{event} without a packet of ours outstanding")
    assert heard == len(stream)


class _Ends:
    """A host and a target on a line that spoils chunks as it is told, and then is a good one."""

    def __init__(self, faults: list[str]) -> None:
        self.host = KdcomLink(Role.HOST)
        self.target = KdcomLink(Role.TARGET)
        self.faults = deque(faults)
        self.now = 0.0

    def _spoilt(self, chunk: bytes) -> bytes:
        fault = self.faults.popleft() if self.faults else "none"
        match fault:
            case "lost":
                return b""
            case "twice":
                return chunk * 2
            case "head":
                return chunk[: len(chunk) // 2]
            case "tail":
                return chunk[len(chunk) // 2 :]
            case "flipped":
                # In the payload or the trailer, where the sum or the trailer tells; a header has no sum of its own.
                return chunk[:-1] + bytes([chunk[-1] ^ 0x41]) if len(chunk) > 16 else chunk
            case _:
                return chunk

    def go(self) -> tuple[list[LinkEvent], list[LinkEvent]]:
        """Move bytes; when nobody has any, let time pass until somebody has."""
        for here, there in ((self.host, self.target), (self.target, self.host)):
            for chunk in here.data_to_send():
                there.receive_data(self._spoilt(chunk), self.now)
        due = [at for end in (self.host, self.target) if (at := end.next_timeout()) is not None]
        heard = events_of(self.host), events_of(self.target)
        if due and not any(heard):
            self.now = max(self.now, min(due))
            self.host.handle_timeout(self.now)
            self.target.handle_timeout(self.now)
        return heard


_FAULTS = st.lists(st.sampled_from(["none", "lost", "twice", "head", "tail", "flipped"]), max_size=14)


@given(_FAULTS)
def test_over_a_bad_line_every_request_and_every_reply_arrives_once_and_in_order(faults: list[str]) -> None:
    ends = _Ends(faults)
    requests = [bytes([n]) * 56 for n in range(1, 6)]
    asked: list[bytes] = []
    answered: list[bytes] = []
    ends.target.send_packet(7, change_bytes(), 0.0, tries=0)
    for _ in range(1000):
        at_host, at_target = ends.go()
        for event in at_target:
            if isinstance(event, PacketReceived):
                asked.append(event.payload)
                ends.target.send_packet(2, event.payload + b"!", ends.now, tries=0)
        for event in at_host:
            if isinstance(event, PacketReceived):
                if event.packet_type == PacketType.STATE_MANIPULATE:
                    answered.append(event.payload)
                    ends.host.imply_acknowledge()
                if len(answered) < len(requests) and ends.host.idle:
                    ends.host.send_packet(2, requests[len(answered)], ends.now, tries=0)
        if len(answered) == len(requests) and ends.target.idle:
            break
    assert asked == requests
    assert answered == [request + b"!" for request in requests]


@given(_FAULTS)
def test_over_a_bad_line_every_print_arrives_once_and_in_order(faults: list[str]) -> None:
    ends = _Ends(faults)
    texts = [b"%d" % n * 20 for n in range(6)]
    heard: list[bytes] = []
    left = deque(texts)
    for _ in range(1000):
        if ends.target.idle:
            if not left:
                break
            ends.target.send_packet(3, left.popleft(), ends.now, tries=0)
        at_host, at_target = ends.go()
        heard += [event.payload for event in at_host if isinstance(event, PacketReceived)]
        assert not any(isinstance(event, LinkRestarted) for event in at_host)
        assert sum(isinstance(event, PacketAcknowledged) for event in at_target) <= 1
    assert heard == texts
