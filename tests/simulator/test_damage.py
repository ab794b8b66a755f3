"""A bad line does what its faults say, as often as they say, and the same each time."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from protocol.packet import encode_control, encode_data
from simulator.damage import FaultyLine
from simulator.faults import parse_line_faults

_SUM_KEPT_AT = 16 + 56
"""Where the data of a reply begins: behind the packet's header and the message's (kd-protocol 1.2, 3.1)."""


def _packets(count: int, size: int = 500) -> list[bytes]:
    draw = random.Random(f"packets {count} {size}")
    return [encode_data(2, 0x80800000 | number & 1, draw.randbytes(size)) for number in range(count)]


def _through(text: str, chunks: list[bytes], way: str = "host") -> list[bytes]:
    """What came of each, all pieces joined."""
    line = FaultyLine(parse_line_faults(text))
    carry = line.to_host if way == "host" else line.to_target
    return [b"".join(piece.data for piece in carry(chunk, float(at))) for at, chunk in enumerate(chunks)]


def _one(text: str, data: bytes, way: str = "host") -> bytes:
    return _through(text, [data], way)[0]


def _bits_that_differ(a: bytes, b: bytes) -> int:
    assert len(a) == len(b)
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count()


_NOISE = random.Random(0).randbytes(400_000)


# ---- how often -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [1e-4, 1e-2, 0.1])
@pytest.mark.parametrize("way", ["host", "target"])
def test_so_many_bits_are_turned_over_as_were_asked_for(share: float, way: str) -> None:
    chunks = [_NOISE[at : at + 400] for at in range(0, len(_NOISE), 400)]
    found = _bits_that_differ(b"".join(_through(f"flip={share}", chunks, way)), _NOISE)
    expected = share * 8 * len(_NOISE)
    assert abs(found - expected) < 5 * expected**0.5, "five standard deviations"


def test_so_many_bytes_are_lost_and_come_from_nowhere() -> None:
    lost = len(_NOISE) - len(_one("drop=0.01", _NOISE))
    added = len(_one("insert=0.01", _NOISE)) - len(_NOISE)
    assert abs(lost - 4000) < 5 * 4000**0.5 and abs(added - 4000) < 5 * 4000**0.5


def test_what_is_left_is_in_order() -> None:
    numbers = b"".join(number.to_bytes(2, "big") for number in range(10_000))
    left = _one("drop=0.02", numbers)
    at = -1
    for byte in left:
        at = numbers.index(bytes([byte]), at + 1)
    shorter = _one("insert=0.02", numbers)
    at = -1
    for byte in numbers:
        at = shorter.index(bytes([byte]), at + 1)


def test_so_many_packets_are_lost_come_twice_and_are_cut() -> None:
    packets = _packets(4000, 20)
    lost = sum(came == b"" for came in _through("loss=0.05", packets))
    assert lost == pytest.approx(200, abs=70)
    twice = [came for came, packet in zip(_through("dup=0.05", packets), packets, strict=True) if came == 2 * packet]
    assert len(twice) == pytest.approx(200, abs=70)
    cut = [(came, sent) for came, sent in zip(_through("truncate=0.05", packets), packets, strict=True) if came != sent]
    assert len(cut) == pytest.approx(200, abs=70)
    assert all(sent.startswith(came) for came, sent in cut) and len({len(came) for came, _ in cut}) > 20


def test_packets_in_one_write_are_lost_one_by_one() -> None:
    acknowledge = encode_control(4, 0x80800000)
    both = _through("loss=0.5", [acknowledge + packet for packet in _packets(1000, 20)])
    sizes = {len(came) for came in both}
    assert sizes == {0, 16, 37, 53}


def test_a_packet_in_many_writes_is_lost_as_one() -> None:
    line = FaultyLine(parse_line_faults("loss=0.5"))
    sizes = set()
    for packet in _packets(200, 20):
        came = b"".join(piece.data for byte in packet for piece in line.to_host(bytes([byte]), 0.0))
        sizes.add(len(came))
    assert sizes == {0, 37}


def test_what_is_no_packet_is_not_held_back_for_long() -> None:
    line = FaultyLine(parse_line_faults("loss=0.0,dup=1.0"))
    assert b"".join(piece.data for piece in line.to_target(b"b", 0.0)) == b"bb"
    assert line.to_target(b"0000\x02", 1.0) == []
    assert b"".join(piece.data for piece in line.to_target(b"b", 2.0)) == b"0000\x02b", "its sender gave up"


def test_the_line_stands_still_in_the_middle_of_so_many_packets() -> None:
    line = FaultyLine(parse_line_faults("stall=0.1"))
    stalled = 0
    for packet in _packets(1000, 20):
        pieces = line.to_host(packet, 0.0)
        assert b"".join(piece.data for piece in pieces) == packet
        assert [piece.pause for piece in pieces] in ([0.0], [0.0, 2.0])
        stalled += len(pieces) - 1
    assert stalled == pytest.approx(100, abs=50)


def test_two_bytes_of_the_data_change_and_the_sum_stays() -> None:
    packets = _packets(1000)
    struck = [(a, b) for a, b in zip(packets, _through("keepsum=0.1", packets), strict=True) if a != b]
    assert len(struck) == pytest.approx(100, abs=50)
    for sent, came in struck:
        places = [at for at, (a, b) in enumerate(zip(sent, came, strict=True)) if a != b]
        assert len(places) == 2 and places[0] >= _SUM_KEPT_AT and places[1] < len(sent) - 1
        assert sum(sent) == sum(came)
    assert _through("keepsum=1", packets, "target") == packets, "questions are not struck"
    assert _one("keepsum=1", encode_data(2, 0x80800000, bytes(500))) == encode_data(2, 0x80800000, bytes(500)), (
        "zeros cannot keep their sum"
    )


def test_an_overrun_loses_a_burst_behind_a_full_fifo() -> None:
    numbers = b"".join(number.to_bytes(2, "big") for number in range(0x4000))
    pairs = [numbers[at : at + 400] for at in range(0, len(numbers), 400)]
    gone = [len(chunk) - len(came) for chunk, came in zip(pairs, _through("overrun=0.0005", pairs), strict=True)]
    assert sum(gone) and max(gone) > 1
    for chunk, came in zip(pairs, _through("overrun=0.0005", pairs), strict=True):
        assert came[:16] == chunk[:16]
    assert _one("overrun=1", bytes(range(64)))[:16] == bytes(range(16))


# ---- what becomes of bytes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sent", "to_host", "to_target"),
    [
        ("xonxoff", "1011121314", "101214", "101214"),
        ("iac", "01ff02", "01ffff02", "01"),
        ("iac", "01ffff02", "01ffffffff02", "01ff02"),
        ("crlf", "410a42", "410d0a42", "410d0a42"),
        ("sevenbit", "80ff30aa", "007f302a", "007f302a"),
        ("parity", "30316900ff", "30b16900ff", "30b16900ff"),
        ("deaf", "303030", "303030", ""),
        ("mute", "303030", "", "303030"),
        ("wrongbaud=9600", "ff", "00", ""),
        ("wrongbaud=115200", "0102", "0102", "0102"),
        ("sevenbit,way=host", "ff", "7f", "ff"),
        ("sevenbit,way=target", "ff", "ff", "7f"),
        ("xonxoff,sevenbit,crlf", "118a0a", "0a0d0a", "0a0d0a"),
    ],
)  # fmt: skip
def test_each_does_what_it_says(text: str, sent: str, to_host: str, to_target: str) -> None:
    data = bytes.fromhex(sent)
    assert _one(text, data).hex() == to_host
    assert _one(text, data, "target").hex() == to_target


def test_parity_is_even_over_all_eight_bits() -> None:
    came = _one("parity", bytes(range(128)))
    assert [byte & 0x7F for byte in came] == list(range(128))
    assert all(byte.bit_count() % 2 == 0 for byte in came)


def test_a_telnet_command_may_end_in_the_next_write() -> None:
    assert _through("iac", [b"a\xff", b"\xffb\xff", b"\xf4c"], "target") == [b"a", b"\xffb", b"c"]


# ---- which -----------------------------------------------------------------------------------------------------------

_ALL = "flip=1e-3,drop=0.01,insert=0.01,loss=0.1,dup=0.1,truncate=0.1,stall=0.1,keepsum=0.1,overrun=0.001"


def test_one_seed_is_one_line_and_the_two_ways_differ() -> None:
    packets = _packets(100)
    first = _through(f"{_ALL},seed=7", packets)
    assert first == _through(f"{_ALL},seed=7", packets)
    assert first != _through(f"{_ALL},seed=8", packets)
    assert first != _through(f"{_ALL},seed=7", packets, "target")


def test_a_packet_s_fate_does_not_hang_on_how_it_is_cut_into_writes() -> None:
    packets = _packets(50)
    line = FaultyLine(parse_line_faults("loss=0.2,dup=0.2,seed=3"))
    everything = b"".join(packets)
    parts = [everything[at : at + 77] for at in range(0, len(everything), 77)]
    came = b"".join(piece.data for part in parts for piece in line.to_host(part, 0.0))
    assert came == b"".join(_through("loss=0.2,dup=0.2,seed=3", packets))


def test_a_way_that_is_not_meant_is_left_alone() -> None:
    packets = _packets(100)
    assert _through(f"{_ALL},way=target", packets) == packets
    assert _through(f"{_ALL},way=host", packets, "target") == packets


# ---- when ------------------------------------------------------------------------------------------------------------


def test_a_line_is_dead_from_its_death_until_it_is_back() -> None:
    line = FaultyLine(parse_line_faults("die=10,back=20"))
    came = [(now, b"".join(piece.data for piece in line.to_host(b"x", now))) for now in (5.0, 14.9, 15.0, 24.9, 25.0)]
    assert came == [(5.0, b"x"), (14.9, b"x"), (15.0, b""), (24.9, b""), (25.0, b"x")], "ten seconds after 5.0"


def test_a_restart_comes_once() -> None:
    line = FaultyLine(parse_line_faults("restart=3"))
    assert [line.restarts(now) for now in (1.0, 3.9, 4.0, 4.1, 50.0)] == [False, False, True, False, False]


def test_others_on_the_line_speak_every_five_seconds() -> None:
    line = FaultyLine(parse_line_faults("text=login: "))
    now, heard = 0.1, []
    for _ in range(100):
        if line.others(now) == (b"login: ", b""):
            heard.append(now)
        following = line.next_time(now)
        assert following is not None and following > now, "time goes on"
        now = following
    assert len(heard) == 100 and all(b - a == pytest.approx(5.0) for a, b in pairwise(heard))


def test_another_debugger_s_packets_come_to_both() -> None:
    reset = bytes.fromhex("69696969 0600 0000 00000000 00000000")
    to_host, to_target = FaultyLine(parse_line_faults("debugger")).others(0.0)
    assert to_host == to_target and to_target.startswith(reset + b"0000\x02\0")
    assert FaultyLine(parse_line_faults("debugger,way=host")).others(0.0)[1] == b""
    assert FaultyLine(parse_line_faults("debugger,way=target")).others(0.0)[0] == b""
