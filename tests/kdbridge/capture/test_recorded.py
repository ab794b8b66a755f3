"""What a recorded machine answers: what it answered then, put together anew, and never what it did not say."""

from __future__ import annotations

import pytest

from kdbridge.capture.recorded import RecordedPacket, RecordedStop, stops_of
from protocol.manipulate import ApiNumber, Manipulate
from protocol.ntstatus import STATUS_UNSUCCESSFUL
from protocol.packet import PacketType
from protocol.state_change import ExceptionChange, StateChange

_VIRTUAL, _PHYSICAL = ApiNumber.READ_VIRTUAL_MEMORY, ApiNumber.READ_PHYSICAL_MEMORY
_FAULT = 0xC0000005


def _change(place: int) -> bytes:
    event = ExceptionChange(0x80000003, 0, 0, place, (0,), True)
    return StateChange(0, 0, 1, 0xFFFF8000_00001000, place, event, bytes(0x40)).encode()


def _stopped(place: int = 0x1000) -> RecordedPacket:
    return RecordedPacket(0.0, False, PacketType.STATE_CHANGE64, _change(place))


def _told(message: Manipulate, *, to_target: bool) -> RecordedPacket:
    return RecordedPacket(0.0, to_target, PacketType.STATE_MANIPULATE, message.encode())


def _asked(request: Manipulate, status: int = 0, data: bytes = b"", **fields: int) -> list[RecordedPacket]:
    return [_told(request, to_target=True), _told(request.reply(status, data=data, **fields), to_target=False)]


def _read(address: int, size: int, api: ApiNumber = _VIRTUAL, garbage: int = 0) -> Manipulate:
    return Manipulate.request(api, address=address, transfer_count=size, actual_bytes=garbage)


def _came(
    address: int, data: bytes, size: int | None = None, status: int = 0, api: ApiNumber = _VIRTUAL
) -> list[RecordedPacket]:
    return _asked(_read(address, size or len(data), api, garbage=77), status, data, actual_bytes=len(data))


def _stop(*packets: list[RecordedPacket]) -> RecordedStop:
    (stop,) = stops_of([_stopped(), *(one for several in packets for one in several)])
    return stop


def test_a_read_is_put_together_from_several_and_cut_to_what_is_asked() -> None:
    stop = _stop(_came(0x2000, b"abcd"), _came(0x2004, b"efgh"), _came(0x2002, b"cdef"))
    answer = stop.answer(_read(0x2001, 6))
    assert (answer.missing, answer.reply.status, answer.reply.data) == ("", 0, b"bcdefg")
    assert answer.reply.fields() == {"address": 0x2001, "transfer_count": 6, "actual_bytes": 6}


def test_up_to_a_hole_the_bytes_come_with_a_failure_and_the_hole_is_named() -> None:
    answer = _stop(_came(0x2000, b"abcd")).answer(_read(0x2002, 8))
    assert (answer.reply.status, answer.reply.data) == (STATUS_UNSUCCESSFUL, b"cd")
    assert answer.reply.fields()["actual_bytes"] == 2
    assert answer.missing == "the recording holds no virtual memory at 0x2004"


def test_what_the_machine_itself_refused_is_refused_with_its_status_and_not_missing() -> None:
    stop = _stop(_came(0x2FF0, b"x" * 16, size=32, status=_FAULT))
    answer = stop.answer(_read(0x2FF8, 16))
    assert (answer.missing, answer.reply.status, answer.reply.data) == ("", _FAULT, b"x" * 8)
    assert stop.answer(_read(0x3800, 8)).reply.status == _FAULT, "the rest of that page"
    assert stop.answer(_read(0x4000, 8)).missing


def test_virtual_and_physical_memory_are_two() -> None:
    stop = _stop(_came(0x2000, b"virt"), _came(0x2000, b"phys", api=_PHYSICAL))
    assert stop.answer(_read(0x2000, 4)).reply.data == b"virt"
    assert stop.answer(_read(0x2000, 4, _PHYSICAL)).reply.data == b"phys"
    assert stop.answer(_read(0x3000, 4, _PHYSICAL)).missing == "the recording holds no physical memory at 0x3000"


def test_memory_is_what_it_was_before_the_debugger_wrote_into_it() -> None:
    write = Manipulate.request(ApiNumber.WRITE_VIRTUAL_MEMORY, data=b"\xcc", address=0x2000, transfer_count=1)
    stop = _stop(_came(0x2000, b"\x90\x90"), _asked(write, actual_bytes=1), _came(0x2000, b"\xcc\x90"))
    assert stop.answer(_read(0x2000, 2)).reply.data == b"\x90\x90"


def test_registers_come_by_either_request_whichever_was_recorded() -> None:
    whole = bytes(range(256)) * 5
    ex = lambda at, size: Manipulate.request(ApiNumber.GET_CONTEXT_EX, processor=1, offset=at, byte_count=size)  # noqa: E731
    plain = Manipulate.request(ApiNumber.GET_CONTEXT, processor=1)
    by_parts = _stop(
        _asked(ex(0, 1000), data=whole[:1000], bytes_copied=1000),
        _asked(ex(1000, 280), data=whole[1000:], bytes_copied=280),
    )
    assert by_parts.answer(plain).reply.data == whole
    at_once = _stop(_asked(plain, data=whole))
    answer = at_once.answer(ex(900, 200))
    assert answer.reply.data == whole[900:1100] and answer.reply.fields()["bytes_copied"] == 200
    assert at_once.answer(plain._replace(processor=2)).missing == "the recording holds no registers of processor 2"


