"""Why no contact came about: one sentence that says what was on the line, from what really was there."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from kdbridge.errors import NoContactError
from kdbridge.opening import open_target
from protocol.debug_io import PrintString
from protocol.manipulate import ApiNumber
from protocol.packet import encode_data
from simulator.machine import Behaviour
from tests.kdbridge.in_memory import client_of
from tests.raw import change_bytes
from tests.small_machine import small_machine, stopped_target


class _Line:
    """A line on which these bytes are heard, again and again, and nothing that is sent matters."""

    url = "serial:/dev/ttyUSB0"
    notes = ()

    def __init__(self, *heard: bytes) -> None:
        self.heard = heard
        self.count = 0

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def receive(self) -> bytes:
        if not self.heard:
            await trio.sleep_forever()
        await trio.sleep(0.5)
        self.count += 1
        return self.heard[self.count % len(self.heard)]

    async def aclose(self) -> None:
        return


async def _sentence(line: _Line, *, wait: float = 12.5, break_in: bool = False) -> str:
    client = client_of(stopped_target(small_machine()))
    client.session.engine.transport = line
    started = trio.current_time()
    with pytest.raises(NoContactError) as caught:
        await client.session.attach(wait=wait, break_in=break_in)
    assert trio.current_time() - started == pytest.approx(wait)
    text = str(caught.value)
    assert "serial:/dev/ttyUSB0" in text
    assert "\n" not in text
    return text


async def test_nothing_at_all(autojump_clock: trio.testing.MockClock) -> None:
    text = await _sentence(_Line())
    assert text.startswith(
        "not a single byte came from serial:/dev/ttyUSB0 within 12.5 seconds, RESET was not answered"
    )
    assert text.endswith("One that runs is stopped by `kdbridge break`, or by --break-in where the verb has it.")
    text = await _sentence(_Line(), break_in=True)
    assert "RESET and break-in were not answered" in text
    assert "--break-in" not in text


async def test_nobody_connected(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(NoContactError) as caught:
        async with open_target("tcp-listen:127.0.0.1:0", wait=3):
            pass
    text = str(caught.value)
    assert text.startswith("nobody connected to tcp-listen:127.0.0.1:") and "within 3 seconds" in text


async def test_another_baud_rate(autojump_clock: trio.testing.MockClock) -> None:
    noise = random.Random(1).randbytes(64)
    text = await _sentence(_Line(noise))
    assert "no packet among them" in text and "another baud rate" in text
    assert noise[:16].hex(" ") in text


async def test_somebody_elses_console(autojump_clock: trio.testing.MockClock) -> None:
    text = await _sentence(_Line(b"GRUB loading, please wait...\r\n"))
    assert "of text came" in text and "GRUB loading" in text and "a boot menu" in text


async def test_packets_that_are_all_damaged(autojump_clock: trio.testing.MockClock) -> None:
    packet = bytearray(encode_data(7, 0x80800800, change_bytes()))
    packet[40] ^= 4
    text = await _sentence(_Line(bytes(packet)))
    assert "every one was damaged" in text and "noise on the line" in text


async def test_a_machine_that_runs_and_prints(autojump_clock: trio.testing.MockClock) -> None:
    prints = [encode_data(3, 0x80800000 | n & 1, PrintString(6, 0, b"hello").encode()) for n in (1, 0)]
    text = await _sentence(_Line(*prints))
    assert "no state change within 12.5 seconds" in text and "alive" in text and "`kdbridge break` does that" in text
    text = await _sentence(_Line(*prints), break_in=True)
    assert "it did not stop" in text and "--break-in" not in text


async def test_a_machine_that_stopped_and_answers_nothing(autojump_clock: trio.testing.MockClock) -> None:
    client = client_of(
        stopped_target(small_machine(behaviour=Behaviour(unanswered=frozenset({ApiNumber.GET_VERSION}))))
    )
    with pytest.raises(NoContactError) as caught:
        await client.session.attach(wait=40)
    assert "said why it stopped, and answered no request within 40 seconds" in str(caught.value)


async def test_no_sentence_holds_control_characters(autojump_clock: trio.testing.MockClock) -> None:
    text = await _sentence(_Line(b"\x1b[2J\x1b[1;1Hlogin: \r\n"))
    assert text.isprintable()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("bugcheck?fault=xonxoff", "takes the bytes 11 and 13 away"),
        ("bugcheck?fault=iac", "a telnet server handles the bytes"),
        ("bugcheck?fault=sevenbit", "the highest bit of each byte is lost"),
        ("bugcheck?fault=deaf", "the target is heard, and does not hear us"),
        ("bugcheck?fault=inverted", "every bit is upside down"),
        ("bugcheck?fault=wrongbaud=57600", "the target's end of the line has another speed"),
        ("running?fault=echo", "what is sent comes back"),
    ],
)
async def test_what_the_doctor_finds_is_said(target: str, words: str, autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(NoContactError) as caught:
        async with open_target(f"sim:{target}&memory=16M&baud=115200", wait=20):
            pass
    text = str(caught.value)
    assert words in text and f"came from sim:{target}" in text
    assert text.isprintable()
