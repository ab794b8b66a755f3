"""What the system itself keeps out of a socket: whatever cannot be KDNET, and nothing else."""

from __future__ import annotations

import socket
import sys

import pytest

from kdbridge.transports.net_filter import dropped_by_system, keep_out_garbage
from protocol.kdnet.datagram import flaw

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do this")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_what_gets_in_is_what_the_link_would_look_at(family: int) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as bound, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(("::" if family == socket.AF_INET6 else "127.0.0.1", 0))
        bound.setblocking(False)
        assert keep_out_garbage(bound) and dropped_by_system(bound) == 0
        sent = [head + bytes(size) for head in (b"MDBG", b"MDBX", b"mdbg", b"") for size in (*range(120), 1202, 4100)]
        got = []
        for datagram in sent:
            other.sendto(datagram, ("127.0.0.1", bound.getsockname()[1]))
            try:
                got.append(bound.recv(65535))
            except BlockingIOError:
                continue
        assert got == [datagram for datagram in sent if flaw(datagram) is None] != []
        assert dropped_by_system(bound) == len(sent) - len(got)


def test_a_socket_of_another_kind_is_left_as_it_is() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        pass
    assert not keep_out_garbage(closed)
    assert dropped_by_system(closed) == 0
