"""A debugger's conversation against any bytes at any time: events only, in bounded memory, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.connection import KdConnection
from protocol.conversation import KdEvent, Replied, RequestFailed, Told
from protocol.debug_io import GetString, PrintString, TraceIo
from protocol.errors import LocalProtocolError
from protocol.file_io import FileIo
from protocol.kdcom import KdcomLink
from protocol.link import Discard, Discarded, Role
from protocol.manipulate import NO_REPLY, ApiNumber, Manipulate
from protocol.packet import encode_control, encode_data
from tests.protocol.streams import IDS, A, chunked, streams
from tests.raw import change_bytes, kd_events_of

_APIS = st.sampled_from(
    [ApiNumber.READ_VIRTUAL_MEMORY, ApiNumber.GET_VERSION, ApiNumber.CONTINUE2, ApiNumber.REBOOT, ApiNumber.GET_CONTEXT]
)
_REPLIES = st.builds(
    lambda api, status, data: Manipulate.request(api).reply(status, data=data).encode(),
    _APIS,
    st.sampled_from([0, 0xC0000001, 0x103]),
    st.binary(max_size=20),
)
_MESSAGES = st.one_of(
    st.sampled_from([change_bytes(), change_bytes(0x1234)]).map(lambda payload: (7, payload)),
    _REPLIES.map(lambda payload: (2, payload)),
    _REPLIES.map(lambda payload: (2, payload[:16])),
    st.just((3, PrintString(0, 0, b"print").encode())),
    st.just((3, GetString(0, 0, b"? ", 8).encode())),
    st.just((9, TraceIo(0, 0, b"etw").encode())),
    st.just((11, FileIo.create("x").encode())),
    st.tuples(st.sampled_from([1, 2, 3, 7, 9, 10, 11]), st.binary(max_size=60)),
)
_WIRE = st.one_of(
    st.builds(lambda message, packet_id: encode_data(message[0], packet_id, message[1]), _MESSAGES, IDS),
    st.builds(encode_control, st.sampled_from([4, 4, 5, 6]), IDS),
)
_CONVERSATIONS = st.lists(_WIRE, max_size=8).map(b"".join)
_STEPS = st.lists(
    st.one_of(
        st.one_of(_WIRE, streams).map(lambda wire: ("hear", wire)),
        st.sampled_from([("timeout", b""), ("abandon", b""), ("reset", b""), ("break", b"")]),
        _APIS.map(lambda api: ("ask", int(api).to_bytes(4, "little"))),
        _APIS.map(lambda api: ("ask again and again", int(api).to_bytes(4, "little"))),
    ),
    max_size=30,
)


@given(_STEPS)
def test_whatever_comes_every_question_ends_once_and_nothing_is_raised(steps: list[tuple[str, bytes]]) -> None:
    host = KdConnection(KdcomLink(Role.HOST))
    now = 0.0
    open_questions = 0

    def settle() -> None:
        nonlocal open_questions
        for event in kd_events_of(host):
            if isinstance(event, Replied | Told | RequestFailed):
                open_questions -= 1
                assert open_questions >= 0
            if isinstance(event, Told):
                assert event.request.api in NO_REPLY
            if isinstance(event, Replied):
                assert event.reply.api == event.request.api and event.request.api not in NO_REPLY
        host.data_to_send()
        assert host.busy is bool(open_questions)
        assert len(host._queue) <= 2

    for verb, data in steps:
        now += 0.3
        match verb:
            case "hear":
                host.receive_data(data, now)
            case "timeout":
                now = max(now, host.next_timeout() or now)
                host.handle_timeout(now)
            case "abandon":
                host.abandon()
                open_questions = 0
            case "reset":
                host.send_reset(now)
            case "break":
                host.send_break_in(now)
            case _:
                request = Manipulate.request(ApiNumber(int.from_bytes(data, "little")))
                repeatable = request.api not in NO_REPLY and verb != "ask"
                if host.busy:
                    with pytest.raises(LocalProtocolError):
                        host.ask(request, now, repeatable=repeatable)
                else:
                    host.ask(request, now, repeatable=repeatable)
                    open_questions += 1
        settle()
    # On a line that is dead from here on, every timer runs out and every question has ended.
    for _ in range(200):
        due = host.next_timeout()
        if due is None:
            break
        now = max(now, due)
        host.handle_timeout(now)
        settle()
    assert host.next_timeout() is None
    assert open_questions == 0


def _joined(events: list[KdEvent]) -> list[KdEvent]:
    """Noise that came in pieces is the same noise."""
    made: list[KdEvent] = []
    for event in events:
        if isinstance(event, Discarded) and event.reason is Discard.NOISE:
            last = made[-1] if made else None
            if isinstance(last, Discarded) and last.reason is Discard.NOISE:
                made[-1] = Discarded(Discard.NOISE, last.count + event.count, b"")
            else:
                made.append(Discarded(Discard.NOISE, event.count, b""))
        else:
            made.append(event)
    return made


@given(
    st.sampled_from([None, ApiNumber.READ_VIRTUAL_MEMORY, ApiNumber.GET_VERSION, ApiNumber.CONTINUE2]),
    st.sampled_from([None, ApiNumber.GET_VERSION, ApiNumber.CONTINUE2]),
    st.one_of(_CONVERSATIONS, streams),
    st.lists(st.integers(0, 2000), max_size=8),
)
def test_how_a_stream_is_cut_changes_nothing(
    first: ApiNumber | None, second: ApiNumber | None, stream: bytes, cuts: list[int]
) -> None:
    told = []
    for pieces in ([stream], chunked(stream, cuts), [stream[n : n + 1] for n in range(len(stream))]):
        host = KdConnection(KdcomLink(Role.HOST))
        host.receive_data(encode_data(7, A | 0x800, change_bytes()), 0.0)
        if first is not None:
            host.ask(Manipulate.request(first), 0.0, repeatable=first not in NO_REPLY)
            if second is not None:
                host.abandon()
                host.ask(Manipulate.request(second), 0.0, repeatable=second not in NO_REPLY)
        for piece in pieces:
            host.receive_data(piece, 0.0)
        told.append((_joined(kd_events_of(host)), host.data_to_send(), host.state, host.busy))
    assert told[0] == told[1] == told[2]
