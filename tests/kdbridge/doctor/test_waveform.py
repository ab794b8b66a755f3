"""Bytes that were read at another speed or upside down, by a drawing of the line that the doctor knows nothing of."""

from __future__ import annotations

import random

import pytest

from kdbridge.doctor.waveform import USUAL_RATES, mishear, unravel
from protocol.debug_io import PrintString
from protocol.packet import encode_data
from simulator.waveform import resample
from tests.kdbridge.doctor.sick import sickness
from tests.raw import A, change_bytes

_OWN = 115200
_RATIOS = [rate / _OWN for rate in USUAL_RATES if rate != _OWN]
_CHANGE = encode_data(7, A | 0x800, change_bytes(0xFFFFF802_13801080))
_PRINT = encode_data(3, A, PrintString(6, 0, b"KDTARGET: Refreshing KD connection\n").encode())


@pytest.mark.parametrize("rate", [19200, 38400, 57600, 230400])
@pytest.mark.parametrize("packet", [_CHANGE, _PRINT])
def test_the_speed_of_packets_is_found(rate: int, packet: bytes) -> None:
    drawn, _ = sickness(f"baud{rate}", random.Random(1))
    for heard in (drawn(packet), resample(packet, rate, _OWN)):
        found = unravel([heard] * 4, _RATIOS)
        if rate > _OWN and packet is _PRINT:
            # Too little is left of what is known of it; then nothing is said.
            assert all(round(one.ratio * _OWN) == rate for one in found)
        else:
            assert round(found[0].ratio * _OWN) == rate
            assert not found[0].inverted


@pytest.mark.parametrize("packet", [_CHANGE, _PRINT])
def test_upside_down_is_found(packet: bytes) -> None:
    drawn, _ = sickness("inverted", random.Random(1))
    for heard in (drawn(packet), resample(packet, _OWN, _OWN, inverted=True)):
        assert unravel([heard] * 4, _RATIOS)[0].inverted


@pytest.mark.parametrize("rate", [19200, 38400, 57600])
def test_the_speed_of_text_is_found(rate: int) -> None:
    text = b"Welcome to GRUB!\r\nLoading Linux 6.1.0-18-amd64 ...\r\nLoading initial ramdisk ...\r\n"
    found = unravel([resample(text, rate, _OWN)], _RATIOS)
    assert rate in [round(one.ratio * _OWN) for one in found]
    assert not any(one.inverted for one in found)


def test_text_upside_down_can_be_read() -> None:
    text = b"Welcome to GRUB!\r\nLoading Linux 6.1.0-18-amd64 ...\r\n"
    found = unravel([resample(text, _OWN, _OWN, inverted=True)], _RATIOS)
    assert found[0].inverted
    assert "GRUB!" in found[0].text


def test_nothing_is_found_in_noise() -> None:
    for seed in range(10):
        noise = [random.Random(f"{seed} {part}").randbytes(120) for part in range(4)]
        assert unravel(noise, _RATIOS) == [], f"seed {seed}"


def test_nothing_is_found_in_bytes_as_they_were_sent() -> None:
    assert unravel([_CHANGE] * 4, _RATIOS) == []


def test_at_the_same_speed_what_was_sent_is_heard() -> None:
    assert mishear(_CHANGE[:40], 1.0) == _CHANGE[:40]
