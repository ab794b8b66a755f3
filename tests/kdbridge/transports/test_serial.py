"""A port of this machine: pseudo terminals, whose other end the test holds with plain reads and writes."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial
import trio
import trio.testing

from kdbridge.errors import TransportLostError, TransportOpenError
from kdbridge.transports import open_transport
from tests.kdbridge.transports.lines import EVERY_BYTE, cancel_a_receive, receive_exactly


class Pty:
    """A pseudo terminal in the cooked mode that a system gives it; `far` is the end where a target would be."""

    def __init__(self) -> None:
        self.far, self._near = os.openpty()
        self.name = os.ttyname(self._near)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += os.read(self.far, size - len(data))
        return data

    def hang_up(self) -> None:
        for end in (self._near, self.far):
            os.close(end)
        self.far = self._near = -1

    def close(self) -> None:
        if self.far >= 0:
            self.hang_up()


@pytest.fixture
def pty() -> Iterator[Pty]:
    made = Pty()
    yield made
    made.close()


async def test_all_bytes_get_through_both_ways(pty: Pty) -> None:
    transport = await open_transport(f"serial:{pty.name}")
    os.write(pty.far, EVERY_BYTE)
    assert await receive_exactly(transport, len(EVERY_BYTE)) == EVERY_BYTE
    await transport.send(EVERY_BYTE)
    assert pty.read(len(EVERY_BYTE)) == EVERY_BYTE
    await transport.aclose()


async def test_the_port_is_set_to_eight_bits_no_parity_one_stop_bit_and_no_flow_control(pty: Pty) -> None:
    transport = await open_transport(f"serial:{pty.name}?baud=921600")
    shown = await trio.to_thread.run_sync(lambda: subprocess.check_output(["stty", "-a", "-F", pty.name], text=True))
    await transport.aclose()
    assert "speed 921600 baud" in shown
    assert {"cs8", "-parenb", "-cstopb", "-crtscts", "-ixon", "-ixoff", "-icanon", "-echo", "-opost"} <= set(
        shown.split()
    )
    assert {"ignbrk", "-brkint", "-istrip", "-icrnl"} <= set(shown.split())


async def test_a_speed_that_no_table_has_can_be_set(pty: Pty) -> None:
    transport = await open_transport(f"serial:{pty.name}?baud=250000")
    await transport.send(b"x")
    assert pty.read(1) == b"x"
    await transport.aclose()


async def test_what_had_arrived_before_is_thrown_away(pty: Pty) -> None:
    os.write(pty.far, b"the end of an old packet\n")
    transport = await open_transport(f"serial:{pty.name}")
    os.write(pty.far, b"new")
    assert await receive_exactly(transport, 3) == b"new"
    await transport.aclose()


async def test_a_receive_that_was_cancelled_has_taken_nothing(pty: Pty) -> None:
    transport = await open_transport(f"serial:{pty.name}")
    for round_ in range(5):
        await cancel_a_receive(transport)
        os.write(pty.far, bytes([round_]))
        assert await receive_exactly(transport, 1) == bytes([round_])
    await transport.aclose()


async def test_a_second_open_is_refused_and_the_first_goes_on(pty: Pty) -> None:
    transport = await open_transport(f"serial:{pty.name}")
    with pytest.raises(TransportOpenError, match="in use by another program"):
        await open_transport(f"serial:{pty.name}?baud=9600")
    os.write(pty.far, b"still here")
    assert await receive_exactly(transport, 10) == b"still here"
    await transport.aclose()


async def test_a_port_given_back_can_be_opened_again(pty: Pty) -> None:
    for _ in range(3):
        transport = await open_transport(pty.name)
        await transport.send(b"x")
        assert pty.read(1) == b"x"
        await transport.aclose()
        await transport.aclose()


async def test_a_line_that_hangs_up_is_an_error_that_says_so(pty: Pty) -> None:
    transport = await open_transport(f"serial:{pty.name}")
    pty.hang_up()
    with pytest.raises(TransportLostError, match="the port is gone"):
        await transport.receive()
    with pytest.raises(TransportLostError, match="the port is gone"):
        await transport.send(b"x")
    await transport.aclose()


async def test_a_send_that_nobody_reads_can_be_cancelled(pty: Pty) -> None:
    transport = await open_transport(f"serial:{pty.name}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.send, bytes(1 << 20))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught
    await transport.aclose()


async def test_a_pseudo_terminal_has_no_hardware_to_make_notes_about(pty: Pty) -> None:
    transport = await open_transport(pty.name)
    assert transport.notes == ()
    await transport.aclose()


async def test_flow_control_that_takes_bytes_away_is_a_note(pty: Pty) -> None:
    transport = await open_transport(f"serial:{pty.name}?xonxoff=1")
    assert any("0x11 and 0x13" in note for note in transport.notes)
    await transport.aclose()


@pytest.mark.parametrize(
    ("options", "dtr", "rts"), [("", True, True), ("?dtr=0", False, True), ("?rts=0", True, False)]
)
async def test_dtr_and_rts_are_raised_unless_told_otherwise(
    pty: Pty, options: str, dtr: bool, rts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven: dict[str, bool] = {}
    monkeypatch.setattr(serial.Serial, "_update_dtr_state", lambda port: driven.update(dtr=port.dtr))
    monkeypatch.setattr(serial.Serial, "_update_rts_state", lambda port: driven.update(rts=port.rts))
    transport = await open_transport(f"serial:{pty.name}{options}")
    await transport.aclose()
    assert driven == {"dtr": dtr, "rts": rts}


async def test_a_port_that_is_not_there_is_an_error_that_says_what_is(tmp_path: Path) -> None:
    with pytest.raises(
        TransportOpenError, match=r"there is no port .*/ttyUSB7; (here are serial:|no serial port is here)"
    ):
        await open_transport(f"serial:{tmp_path}/ttyUSB7")


async def test_a_file_is_no_port(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    for name in (tmp_path / "file", tmp_path, "/dev/null"):
        with pytest.raises(TransportOpenError, match="is not a serial port"):
            await open_transport(f"serial:{name}")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (serial.SerialException(errno.EACCES, "Permission denied"), r"permission denied; join the group \w+"),
        (serial.SerialException(errno.EBUSY, "Device or resource busy"), "in use by another program"),
        (serial.SerialException(errno.ENXIO, "No such device or address"), "there is no port"),
        (serial.SerialException(errno.EIO, "Input/output error"), "no hardware behind it"),
        (ValueError("Failed to set custom baud rate (12345)"), "cannot do 12345 baud"),
        (serial.SerialException("something new"), "cannot be opened: something new"),
    ],
)
async def test_each_way_to_fail_has_its_sentence(
    pty: Pty, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: serial.Serial) -> None:
        raise error

    monkeypatch.setattr(serial.Serial, "open", fail)
    with pytest.raises(TransportOpenError, match=said):
        await open_transport(f"serial:{pty.name}?baud=12345")


async def test_who_may_open_a_port_is_named_by_its_group(monkeypatch: pytest.MonkeyPatch, pty: Pty) -> None:
    def fail(_: serial.Serial) -> None:
        raise serial.SerialException(errno.EACCES, "Permission denied")

    monkeypatch.setattr(serial.Serial, "open", fail)
    with pytest.raises(TransportOpenError, match=r"group dialout \(sudo usermod -aG dialout \$USER\)"):
        await open_transport(f"serial:{pty.name}")
