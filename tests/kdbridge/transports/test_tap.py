"""A tap sees every byte both ways, and what it is put on stays what it was."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from kdbridge.opening import open_target
from kdbridge.transports import DatagramTransport, PromptTransport, open_transport
from kdbridge.transports.tap import Tap, tapped, untapped
from protocol.address import VirtualAddress
from protocol.kdnet import Address
from tests.recording import split

_MACHINE = "sim:bugcheck?memory=16M&processors=1"


@dataclass
class Seen:
    stream: list[tuple[bool, bytes]] = field(default_factory=list)
    datagrams: list[tuple[Address, Address, bytes]] = field(default_factory=list)

    @property
    def tap(self) -> Tap:
        return Tap(
            lambda to_target, data: self.stream.append((to_target, data)),
            lambda source, destination, data: self.datagrams.append((source, destination, data)),
        )

    def said(self, to_target: bool) -> bytes:
        return b"".join(data for way, data in self.stream if way is to_target)


class Line:
    """A line at whose other end is an echo, which can be looked at without waiting."""

    url, notes = "echo:", ("an echo",)

    def __init__(self) -> None:
        self.wire = b""
        self.closed = False

    async def send(self, data: bytes) -> None:
        self.wire += data

    async def receive(self) -> bytes:
        data, self.wire = self.wire, b""
        return data

    async def aclose(self) -> None:
        self.closed = True


class PromptLine(Line):
    def receive_within(self, seconds: float) -> bytes | None:
        data, self.wire = self.wire, b""
        return data or None


async def test_what_goes_by_is_seen_in_its_order_and_unchanged() -> None:
    seen, line = Seen(), PromptLine()
    way = tapped(line, seen.tap)
    assert isinstance(way, PromptTransport)
    await way.send(b"question")
    assert line.wire == b"question"
    assert await way.receive() == b"question"
    await way.send(b"more")
    assert (way.receive_within(0), way.receive_within(0)) == (b"more", None)
    assert seen.stream == [(True, b"question"), (False, b"question"), (True, b"more"), (False, b"more")]
    assert (way.url, way.notes) == ("echo:", ("an echo",))
    await way.aclose()
    assert line.closed and untapped(way) is line and untapped(line) is line


def test_a_line_that_is_not_prompt_does_not_become_so() -> None:
    assert not isinstance(tapped(Line(), Seen().tap), PromptTransport)


async def test_both_ends_of_a_session_are_whole_packets_whose_replies_hold_the_memory() -> None:
    seen = Seen()
    line = await open_transport(_MACHINE)
    kernel = line.running.kernel  # type: ignore[attr-defined]
    async with open_target(_MACHINE, transport=tapped(line, seen.tap)) as target:
        await target.virtual.read(VirtualAddress(kernel.kdbg_address), 64)
    packets, _ = split(seen.said(False))
    assert packets[-1].payload[-64:] == kernel.read_virtual(kernel.kdbg_address, 64)
    asked, between = split(seen.said(True))
    assert between == [] and asked[-1].control
    assert sum(not packet.control for packet in packets) == sum(
        packet.control for packet in asked if packet.packet_type == 4
    )


async def test_of_a_network_every_datagram_is_seen_pokes_and_responses_too() -> None:
    seen = Seen()
    line = await open_transport(f"{_MACHINE}&link=net")
    assert isinstance(line, DatagramTransport)
    way = tapped(line, seen.tap)
    assert way is line
    async with open_target(_MACHINE, transport=way):
        pass
    host, target = ("192.0.2.1", 50000), ("192.0.2.10", 50000)
    assert {(source, destination) for source, destination, _ in seen.datagrams} == {(host, target), (target, host)}
    assert all(data.startswith(b"MDBG") for _, _, data in seen.datagrams)
    # A poke, the response to it, then data: byte 5 is the channel (kdnet 3.1).
    assert [(source == host, data[5]) for source, _, data in seen.datagrams[:2]] == [(False, 1), (True, 1)]
    assert {data[5] for _, _, data in seen.datagrams[2:]} >= {0}


@pytest.mark.parametrize("address", [_MACHINE, f"{_MACHINE}&link=net"])
async def test_without_a_tap_and_with_one_a_target_says_the_same(address: str) -> None:
    async with open_target(address) as plain:
        version = await plain.version()
    line = await open_transport(address)
    async with open_target(address, transport=tapped(line, Seen().tap)) as target:
        assert await target.version() == version
