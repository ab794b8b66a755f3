"""What a user may write for a target, and what is said of everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbridge.errors import UsageError
from kdbridge.transports.address import SCHEMES, TargetAddress, is_target, parse_target

_RIGHT = {
    "serial:/dev/ttyUSB0": TargetAddress("serial", "/dev/ttyUSB0"),
    "serial:/dev/ttyUSB0?baud=9600&rtscts=1": TargetAddress(
        "serial", "/dev/ttyUSB0", options=(("baud", "9600"), ("rtscts", "1"))
    ),
    "/dev/ttyACM1": TargetAddress("serial", "/dev/ttyACM1"),
    "/dev/pts/7": TargetAddress("serial", "/dev/pts/7"),
    "/dev/serial/by-id/usb-FTDI_FT232R-if00-port0?baud=921600": TargetAddress(
        "serial", "/dev/serial/by-id/usb-FTDI_FT232R-if00-port0", options=(("baud", "921600"),)
    ),
    "COM3": TargetAddress("serial", "COM3"),
    "com3?dtr=0&rts=0": TargetAddress("serial", "com3", options=(("dtr", "0"), ("rts", "0"))),
    r"\\.\COM12": TargetAddress("serial", r"\\.\COM12"),
    "tcp:10.0.0.1:5003": TargetAddress("tcp", host="10.0.0.1", port=5003),
    "TCP:host.example:1": TargetAddress("tcp", host="host.example", port=1),
    "tcp:[fe80::1%eth0]:5003": TargetAddress("tcp", host="fe80::1%eth0", port=5003),
    "tcp-listen:0.0.0.0:0": TargetAddress("tcp-listen", host="0.0.0.0", port=0),
    "unix:/run/vm/serial?0": TargetAddress("unix", "/run/vm/serial?0"),
    "unix-listen:relative": TargetAddress("unix-listen", "relative"),
    r"pipe:\\.\pipe\vm": TargetAddress("pipe", r"\\.\pipe\vm"),
    r"\\server\pipe\vm": TargetAddress("pipe", r"\\server\pipe\vm"),
    "rfc2217:[::1]:2217?baud=57600": TargetAddress("rfc2217", host="::1", port=2217, options=(("baud", "57600"),)),
    "sim:": TargetAddress("sim"),
    "sim:bugcheck?processors=4": TargetAddress("sim", "bugcheck", options=(("processors", "4"),)),
    "net:port=50000": TargetAddress("net", port=50000),
    "net://[fd00::5]:0?target=pc": TargetAddress("net", host="fd00::5", options=(("target", "pc"),)),
    "com:port=COM1,baud=115200": TargetAddress("serial", "COM1", options=(("baud", "115200"),)),
}

_WRONG = {
    "": "should start with serial:, tcp:",
    "some.dmp": "should start with serial:, tcp:",
    "tpc:host:5003": "there is no 'tpc' target",
    "serial:": "does not say where",
    "serial:?baud=9600": "does not say where",
    "serial:/dev/ttyS0?baud=fast": "baud=fast is no speed",
    "serial:/dev/ttyS0?baud=0": "baud=0 is no speed",
    "serial:/dev/ttyS0?baud=٣٠٠": "is no speed",
    "serial:/dev/ttyS0?speed=9600": "it knows baud, rtscts, xonxoff, dtr, rts",
    "serial:/dev/ttyS0?baud": "'baud' is not an option",
    "serial:/dev/ttyS0?baud=9600&baud=9600": "baud is given twice",
    "serial:/dev/ttyS0?rtscts=yes": "should be rtscts=0 or rtscts=1",
    "serial:/dev/ttyS0?rtscts=1&rts=0": "leave rts out",
    "serial:/dev/ttyS0?rtscts=1&xonxoff=1": "exclude each other",
    "tcp:5003": "should name a host and a port",
    "tcp:host": "should name a host and a port",
    "tcp:host:": "'' is not a port number",
    "tcp:host:0": "not a port number (1 to 65535)",
    "tcp:host:65536": "not a port number",
    "tcp:::1:5003": "goes in brackets",
    "tcp:[host]:5003": "not an IPv6 address",
    "tcp:a host:5003": "cannot be a host",
    "tcp:host:5003?nodelay=1": "it has none",
    "unix:": "does not say where",
    "usb:targetname=x": "debugging over USB is not supported in this version",
    "1394:channel=1": "IEEE 1394 is not supported in this version",
    "unix:/a\x00b": "is not a target address",
    "tcp:" + "x" * 5000: "is not a target address",
}


@pytest.mark.parametrize("text", _RIGHT)
def test_a_right_address_is_taken_apart(text: str) -> None:
    assert parse_target(text) == _RIGHT[text]


@pytest.mark.parametrize("text", _RIGHT)
def test_a_right_address_is_a_target_and_not_a_file(text: str) -> None:
    assert is_target(text)


@pytest.mark.parametrize("text", _WRONG)
def test_a_wrong_address_is_told_what_is_wrong(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_target(text)
    assert _WRONG[text] in str(raised.value)


@pytest.mark.parametrize("text", _WRONG)
def test_what_is_said_shows_an_address_that_is_right_or_the_options_there_are(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_target(text)
    assert any(f"{scheme}:" in str(raised.value) for scheme in SCHEMES)
    assert len(str(raised.value)) < 1000 or len(text) > 500


@pytest.mark.parametrize(
    "name",
    ["MEMORY.DMP", "snapshot", "./tcp", r"C:\dumps\a.dmp", "/dev/shm/a.dmp", "/dev/null", "COM", "COMMAND3", "a:b", ""],
)
def test_what_may_name_a_file_is_no_target(name: str) -> None:
    assert not is_target(name)


@pytest.mark.parametrize("name", ["net:port=1", "usb:x", "1394:x", "com:nonsense", "tcp:", "Serial:"])
def test_a_scheme_that_is_known_makes_a_target_even_when_the_rest_is_wrong(name: str) -> None:
    assert is_target(name)


def test_a_serial_line_has_the_speed_it_was_given_or_115200() -> None:
    assert parse_target("COM1?baud=9600").baud == 9600
    assert parse_target("COM1").baud == 115200


def test_a_flag_is_what_was_said_or_the_default() -> None:
    address = parse_target("COM1?dtr=0")
    assert (address.flag("dtr", True), address.flag("rts", True), address.flag("rtscts", False)) == (False, True, False)


def _parses(text: str) -> TargetAddress | None:
    try:
        return parse_target(text)
    except UsageError:
        return None


_PIECES = st.lists(
    st.sampled_from(
        [*(f"{s}:" for s in (*SCHEMES, "com", "net")), *"?&=,:[]%\\/", "baud", "port", "pipe", "9600", "COM1"]
    )
    | st.text(max_size=4),
    max_size=12,
).map("".join)


@given(st.text() | _PIECES)
def test_no_text_causes_anything_but_a_usage_error(text: str) -> None:
    is_target(text)
    address = _parses(text)
    assert address is None or address.scheme in SCHEMES


@given(_PIECES | st.sampled_from(list(_RIGHT)))
def test_an_address_written_out_and_read_again_is_the_same(text: str) -> None:
    address = _parses(text)
    if address is not None:
        assert parse_target(address.url) == address
