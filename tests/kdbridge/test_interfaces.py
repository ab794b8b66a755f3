"""The addresses of this machine, compared with what the kernel's own tables say."""

from __future__ import annotations

import ipaddress
import re
import socket
import sys
from pathlib import Path

import pytest

from kdbridge.interfaces import LocalAddress, local_addresses

_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux keeps in /proc")


@_LINUX
def test_ipv4_addresses_are_those_of_the_routing_table() -> None:
    trie = Path("/proc/net/fib_trie").read_text()
    local = set(re.findall(r"\|-- ([\d.]+)\n\s+/32 host LOCAL", trie))
    # The table knows addresses of 127.0.0.0/8 that no interface was given.
    ours = {one.address for one in local_addresses() if one.version == 4}
    assert ours and {one for one in local if not one.startswith("127.")} == {
        one for one in ours if not one.startswith("127.")
    }


@_LINUX
def test_ipv6_addresses_are_those_that_interfaces_have() -> None:
    table = Path("/proc/net/if_inet6")
    lines = table.read_text().splitlines() if table.exists() else []
    known = {(line.split()[5], str(ipaddress.IPv6Address(int(line.split()[0], 16)))) for line in lines}
    assert {(one.interface, one.address) for one in local_addresses() if one.version == 6} == known


def test_every_interface_is_one_that_there_is() -> None:
    names = {name for _, name in socket.if_nameindex()}
    assert {one.interface for one in local_addresses()} <= names | {""}


def test_each_can_be_bound() -> None:
    for one in local_addresses():
        if one.is_link_local:
            continue
        with socket.socket(socket.AF_INET6 if one.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((one.address, 0))


def test_those_that_others_can_reach_come_first_and_ipv4_before_ipv6() -> None:
    found = local_addresses()
    order = [(one.is_loopback, one.version, one.is_link_local) for one in found]
    assert order == sorted(order)
    assert len(set(found)) == len(found)


def test_what_an_address_is_for() -> None:
    assert LocalAddress("eth0", "169.254.3.4").is_link_local
    assert LocalAddress("eth0", "fe80::1").is_link_local and LocalAddress("eth0", "fe80::1").version == 6
    assert LocalAddress("lo", "127.0.0.1").is_loopback
    assert not LocalAddress("eth0", "192.168.1.5").is_link_local


def test_a_system_that_does_not_say_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdbridge.interfaces._posix", lambda: iter([][1:2]))
    monkeypatch.setattr("kdbridge.interfaces._windows", lambda: iter(()))
    assert local_addresses() == []


def test_what_windows_answers_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [(2, 2, 0, "", ("192.168.1.5", 0)), (23, 2, 0, "", ("fe80::7%12", 0, 0, 12))]
    monkeypatch.setattr("kdbridge.interfaces.os.name", "nt")
    monkeypatch.setattr("kdbridge.interfaces.socket.getaddrinfo", lambda *words, **more: answer)
    assert [one.address for one in local_addresses()] == ["192.168.1.5", "fe80::7"]
