"""WinDbg's connection strings, as its documentation writes them."""

from __future__ import annotations

import pytest

from kdbridge.errors import UsageError
from kdbridge.transports import parse_target

_RIGHT = {
    "com:port=COM1,baud=115200": "serial:COM1?baud=115200",
    "com:baud=9600,port=/dev/ttyUSB0": "serial:/dev/ttyUSB0?baud=9600",
    r"com:port=\\.\COM12,baud=921600": r"serial:\\.\COM12?baud=921600",
    "COM:PORT=com2 , Baud=19200": "serial:com2?baud=19200",
    "com:port=COM1": "serial:COM1",
    "com:ipport=5003,port=10.0.0.1": "tcp:10.0.0.1:5003",
    "com:ipport=5003,port=fe80::1": "tcp:[fe80::1]:5003",
    r"com:pipe,port=\\.\pipe\x,resets=0,reconnect": r"pipe:\\.\pipe\x?resets=0&reconnect=1",
    r"com:pipe,port=\\VMHost\pipe\PipeName": r"pipe:\\VMHost\pipe\PipeName",
}

_WRONG = {
    "com:": "it knows port, baud, ipport, pipe, resets, reconnect",
    "com:port=COM1,speed=9600": "com: has no 'speed'; it knows port, baud, ipport, pipe, resets, reconnect",
    "com:modem": "com: has no 'modem'",
    "com:baud=9600": "lacks port=",
    "com:port": "'port' should be port=",
    "com:port=": "'port=' should be port=",
    r"com:pipe=\\.\pipe\x": "should be pipe",
    "com:port=COM1,port=COM2": "port is given twice",
    "com:port=COM1,reconnect": "reconnect does not go with port",
    r"com:pipe,port=\\.\pipe\x,baud=9600": "baud does not go with pipe",
    "com:ipport=x,port=10.0.0.1": "'x' is not a port number",
    "com:ipport=5003,port=10.0.0.1,pipe": "ipport does not go with pipe",
    "com:port=COM1,baud=quick": "baud=quick is no speed",
    r"com:pipe,port=\\.\pipe\x,resets=often": "resets=often is not a number",
    "com:port=a?b": "question mark",
}


@pytest.mark.parametrize("text", _RIGHT)
def test_a_string_of_windbg_means_what_it_means_there(text: str) -> None:
    assert parse_target(text).url == _RIGHT[text]


@pytest.mark.parametrize("text", _WRONG)
def test_a_wrong_string_is_told_what_is_wrong(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_target(text)
    assert _WRONG[text] in str(raised.value)
