"""Listening: nothing is sent, all is noted with its time; and a port that is opened at other speeds."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from kdbridge.doctor.listening import find_baud, listen
from kdbridge.errors import TransportLostError, TransportOpenError
from kdbridge.overheard import Overheard
from kdbridge.transports import Transport
from protocol.packet import encode_data
from simulator.waveform import resample
from tests.raw import A, change_bytes

_CHANGE = encode_data(7, A | 0x800, change_bytes())


class _Port:
    """A line on which these bytes come every second. Nothing may be sent."""

    url = "serial:/dev/ttyUSB0"
    notes = ()

    def __init__(self, data: bytes, *, lost_after: int = 1000) -> None:
        self._data, self._left = data, lost_after
        self._due = trio.current_time() + 1.0
        self.closed = False

    async def send(self, data: bytes) -> None:
        raise AssertionError("something was sent")

    async def receive(self) -> bytes:
        await trio.sleep_until(self._due)
        self._due += 1.0
        if not self._left:
            raise TransportLostError("the port is gone")
        self._left -= 1
        if not self._data:
            await trio.sleep_forever()
        return self._data

    async def aclose(self) -> None:
        self.closed = True


async def test_all_that_comes_is_noted_with_its_time(autojump_clock: trio.testing.MockClock) -> None:
    heard, told = Overheard(115200), list[str]()
    await listen(_Port(b"x"), heard, 5.5, told.append)
    assert [(round(piece.at), piece.sent, piece.data) for piece in heard.pieces] == [
        (at, False, b"x") for at in range(1, 6)
    ]
    assert heard.seconds == pytest.approx(5.5)


async def test_long_silence_is_told_of(autojump_clock: trio.testing.MockClock) -> None:
    heard, told = Overheard(), list[str]()
    await listen(_Port(b""), heard, 7.0, told.append)
    assert heard.seconds == pytest.approx(7.0)
    assert [text.partition(" bytes")[0] for text in told] == ["listening: 0"] * 3


async def test_progress_is_told_also_where_much_comes(autojump_clock: trio.testing.MockClock) -> None:
    told: list[str] = []
    await listen(_Port(b"x" * 100), Overheard(), 7.0, told.append)
    assert told


async def test_what_came_before_the_way_was_lost_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    heard = Overheard()
    with pytest.raises(TransportLostError):
        await listen(_Port(b"x", lost_after=3), heard, 60.0, lambda text: None)
    assert heard.received == b"xxx"


@pytest.mark.parametrize("rate", [9600, 57600, 921600])
async def test_the_speed_at_which_packets_come_is_found(autojump_clock: trio.testing.MockClock, rate: int) -> None:
    ports: list[_Port] = []

    async def open_at(baud: int) -> Transport:
        if baud == 38400:
            raise TransportOpenError("the port cannot do 38400 baud")
        ports.append(_Port(resample(_CHANGE, rate, baud) if baud != rate else _CHANGE))
        return ports[-1]

    rates = [115200, 38400, 9600, 57600, 921600]
    found = await find_baud(open_at, rates, 2.5, lambda text: None)
    assert found == rate
    assert all(port.closed for port in ports)


async def test_no_speed_is_named_where_noise_comes_at_each(autojump_clock: trio.testing.MockClock) -> None:
    noise = random.Random(3)

    async def open_at(baud: int) -> Transport:
        return _Port(noise.randbytes(60))

    assert await find_baud(open_at, [115200, 9600, 57600], 2.5, lambda text: None) is None
