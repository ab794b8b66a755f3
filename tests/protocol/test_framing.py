"""Where bytes become packets: what each end believes (kd-protocol 1.6, 1.7), and that no byte gets lost."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.framing import ControlFrame, DataFrame, Frame, FrameReader, HeaderFrame, Rubbish
from protocol.link import Discard, Role
from protocol.packet import encode_control, encode_data
from tests.protocol.streams import A, chunked, streams

_CUTS = st.lists(st.integers(0, 20_000), max_size=12)
_LARGEST = {Role.HOST: 16 + 4160 + 1, Role.TARGET: 16 + 4000 + 1}
"""The largest packet each end takes, header and trailer included."""


def _header(leader: bytes, kind: int, count: int, packet_id: int = A, total: int = 0) -> bytes:
    return leader + struct.pack("<HHII", kind, count, packet_id, total)


def _take(reader: FrameReader, *, headers_only: bool = False, least: int = 0) -> list[Frame]:
    frames: list[Frame] = []
    while (frame := reader.next(headers_only=headers_only, least=least)) is not None:
        frames.append(frame)
    return frames


def _read(role: Role, *pieces: bytes, headers_only: bool = False, least: int = 0) -> tuple[list[Frame], int]:
    reader = FrameReader(role)
    frames: list[Frame] = []
    for piece in pieces:
        reader.feed(piece)
        frames += _take(reader, headers_only=headers_only, least=least)
    return frames, reader.pending


def _size(frame: Frame) -> int:
    match frame:
        case DataFrame():
            return 16 + len(frame.payload) + 1
        case Rubbish():
            return len(frame.data)
        case _:
            return 16


def _joined(frames: list[Frame]) -> list[Frame]:
    """Noise that came in pieces is the same noise."""
    made: list[Frame] = []
    for frame in frames:
        last = made[-1] if made else None
        if isinstance(frame, Rubbish) and isinstance(last, Rubbish) and frame.reason is last.reason is Discard.NOISE:
            made[-1] = Rubbish(last.reason, last.data + frame.data)
        else:
            made.append(frame)
    return made


@pytest.mark.parametrize("role", list(Role))
@given(stream=streams, cuts=_CUTS, headers_only=st.booleans(), least=st.sampled_from([0, 12, 56, 64]))
def test_every_byte_is_in_one_frame_and_says_what_stood_there(
    role: Role, stream: bytes, cuts: list[int], headers_only: bool, least: int
) -> None:
    headers_only = headers_only and role is Role.TARGET
    frames, pending = _read(role, *chunked(stream, cuts), headers_only=headers_only, least=least)
    at = 0
    for frame in frames:
        piece = stream[at : at + _size(frame)]
        match frame:
            case Rubbish():
                assert frame.data == piece
            case ControlFrame():
                assert piece.startswith(_header(b"iiii", frame.packet_type, 0, frame.packet_id)[:6])
                assert piece[8:12] == struct.pack("<I", frame.packet_id)
            case HeaderFrame():
                head = _header(b"0000", frame.packet_type, frame.byte_count, frame.packet_id)
                assert piece[:12] == head[:12]
            case DataFrame():
                head = _header(b"0000", frame.packet_type, len(frame.payload), frame.packet_id)
                assert (piece[:12], piece[16:-1]) == (head[:12], frame.payload)
                good = piece[-1] == 0xAA and struct.unpack_from("<I", piece, 12)[0] == sum(frame.payload)
                assert (frame.flaw is None) == good
        at += len(piece)
    assert at + pending == len(stream)
    assert pending < _LARGEST[role]


@pytest.mark.parametrize("role", list(Role))
@given(stream=streams, cuts=_CUTS)
def test_how_a_stream_is_cut_changes_nothing(role: Role, stream: bytes, cuts: list[int]) -> None:
    whole, pending = _read(role, stream)
    for pieces in (chunked(stream, cuts), [stream[n : n + 1] for n in range(len(stream))]):
        frames, left = _read(role, *pieces)
        assert (_joined(frames), left) == (_joined(whole), pending)


@given(streams)
def test_a_host_hears_the_packet_behind_any_noise_when_the_line_is_quiet(stream: bytes) -> None:
    good = encode_data(7, A | 1, b"here I am")
    reader = FrameReader(Role.HOST)
    reader.feed(stream + good)
    frames = _take(reader)
    while (rubbish := reader.drop()) is not None:
        assert len(rubbish.data) == 1 and rubbish.reason is Discard.TRUNCATED
        frames += [rubbish, *_take(reader)]
    assert reader.pending == 0 and sum(_size(frame) for frame in frames) == len(stream + good)
    # Unless a packet that is whole to the last byte, sum and all, covers its beginning.
    at = len(stream)
    covered = 0
    for frame in frames:
        if isinstance(frame, DataFrame) and covered < at < covered + _size(frame):
            return
        covered += _size(frame)
    assert DataFrame(7, A | 1, b"here I am", None) in frames


def test_nothing_that_has_begun_is_nothing_to_drop() -> None:
    reader = FrameReader(Role.HOST)
    assert (reader.drop(), reader.pending, reader.next()) == (None, 0, None)


@pytest.mark.parametrize(
    ("header", "flaw"),
    [
        (_header(b"0000", 0, 56), Discard.BAD_TYPE),
        (_header(b"0000", 4, 56), Discard.BAD_TYPE),
        (_header(b"0000", 8, 56), Discard.BAD_TYPE),
        (_header(b"0000", 12, 56), Discard.BAD_TYPE),
        (_header(b"iiii", 2, 0), Discard.BAD_TYPE),
        (_header(b"iiii", 7, 0), Discard.BAD_TYPE),
        (_header(b"iiii", 4, 1), Discard.BAD_SIZE),
        (_header(b"0000", 2, 4161), Discard.BAD_SIZE),
        (_header(b"0000", 2, 0xFFFF), Discard.BAD_SIZE),
        (_header(b"0000", 2, 56, 0x80800002), Discard.BAD_ID),
        (_header(b"0000", 2, 56, 0x80000000), Discard.BAD_ID),
        (_header(b"0000", 2, 56, 0), Discard.BAD_ID),
        (_header(b"0000", 2, 0, A) + b"\xab", Discard.BAD_TRAILER),
    ],
)
def test_a_host_goes_on_one_byte_behind_a_header_that_none_sends(header: bytes, flaw: Discard) -> None:
    frames, _ = _read(Role.HOST, header)
    assert frames[0] == Rubbish(flaw, header[:1])


@pytest.mark.parametrize("kind", [1, 2, 3, 7, 9, 10, 11])
@pytest.mark.parametrize("packet_id", [A, A | 1, A | 0x800, A | 0x801])
def test_a_host_takes_every_packet_that_a_target_may_send(kind: int, packet_id: int) -> None:
    assert _read(Role.HOST, encode_data(kind, packet_id, b"x")) == ([DataFrame(kind, packet_id, b"x", None)], 0)


@pytest.mark.parametrize(
    ("role", "least", "sizes"),
    [(Role.HOST, 0, [0, 56, 4000, 4096, 4160]), (Role.TARGET, 56, [56, 3999, 4000]), (Role.TARGET, 12, [12, 4000])],
)
def test_the_sizes_that_each_end_takes(role: Role, least: int, sizes: list[int]) -> None:
    for size in sizes:
        wire = encode_data(2, A, b"\1" * size)
        assert _read(role, wire, least=least) == ([DataFrame(2, A, b"\1" * size, None)], 0)


@pytest.mark.parametrize(("least", "size"), [(56, 55), (56, 0), (64, 63), (0, 4001), (0, 0xFFFF)])
def test_a_target_eats_the_header_of_a_packet_of_another_size(least: int, size: int) -> None:
    header = _header(b"0000", 2, size)
    assert _read(Role.TARGET, header, least=least) == ([Rubbish(Discard.BAD_SIZE, header)], 0)


def test_a_target_believes_any_id_and_any_type_of_data_packet() -> None:
    # What it makes of them is its link's business (1.7 steps 14 and 15).
    wire = encode_data(0x99, 0xDEADBEEF, b"x")
    assert _read(Role.TARGET, wire) == ([DataFrame(0x99, 0xDEADBEEF, b"x", None)], 0)
    unknown = _header(b"iiii", 7, 0)
    assert _read(Role.TARGET, unknown) == ([Rubbish(Discard.BAD_TYPE, unknown)], 0)


def test_a_packet_that_does_not_add_up_is_whole_and_flawed() -> None:
    wire = encode_data(2, A, bytes(56))
    for role in Role:
        damaged = wire[:20] + b"\1" + wire[21:]
        frame = DataFrame(2, A, damaged[16:-1], Discard.BAD_CHECKSUM)
        assert _read(role, damaged) == ([frame], 0)
    # A target has read to where the trailer should be; a host looks once more, one byte on.
    cut = wire[:-1] + b"\xab"
    assert _read(Role.TARGET, cut)[0] == [DataFrame(2, A, bytes(56), Discard.BAD_TRAILER)]
    assert _read(Role.HOST, cut)[0][0] == Rubbish(Discard.BAD_TRAILER, b"0")


@pytest.mark.parametrize("size", [0, 20, 56, 4000, 4001, 0xFFFF])
def test_waiting_for_an_acknowledge_a_target_reads_headers_of_any_size(size: int) -> None:
    # 1.9: the id alone decides; the body is left in the line.
    frames, pending = _read(Role.TARGET, _header(b"0000", 2, size) + b"body", headers_only=True, least=56)
    assert frames == [HeaderFrame(2, A, size), Rubbish(Discard.NOISE, b"body")] and pending == 0


def test_a_payload_of_leaders_is_a_payload() -> None:
    for role in Role:
        for payload in (b"0" * 100, b"i" * 100, encode_control(6) * 4, encode_data(7, A, b"inner") * 2):
            assert _read(role, encode_data(2, A, payload)) == ([DataFrame(2, A, payload, None)], 0)


@pytest.mark.parametrize("kept", [1, 2, 3, 4, 10, 15, 16, 40, 72])
def test_a_packet_that_has_begun_is_kept_until_it_is_whole(kept: int) -> None:
    wire = encode_data(2, A, bytes(56))
    for role in Role:
        reader = FrameReader(role)
        reader.feed(b"noise" + wire[:kept])
        assert [frame for frame in _take(reader) if not isinstance(frame, Rubbish)] == []
        assert reader.pending == kept
        reader.feed(wire[kept:])
        assert _take(reader) == [DataFrame(2, A, bytes(56), None)]
