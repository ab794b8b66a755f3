"""kdbridge keygen: a key of full strength, and lines that can be typed as they stand."""

from __future__ import annotations

import os
import re
import socket
import stat
from pathlib import Path

import pytest

from kdbridge.interfaces import LocalAddress, local_addresses
from kdbridge.transports.address import parse_target
from kdbridge.transports.net_key import find_key
from protocol.kdnet import parse_key
from tests.kdbridge.cli.calling import call

_KEY = re.compile(r"(?<=key:)[0-9a-z.]+")


def _addresses(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, str]) -> None:
    monkeypatch.setattr("kdbridge.cli.keygen.local_addresses", lambda: [LocalAddress(*each) for each in addresses])


def test_a_key_has_256_bits_and_no_two_are_the_same() -> None:
    keys = {call("keygen", "--json").document["key"] for _ in range(20)}
    assert len(keys) == 20
    raw = [parse_key(key).raw for key in keys]
    assert all(len(key.split(".")) == 4 for key in keys)
    # Each of the 256 bits is set in some and not in others; chance alone fails this once in 10^10 runs.
    together = [int.from_bytes(each, "little") for each in raw]
    ones = [sum(each >> bit & 1 for each in together) for bit in range(256)]
    assert sum(count in (0, 20) for count in ones) <= 2
    longest = [len(part) for key in keys for part in key.split(".")]
    assert max(longest) == 13 and sum(longest) / len(longest) > 12.5, "as kdnet.exe's, and never shorter"


def test_each_interface_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    _addresses(monkeypatch, ("eth0", "192.168.1.5"), ("wlan0", "169.254.9.9"), ("eth0", "fd00::5"), ("lo", "127.0.0.1"))
    ended = call("keygen", "--port", "50007")
    assert ended.code == 0 and ended.err == ""
    key = _KEY.findall(ended.out)[0]
    setter = "set" if os.name == "nt" else "export"
    assert ended.out.splitlines() == [
        "At the target, as administrator:",
        "  bcdedit /debug on",
        "  rem through eth0, or",
        f"  bcdedit /dbgsettings net hostip:192.168.1.5 port:50007 key:{key}",
        "  rem through wlan0: from the same cable only",
        f"  bcdedit /dbgsettings net hostip:169.254.9.9 port:50007 key:{key}",
        "  shutdown /r /t 0",
        "This machine also has fd00::5; only recent systems take an IPv6 address for their host's.",
        "",
        "Here:",
        f"  {setter} KDBRIDGE_KEY={key}",
        "  kdbridge info net:port=50007",
    ]


def test_what_it_says_to_type_here_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "kd key"
    document = call("keygen", "--json", "--out", out).document
    assert document["here"] == f"net:port=50000,keyfile={out}"
    key, notes = find_key(parse_target(document["here"]), {})
    assert key == parse_key(document["key"]) and notes == (), "and nobody else can read it"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert call("keygen", "--out", tmp_path / "b").out.splitlines()[-1] == (
        f"  kdbridge info net:port=50000,keyfile={tmp_path / 'b'}"
    )


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "key"
    out.write_text("mine")
    ended = call("keygen", "--out", out)
    assert (ended.code, ended.out) == (5, "")
    assert ended.last == f"kdbridge: {out} exists already; a key in it may be in use. Remove it, or name another file"
    assert out.read_text() == "mine"
    assert call("keygen", "--out", tmp_path / "no" / "key").code == 5


def test_a_machine_without_a_network_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _addresses(monkeypatch, ("lo", "127.0.0.1"), ("lo", "::1"))
    assert "  rem through lo: this machine only" in call("keygen").out.splitlines()
    _addresses(monkeypatch)
    assert "this machine has no IPv4 address that a target could be told" in call("keygen").out


def test_the_document_has_the_addresses_that_there_are() -> None:
    document = call("keygen", "--json", "--port", "60000").document
    known = {(one.interface, one.address) for one in local_addresses()}
    assert {(one["interface"], one["address"]) for one in document["addresses"]} <= known
    assert document["port"] == 60000 and document["at_the_target"][0] == "bcdedit /debug on"
    assert all(line.endswith(f"port:60000 key:{document['key']}") for line in document["at_the_target"][1:])


def test_nothing_is_sent_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*words: object, **more: object) -> None:
        raise AssertionError("no socket is needed for this")

    monkeypatch.setattr(socket, "socket", none)
    monkeypatch.setattr(socket, "getaddrinfo", none)
    assert call("keygen").code == 0


def test_ports_that_no_target_can_have_are_refused() -> None:
    assert call("keygen", "--port", "80").code == 2
    assert call("keygen", "--port", "65536").code == 2