def test_control_space_belongs_to_a_processor_and_is_cut_to_what_is_asked() -> None:
    ask = lambda size, processor=0: Manipulate.request(  # noqa: E731
        ApiNumber.READ_CONTROL_SPACE, processor=processor, address=2, transfer_count=size
    )
    stop = _stop(_asked(ask(224), data=b"s" * 216, actual_bytes=216), _asked(ask(8), data=b"s" * 8, actual_bytes=8))
    answer = stop.answer(ask(224))
    assert (answer.reply.data, answer.reply.fields()["actual_bytes"]) == (b"s" * 216, 216)
    assert stop.answer(ask(16)).reply.data == b"s" * 16
    assert stop.answer(ask(16, 3)).missing == "the recording holds no control space 0x2 of processor 3"


def test_an_msr_is_answered_by_its_number_whatever_else_the_request_holds() -> None:
    rdmsr = lambda number, garbage=0: Manipulate.request(  # noqa: E731
        ApiNumber.READ_MACHINE_SPECIFIC_REGISTER, msr=number, low=garbage, high=garbage
    )
    stop = _stop(_asked(rdmsr(0x10, 9), low=1, high=2), _asked(rdmsr(0x20), low=3, high=4))
    assert stop.answer(rdmsr(0x10, 5)).reply.fields() == {"msr": 0x10, "low": 1, "high": 2}
    assert stop.answer(rdmsr(0x30)).missing == "the recording holds no answer to ReadMachineSpecificRegister"


@pytest.mark.parametrize(
    "api", [ApiNumber.CONTINUE2, ApiNumber.REBOOT, ApiNumber.WRITE_VIRTUAL_MEMORY, ApiNumber.SET_CONTEXT, 0x4242]
)
def test_what_would_change_the_machine_is_never_answered_not_even_when_it_was_recorded(api: int) -> None:
    request = Manipulate(api)
    answer = _stop(_asked(request)).answer(request)
    assert answer.reply.status == STATUS_UNSUCCESSFUL
    assert answer.missing.startswith("a recording can only be read: there is no machine to carry out ")


def test_what_was_read_after_it_went_on_is_of_another_stop() -> None:
    go = _told(Manipulate.request(ApiNumber.CONTINUE2), to_target=True)
    packets = [_stopped(), *_came(0x2000, b"one"), _stopped(), go, _stopped(0x2000), *_came(0x2000, b"two")]
    first, second = stops_of(packets)
    assert first.answer(_read(0x2000, 3)).reply.data == b"one"
    assert second.answer(_read(0x2000, 3)).reply.data == b"two"
    assert (first.change.program_counter, second.change.program_counter) == (0x1000, 0x2000)


def test_the_same_state_change_is_another_stop_only_when_the_machine_was_let_go() -> None:
    go = _told(Manipulate.request(ApiNumber.CONTINUE2), to_target=True)
    assert len(stops_of([_stopped(), _stopped()])) == 1
    assert len(stops_of([_stopped(), go, _stopped()])) == 2


def test_answers_to_other_questions_and_packets_that_make_no_sense_are_left_out() -> None:
    late = _told(_read(0x9000, 4).reply(0, data=b"late", actual_bytes=4), to_target=False)
    torn = RecordedPacket(0.0, False, PacketType.STATE_MANIPULATE, b"torn")
    stop = _stop([_told(_read(0x2000, 4), to_target=True), late, torn])
    assert stop.replies == 0
    assert stop.answer(_read(0x9000, 4)).missing


def test_a_reply_that_claims_more_than_it_carries_or_was_asked_gives_what_it_carries() -> None:
    request = _read(0x2000, 4)
    stop = _stop(
        _asked(request, data=b"abcdefgh", actual_bytes=8), _asked(_read(0x3000, 64), data=b"xy", actual_bytes=64)
    )
    assert stop.answer(_read(0x2000, 8)).reply.data == b"abcd"
    assert stop.answer(_read(0x3000, 8)).reply.data == b"xy"


def test_the_version_packet_is_that_of_all_stops_of_a_life_and_of_no_other_life() -> None:
    ask = Manipulate.request(ApiNumber.GET_VERSION)
    go = _told(Manipulate.request(ApiNumber.CONTINUE2), to_target=True)
    packets = [_stopped(), *_asked(ask, major_version=15), go, _stopped(), _stopped(0x2000)._replace(new_life=True)]
    first, second, other = stops_of(packets)
    assert first.answer(ask).reply.fields()["major_version"] == 15
    assert second.answer(ask) == first.answer(ask)
    assert other.answer(ask).missing == "the recording holds no answer to GetVersion"


def test_a_state_change_that_comes_twice_takes_no_answer_away() -> None:
    request = _read(0x2000, 4)
    reply = _told(request.reply(0, data=b"data", actual_bytes=4), to_target=False)
    stop = _stop([_told(request, to_target=True), _stopped(), reply])
    assert stop.answer(request).reply.data == b"data"
