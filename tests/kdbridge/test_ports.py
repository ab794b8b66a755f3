"""The list of serial ports, out of a system made for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from serial.tools.list_ports import comports
from serial.tools.list_ports_common import ListPortInfo

from kdbridge.ports import list_ports


def _info(device: str, **known: str) -> ListPortInfo:
    info = ListPortInfo(device)
    for name, value in known.items():
        setattr(info, name, value)
    return info


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A Linux with an FTDI adapter as ttyUSB0 and a CDC device as ttyACM0."""
    by_id = tmp_path / "dev/serial/by-id"
    by_id.mkdir(parents=True)
    (by_id / "usb-FTDI_FT232R_A1-if00-port0").symlink_to("../../ttyUSB0")
    for name, driver in (("ttyUSB0", "ftdi_sio"), ("ttyACM0", "cdc_acm")):
        device = tmp_path / "sys/class/tty" / name / "device"
        device.mkdir(parents=True)
        (device / "driver").symlink_to(f"../../../../bus/usb/drivers/{driver}")
    (tmp_path / "sys/class/tty/ttyUSB0/device/latency_timer").write_text("16\n")
    return tmp_path


def test_an_adapter_is_described_by_all_that_is_known(root: Path) -> None:
    info = _info(
        "/dev/ttyUSB0",
        description="FT232R USB UART",
        hwid="USB VID:PID=0403:6001 SER=A1 LOCATION=1-2",
        manufacturer="FTDI",
        product="FT232R USB UART",
        serial_number="A1",
    )
    (port,) = list_ports([info], root)
    assert port.to_json() == {
        "device": "/dev/ttyUSB0",
        "name": "ttyUSB0",
        "description": "FT232R USB UART",
        "hardware_id": "USB VID:PID=0403:6001 SER=A1 LOCATION=1-2",
        "manufacturer": "FTDI",
        "product": "FT232R USB UART",
        "serial_number": "A1",
        "stable_name": "/dev/serial/by-id/usb-FTDI_FT232R_A1-if00-port0",
        "driver": "ftdi_sio",
        "latency_timer": 16,
    }


def test_what_is_not_known_is_none(root: Path) -> None:
    acm, bare = list_ports([_info("/dev/ttyS9"), _info("/dev/ttyACM0")], root)
    assert (acm.driver, acm.latency_timer, acm.stable_name) == ("cdc_acm", None, None)
    assert (bare.description, bare.hardware_id, bare.driver) == (None, None, None)


def test_ports_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ["COM10", "COM9", "COM1", "/dev/ttyUSB10", "/dev/ttyUSB2"]
    found = [port.device for port in list_ports([_info(name) for name in names], tmp_path)]
    assert found == ["/dev/ttyUSB2", "/dev/ttyUSB10", "COM1", "COM9", "COM10"]


def test_a_timer_that_is_no_number_is_not_known(root: Path) -> None:
    (root / "sys/class/tty/ttyUSB0/device/latency_timer").write_text("broken")
    (port,) = list_ports([_info("/dev/ttyUSB0")], root)
    assert port.latency_timer is None


def test_this_machines_ports_are_those_that_pyserial_finds() -> None:
    assert sorted(port.device for port in list_ports()) == sorted(info.device for info in comports())
