"""A debugger's conversation: every event it tells, one question at a time, what is asked again (kd-protocol 1.9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest

from protocol.connection import KdConnection
from protocol.conversation import (
    Conversation,
    FailureReason,
    FileDeclined,
    KdEvent,
    Malformed,
    OrphanReply,
    Printed,
    PromptAnswered,
    Replied,
    RequestFailed,
    StateChanged,
    Told,
    TraceReceived,
)
from protocol.debug_io import ControlRequest, GetString, GetStringReply, PrintString, TraceIo
from protocol.errors import LocalProtocolError
from protocol.file_io import FileIo
from protocol.kdcom import KdcomLink
from protocol.link import Discard, Discarded, LinkRestarted, Role
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import encode_control, encode_data
from protocol.state_change import StateChange
from tests.raw import A, ack, attached, change_bytes, ids_and_types, kd_events_of, reply_packet, sent

_ACK, _RESET = 4, 6
_READ = Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=0xFFFFF80000003000, transfer_count=4)
_ANSWER = _READ.reply(0, data=b"abcd", actual_bytes=4)
_VERSION = Manipulate.request(ApiNumber.GET_VERSION)
_WRITE = Manipulate.request(ApiNumber.WRITE_VIRTUAL_MEMORY, address=0xFFFFF80000003000, transfer_count=1, data=b"x")
_CONTINUE = Manipulate.request(
    ApiNumber.CONTINUE2, continue_status=0x10002, trace_flag=0, dr7=0x400, current_symbol_start=1
)
_PRINT = PrintString(6, 2, b"hello\n")
_PROMPT = GetString(6, 0, b"Break, Ignore (bi)? ", 2)
_FILE = FileIo.create("\\Windows\\x.sys")


def _asking(request: Manipulate, *, repeatable: bool = False) -> KdConnection:
    """A request has been sent and acknowledged: the target owes a reply with id A | 1."""
    host = attached()
    host.ask(request, 0.0, repeatable=repeatable)
    assert ids_and_types(sent(host)) == [(2, A)]
    host.receive_data(ack(A), 0.0)
    assert kd_events_of(host) == ([Told(request)] if request is _CONTINUE else [])
    return host


def _busy(host: KdConnection) -> bool:
    return host.busy


def _state(host: KdConnection) -> Conversation:
    return host.state


def _hear(host: KdConnection, *wire: bytes, now: float = 0.0) -> list[KdEvent]:
    host.receive_data(b"".join(wire), now)
    return kd_events_of(host)


# ---- events ----------------------------------------------------------------------------------------------------------

_CHANGE, _OTHER = StateChange.decode(change_bytes()), StateChange.decode(change_bytes(0x1234))
_EVENTS: list[tuple[Callable[[], KdConnection], bytes, list[KdEvent]]] = [
    (attached, encode_data(7, A | 1, change_bytes(0x1234)), [StateChanged(_OTHER, False)]),
    (attached, encode_data(7, A | 1, change_bytes()), [StateChanged(_CHANGE, True)]),
    (lambda: _asking(_CONTINUE), encode_data(7, A | 1, change_bytes()), [StateChanged(_CHANGE, False)]),
    (lambda: _asking(_READ), reply_packet(A | 1, _ANSWER), [Replied(_READ, _ANSWER)]),
    (attached, reply_packet(A | 1, _ANSWER), [OrphanReply(_ANSWER), Discarded(Discard.STALE_REPLY, 60, b"")]),
    (attached, encode_data(3, A | 1, _PRINT.encode()), [Printed(2, b"hello\n")]),
    (attached, encode_data(3, A | 1, _PROMPT.encode()), [PromptAnswered(_PROMPT.prompt, b"b")]),
    (attached, encode_data(11, A | 1, _FILE.encode()), [FileDeclined("\\Windows\\x.sys")]),
    (attached, encode_data(9, A | 1, TraceIo(0, 0, b"etw").encode()), [TraceReceived(3)]),
    (attached, encode_data(10, A | 1, ControlRequest(0x4300, 1, 1).encode()), [TraceReceived(12)]),
    (attached, encode_control(_RESET), [LinkRestarted(False)]),
    (attached, b"noise", [Discarded(Discard.NOISE, 5, b"noise")]),
]  # fmt: skip


@pytest.mark.parametrize(("start", "wire", "events"), _EVENTS)
def test_what_a_packet_says_is_told(start: Callable[[], KdConnection], wire: bytes, events: list[KdEvent]) -> None:
    host = start()
    assert _hear(host, wire) == events


@pytest.mark.parametrize("kind", [1, 2, 3, 7, 9, 10, 11])
def test_a_message_of_every_type_that_makes_no_sense_is_told_and_survived(kind: int) -> None:
    host = _asking(_READ)
    malformed, discarded = _hear(host, encode_data(kind, A | 1, b"\xff" * 8))
    assert isinstance(malformed, Malformed) and malformed.packet_type == kind and malformed.problem
    assert discarded == Discarded(Discard.MALFORMED_MESSAGE, 8, b"\xff" * 8)
    assert ids_and_types(sent(host)) == [(_ACK, A | 1)]
    assert _hear(host, reply_packet(A, _ANSWER)) == [Replied(_READ, _ANSWER)]


def test_nothing_else_can_be_told() -> None:
    here = {type(event) for _, _, events in _EVENTS for event in events} | {Told, RequestFailed, Malformed}
    assert set(get_args(KdEvent)) == here


def test_the_target_s_state_is_what_it_last_showed() -> None:
    host = KdConnection(KdcomLink(Role.HOST))
    assert (host.state, host.change, host.synchronized) == (Conversation.UNKNOWN, None, False)
    _hear(host, encode_data(7, A | 0x800, change_bytes()))
    assert (host.state, host.change, host.synchronized) == (Conversation.STOPPED, _CHANGE, True)
    host.ask(_CONTINUE, 0.0)
    assert _state(host) is Conversation.STOPPED, "not before it is acknowledged"
    assert _hear(host, ack(A)) == [Told(_CONTINUE)]
    assert _state(host) is Conversation.RUNNING
    # A late reply shows that it stands.
    host = KdConnection(KdcomLink(Role.HOST))
    host.ask(_VERSION, 0.0)
    _hear(host, ack(A), reply_packet(A, _VERSION.reply(0)))
    assert (host.state, host.change) == (Conversation.STOPPED, None)


# ---- asking ----------------------------------------------------------------------------------------------------------


def test_a_target_s_end_is_no_debugger() -> None:
    with pytest.raises(LocalProtocolError, match="host's end"):
        KdConnection(KdcomLink(Role.TARGET))


def test_one_question_at_a_time() -> None:
    host = _asking(_READ)
    assert _busy(host)
    with pytest.raises(LocalProtocolError, match="one question at a time"):
        host.ask(_VERSION, 0.0)
    _hear(host, reply_packet(A | 1, _ANSWER))
    assert not _busy(host)
    sent(host)
    host.ask(_VERSION, 0.0)
    assert ids_and_types(sent(host)) == [(2, A | 1)]


def test_a_question_behind_an_abandoned_one_waits_for_its_end() -> None:
    host = _asking(_READ, repeatable=True)
    host.abandon()
    assert not _busy(host)
    host.ask(_VERSION, 0.0)
    assert _busy(host) and sent(host) == []
    with pytest.raises(LocalProtocolError):
        host.ask(_VERSION, 0.0)
    assert _hear(host, reply_packet(A | 1, _ANSWER)) == [OrphanReply(_ANSWER)]
    assert ids_and_types(sent(host)) == [(_ACK, A | 1), (2, A | 1)]
    assert _hear(host, ack(A | 1), reply_packet(A, _VERSION.reply(0))) == [Replied(_VERSION, _VERSION.reply(0))]


def test_abandoning_twice_abandons_what_waited_too() -> None:
    host = _asking(_READ)
    host.abandon()
    host.ask(_VERSION, 0.0)
    host.abandon()
    assert _hear(host, reply_packet(A | 1, _ANSWER)) == [OrphanReply(_ANSWER)]
    assert ids_and_types(sent(host)) == [(_ACK, A | 1)] and not host.busy


def test_an_abandoned_question_that_fails_fails_in_silence() -> None:
    host = _asking(_READ, repeatable=True)
    host.abandon()
    host.ask(_VERSION, 0.0)
    host.handle_timeout(host.next_timeout() or 0.0)
    assert kd_events_of(host) == []
    assert [packet.packet_type for packet in sent(host)] == [2], "and the next one is asked, without a reset"


def test_nobody_answers_for_another_processor_s_garbage() -> None:
    # Processor fields may be garbage: they decide nothing.
    reply = Manipulate(_ANSWER.api, 0x504, 257, 0, _ANSWER.padding, _ANSWER.union, b"abcd")
    assert _hear(_asking(_READ), reply_packet(A | 1, reply)) == [Replied(_READ, reply)]


# ---- asking again ----------------------------------------------------------------------------------------------------


def test_silence_after_the_acknowledge_is_a_reset_and_the_question_again() -> None:
    host = _asking(_READ, repeatable=True)
    assert host.next_timeout() == 5.0
    host.handle_timeout(4.9)
    assert sent(host) == []
    host.handle_timeout(5.0)
    assert ids_and_types(sent(host)) == [(_RESET, 0)]
    events = _hear(host, encode_control(_RESET), encode_data(7, A, change_bytes()), now=5.1)
    assert [type(event) for event in events] == [LinkRestarted, StateChanged]
    again = sent(host)
    assert ids_and_types(again) == [(_ACK, A), (2, A)] and again[1].payload == _READ.encode()
    assert _hear(host, ack(A), reply_packet(A | 1, _ANSWER), now=5.2) == [Replied(_READ, _ANSWER)]


def test_silence_that_goes_on_is_a_failure_after_four_resets() -> None:
    host = _asking(_READ, repeatable=True)
    resets = 0
    while (due := host.next_timeout()) is not None:
        host.handle_timeout(due)
        resets += sum(packet.packet_type == _RESET for packet in sent(host))
    assert resets == 4
    assert kd_events_of(host) == [RequestFailed(_READ, FailureReason.NO_REPLY)]
    assert not host.busy


def test_what_must_not_be_asked_twice_fails_at_the_first_silence() -> None:
    host = _asking(_WRITE)
    host.handle_timeout(5.0)
    assert (kd_events_of(host), sent(host)) == ([RequestFailed(_WRITE, FailureReason.NO_REPLY)], [])


def test_a_line_that_talks_of_other_things_puts_the_silence_off() -> None:
    host = _asking(_READ, repeatable=True)
    _hear(host, encode_data(3, A | 1, _PRINT.encode()), now=4.0)
    assert host.next_timeout() == 9.0


def test_what_is_thrown_away_does_not_put_the_silence_off() -> None:
    """A target that hears nothing repeats its last reply for ever; somebody else's console never ends either."""
    for worthless in (encode_data(7, A, change_bytes()), b"login: "):
        host = _asking(_READ, repeatable=True)
        for second in range(1, 300):
            host.receive_data(worthless, second)
            host.handle_timeout(second)
            kd_events_of(host)
            if not _busy(host):
                break
        assert not _busy(host), "given up"


