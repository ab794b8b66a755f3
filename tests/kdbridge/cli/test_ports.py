"""kdbridge ports: what the system says of its serial ports."""

from __future__ import annotations

import pytest

import kdbridge.cli.ports
from kdbridge.ports import SerialPort, list_ports
from tests.kdbridge.cli.calling import call

_PORTS = (
    SerialPort(
        "/dev/ttyUSB0", "ttyUSB0", "FT232R USB UART",
        manufacturer="FT\x1b[2JDI", driver="ftdi_sio", latency_timer=0,
    ),
    SerialPort("/dev/ttyS0"),
)  # fmt: skip


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kdbridge.cli.ports, "list_ports", lambda: _PORTS)


def test_each_port_is_shown_as_a_target_with_what_is_known_of_it(two: None) -> None:
    ended = call("ports")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "serial:/dev/ttyUSB0\n"
        "    name: ttyUSB0\n"
        "    description: FT232R USB UART\n"
        "    manufacturer: FT.[2JDI\n"
        "    driver: ftdi_sio\n"
        "    latency timer: 0\n"
        "serial:/dev/ttyS0\n"
    )


def test_json_has_every_field_of_every_port(two: None) -> None:
    first, second = call("ports", "--json").document
    assert first["device"] == "/dev/ttyUSB0" and first["manufacturer"] == "FT\x1b[2JDI" and first["latency_timer"] == 0
    assert second == {**dict.fromkeys(first), "device": "/dev/ttyS0"}


def test_no_ports_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kdbridge.cli.ports, "list_ports", tuple)
    ended = call("ports")
    assert (ended.code, ended.out) == (
        0, "no serial ports; a USB adapter shows up here as soon as it is plugged in\n",
    )  # fmt: skip
    assert call("ports", "--json").document == []


def test_the_ports_of_this_machine_are_listed() -> None:
    devices = [port["device"] for port in call("ports", "--json").document]
    assert devices == [port.device for port in list_ports()]
