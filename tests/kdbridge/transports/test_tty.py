"""What is set on a tty beside pyserial's settings, and what cannot be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial

from kdbridge.errors import TransportOpenError
from kdbridge.transports.tty import latency_notes, settle


@pytest.fixture
def port() -> Iterator[serial.Serial]:
    far, near = os.openpty()
    with serial.Serial(os.ttyname(near), 115200) as opened:
        yield opened
    os.close(near)
    os.close(far)


@pytest.fixture
def adapter(port: serial.Serial, tmp_path: Path) -> Path:
    """The folder where Linux would tell about the port if it were an adapter."""
    folder = tmp_path / "sys/class/tty" / Path(str(port.port)).name / "device"
    folder.mkdir(parents=True)
    return folder


def test_a_speed_that_the_port_did_not_take_is_an_error_that_names_the_nearest(port: serial.Serial) -> None:
    settle("serial:x", port, 115200)
    settle("serial:x", port, 117000)
    with pytest.raises(TransportOpenError, match="cannot do 921600 baud; the nearest that it can is 115200"):
        settle("serial:x", port, 921600)


@pytest.mark.parametrize("baud", [250000, 3000000, 12345, 74880])
def test_settling_leaves_the_speed_as_it_was(port: serial.Serial, baud: int) -> None:
    port.baudrate = baud
    settle("serial:x", port, baud)
    settle("serial:x", port, baud)


def test_a_port_without_hardware_gets_no_note(port: serial.Serial, tmp_path: Path) -> None:
    assert latency_notes(port, tmp_path) == ()


def test_a_driver_that_knows_no_low_latency_is_a_note(port: serial.Serial, adapter: Path, tmp_path: Path) -> None:
    (note,) = latency_notes(port, tmp_path)
    assert "low latency could not be set" in note


def test_a_timer_that_holds_bytes_back_is_a_note_with_the_command(
    port: serial.Serial, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(serial.Serial, "set_low_latency_mode", lambda _, on: asked.append(on))
    (adapter / "latency_timer").write_text("16\n")
    (note,) = latency_notes(port, tmp_path)
    assert "for 16 ms" in note
    assert f"echo 1 > /sys/class/tty/{Path(str(port.port)).name}/device/latency_timer" in note
    (adapter / "latency_timer").write_text("1\n")
    assert latency_notes(port, tmp_path) == ()
    assert asked == [True, True]