def test_a_reply_that_comes_damaged_is_waited_for_but_not_for_ever() -> None:
    """Until its reply was acknowledged, a target does nothing else (kd-protocol 1.9)."""
    damaged = bytearray(reply_packet(A | 1, _ANSWER))
    damaged[20] ^= 1
    host = _asking(_READ)
    for second in range(1, 60):
        host.receive_data(bytes(damaged), second)
        host.handle_timeout(second)
        assert _busy(host)
    host.receive_data(reply_packet(A | 1, _ANSWER), 60.0)
    assert [event for event in kd_events_of(host) if isinstance(event, Replied)] == [Replied(_READ, _ANSWER)]
    for pieces in (1, 4):
        other = _asking(_READ)
        for second in range(1, 70):
            # A slow line brings it bit by bit.
            for at in range(0, len(damaged), len(damaged) // pieces):
                other.receive_data(bytes(damaged[at : at + len(damaged) // pieces]), second)
            other.handle_timeout(second)
        assert not _busy(other)


@pytest.mark.parametrize("repeatable", [False, True])
def test_without_an_acknowledge_it_fails_or_the_line_is_reset(repeatable: bool) -> None:
    host = attached()
    host.ask(_READ, 0.0, repeatable=repeatable, tries=2)
    sent(host)
    for _ in range(2):
        host.handle_timeout(host.next_timeout() or 0.0)
    kinds = [packet.packet_type for packet in sent(host)]
    if repeatable:
        assert (kinds, kd_events_of(host)) == ([2, _RESET], [])
    else:
        assert (kinds, kd_events_of(host)) == ([2], [RequestFailed(_READ, FailureReason.NOT_ACKNOWLEDGED)])


@pytest.mark.parametrize("acknowledged", [False, True])
@pytest.mark.parametrize("restart", [encode_control(_RESET), encode_data(7, A | 0x800, change_bytes(0x1234))])
def test_a_restart_of_the_target(restart: bytes, acknowledged: bool) -> None:
    for repeatable in (False, True):
        host = attached()
        host.ask(_READ, 0.0, repeatable=repeatable)
        sent(host)
        if acknowledged:
            _hear(host, ack(A))
        events = _hear(host, restart)
        assert LinkRestarted(False) in events
        if not repeatable:
            assert RequestFailed(_READ, FailureReason.RESTARTED) in events and not host.busy
            continue
        # It waits for the event, then asks again.
        if restart == encode_control(_RESET):
            assert [packet.packet_type for packet in sent(host)] == [_RESET]
            _hear(host, encode_data(7, A, change_bytes()))
        assert ids_and_types(sent(host)) == [(_ACK, A), (2, A)]
        assert _hear(host, ack(A), reply_packet(A | 1, _ANSWER)) == [Replied(_READ, _ANSWER)]


def test_an_event_instead_of_a_reply_four_times_and_no_more() -> None:
    host = _asking(_READ, repeatable=True)
    packet_id, events, asked = A | 1, [], 0
    for _ in range(6):
        events += _hear(host, encode_data(7, packet_id, change_bytes()))
        requests = [packet for packet in sent(host) if packet.packet_type == 2]
        asked += len(requests)
        for packet in requests:
            events += _hear(host, ack(packet.packet_id))
        packet_id ^= 1
    assert asked == 4
    assert [event for event in events if isinstance(event, RequestFailed)] == [
        RequestFailed(_READ, FailureReason.NO_REPLY)
    ]


# ---- answers that the target waits for -------------------------------------------------------------------------------


def test_a_prompt_is_answered_with_break_as_far_as_there_is_room() -> None:
    for room, text in ((8, b"b"), (1, b"b"), (0, b"")):
        host = attached()
        _hear(host, encode_data(3, A | 1, GetString(6, 3, b"? ", room).encode()))
        packets = sent(host)
        assert ids_and_types(packets) == [(_ACK, A | 1), (3, A)]
        assert packets[1].payload == GetStringReply(6, 3, 2, text).encode()


def test_an_answer_waits_for_the_request_before_it_and_a_request_for_the_answer() -> None:
    host = attached()
    _hear(host, encode_data(3, A | 1, _PROMPT.encode()))
    assert ids_and_types(sent(host)) == [(_ACK, A | 1), (3, A)]
    host.ask(_READ, 0.0)
    assert sent(host) == [], "the answer is not acknowledged yet"
    _hear(host, ack(A))
    assert ids_and_types(sent(host)) == [(2, A | 1)]


def test_a_request_that_waited_for_an_answer_keeps_its_own_number_of_tries() -> None:
    host = attached()
    _hear(host, encode_data(3, A | 1, _PROMPT.encode()))
    sent(host)
    host.ask(_CONTINUE, 0.0, tries=3)
    _hear(host, ack(A))
    count = len(sent(host))
    while (due := host.next_timeout()) is not None:
        host.handle_timeout(due)
        count += len(sent(host))
    assert count == 3
    assert kd_events_of(host) == [RequestFailed(_CONTINUE, FailureReason.NOT_ACKNOWLEDGED)]


def test_an_answer_goes_out_when_the_reply_shows_that_the_request_arrived() -> None:
    host = attached()
    host.ask(_READ, 0.0)
    sent(host)
    _hear(host, encode_data(3, A | 1, _PROMPT.encode()))
    assert ids_and_types(sent(host)) == [(_ACK, A | 1)], "one packet at a time"
    assert _hear(host, reply_packet(A, _ANSWER)) == [Replied(_READ, _ANSWER)]
    assert ids_and_types(sent(host)) == [(_ACK, A), (3, A | 1)]


def test_of_answers_that_nobody_takes_only_the_newest_is_kept() -> None:
    host = attached()
    packet_id = A | 1
    for number in range(500):
        _hear(host, encode_data(3, packet_id, GetString(0, 0, b"%d" % number, 8).encode()))
        packet_id ^= 1
    sent(host)
    # The first was sent and is not acknowledged; of the rest, one is left.
    _hear(host, ack(A))
    answers = sent(host)
    assert [packet.payload for packet in answers] == [GetStringReply(0, 0, 3, b"b").encode()]
    _hear(host, ack(A | 1))
    assert sent(host) == []


def test_an_answer_that_is_not_acknowledged_ends_no_question() -> None:
    host = attached()
    _hear(host, encode_data(11, A | 1, _FILE.encode()))
    sent(host)
    for _ in range(20):
        if (due := host.next_timeout()) is not None:
            host.handle_timeout(due)
    assert kd_events_of(host) == [] and host.next_timeout() is None
    sent(host)
    host.ask(_READ, 30.0)
    assert ids_and_types(sent(host)) == [(2, A)]


# ---- several packets in one chunk ------------------------------------------------------------------------------------


def _unacknowledged(request: Manipulate) -> KdConnection:
    host = attached()
    host.ask(request, 0.0)
    sent(host)
    return host


def test_what_comes_right_behind_a_reply_is_not_lost_with_the_acknowledge() -> None:
    events = _hear(_unacknowledged(_READ), reply_packet(A | 1, _ANSWER), encode_data(3, A, _PRINT.encode()))
    assert events == [Replied(_READ, _ANSWER), Printed(2, b"hello\n")]


def test_prints_behind_a_continue_keep_their_order() -> None:
    first, second = (encode_data(3, i, PrintString(0, 0, text).encode()) for i, text in ((A | 1, b"1"), (A, b"2")))
    events = _hear(_unacknowledged(_CONTINUE), first, second)
    assert events == [Told(_CONTINUE), Printed(0, b"1"), Printed(0, b"2")]


def test_a_late_acknowledge_is_not_the_next_question_s() -> None:
    host = _unacknowledged(_READ)
    host.abandon()
    host.ask(_CONTINUE, 0.0)
    events = _hear(host, reply_packet(A | 1, _ANSWER), ack(A))
    assert events == [OrphanReply(_ANSWER), Discarded(Discard.STRAY_ACKNOWLEDGE, 16, ack(A))]
    assert host.state is Conversation.STOPPED and host.busy
    assert ids_and_types(sent(host)) == [(_ACK, A | 1), (2, A | 1)]
    assert _hear(host, ack(A | 1)) == [Told(_CONTINUE)]
