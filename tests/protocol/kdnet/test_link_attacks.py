"""Forged, replayed, reflected and mutated datagrams in mid-session: nothing that is remembered changes."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from protocol.conversation import Replied
from protocol.kdnet import Address, Channel, Datagram, KdnetLink, Sealer, parse_key
from protocol.link import Discard
from protocol.manipulate import ApiNumber, Manipulate
from tests.protocol.kdnet.aes import Aes
from tests.protocol.kdnet.ends import HOST_AT, KEY, TARGET_AT, Network, state
from tests.small_machine import KERNEL, content

_SEED = 20
_MEMORY = content()
_ATTACKER: Address = ("198.51.100.66", 50000)


def _read(network: Network, address: int, size: int) -> bytes:
    network.events.clear()
    request = Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=address, transfer_count=size)
    network.host.ask(request, network.now, repeatable=True)
    assert network.run(60.0, lambda: any(isinstance(event, Replied) for event in network.events))
    network.run(0.01)
    (replied,) = (event for event in network.events if isinstance(event, Replied))
    return replied.reply.data


def _in_mid_session() -> Network:
    network = Network(_SEED)
    assert network.run(10.0, lambda: network.host.change is not None)
    network.run(5.0)
    for at in range(0x100, 0x1000, 0x100):
        assert _read(network, KERNEL + at, 64) == _MEMORY[at : at + 64]
    return network


def _mutated(rng: random.Random, datagram: bytes) -> bytes:
    changed = bytearray(datagram)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.2:
        changed = changed[: rng.randrange(len(changed))]
    if rng.random() < 0.1:
        changed += rng.randbytes(16 * rng.randint(1, 4))
    return bytes(changed) if bytes(changed) != datagram else b""


def _attacks(network: Network, to_host: bool) -> dict[str, Callable[[random.Random], bytes]]:
    recorded = [datagram for toward, datagram in network.log if toward is to_host]
    own = [datagram for toward, datagram in network.log if toward is not to_host]
    stranger = Sealer(parse_key("1.2.3.4"), Aes())

    def forged(rng: random.Random) -> bytes:
        said = Datagram(
            rng.randrange(256), rng.choice(list(Channel)), not to_host, rng.randrange(1 << 40), rng.randbytes(72)
        )
        return stranger.seal(said, rng.randbytes(32))

    def garbage(rng: random.Random) -> bytes:
        head = rng.choice([b"", b"MDBG", b"MDBG\x05\x00", b"MDBG\x05\x01"])
        return head + rng.randbytes(rng.choice([0, 1, 32, 48, 100, 368, 1400]))

    return {
        "forged": forged,
        "replayed": lambda rng: rng.choice(recorded),
        "reflected": lambda rng: rng.choice(own),
        "mutated": lambda rng: _mutated(rng, rng.choice(recorded + own)),
        "garbage": garbage,
    }


@pytest.mark.parametrize("to_host", [True, False], ids=["to the host", "to the target"])
def test_ten_thousand_datagrams_change_nothing(to_host: bool) -> None:
    network = _in_mid_session()
    link: KdnetLink = network.host_link if to_host else network.target_link
    attacks = _attacks(network, to_host)
    rng = random.Random(_SEED)
    before = state(link)
    discarded = sum(link.facts.discarded.values())
    for number in range(10_000):
        name = rng.choice(sorted(attacks))
        source = rng.choice([_ATTACKER, TARGET_AT if to_host else HOST_AT])
        woke = link.receive_datagram(attacks[name](rng), source, network.now)
        assert not woke, f"seed {_SEED}, datagram {number}, {name}"
    assert link.datagrams_to_send() == []
    assert state(link) == before, f"seed {_SEED}"
    # Each one was counted under a name.
    assert sum(link.facts.discarded.values()) - discarded == 10_000
    assert {Discard.REPLAYED, Discard.REFLECTED, Discard.NOT_AUTHENTIC, Discard.NOT_KDNET} <= set(link.facts.discarded)
    # And what is read afterwards is still the memory.
    for at in range(0x3000, 0x4000, 0x400):
        assert _read(network, KERNEL + at, 0x100) == _MEMORY[at : at + 0x100]


def test_reading_under_fire_reads_the_memory() -> None:
    network = _in_mid_session()
    attacks = {to_host: _attacks(network, to_host) for to_host in (True, False)}
    rng = random.Random(_SEED + 1)
    for at in range(0x5000, 0x6000, 0x80):
        for _ in range(30):
            to_host = rng.random() < 0.5
            name = rng.choice(sorted(attacks[to_host]))
            source = rng.choice([_ATTACKER, TARGET_AT if to_host else HOST_AT])
            network.inject(to_host, attacks[to_host][name](rng), source)
        began = network.now
        assert _read(network, KERNEL + at, 0x80) == _MEMORY[at : at + 0x80], f"seed {_SEED + 1}"
        assert network.now - began < 0.1, "and nothing had to be said twice"
    assert network.host_link.facts.restarts == 0 and network.host_link.facts.sessions == 1


def test_datagrams_of_the_life_before_are_not_of_this_one() -> None:
    network = _in_mid_session()
    recorded = [datagram for toward, datagram in network.log if toward]
    network.restart_target(seed=5)
    assert network.run(10.0, lambda: network.host_link.facts.restarts == 1)
    network.run(1.0)
    before = state(network.host_link)
    for datagram in recorded:
        network.inject(True, datagram, TARGET_AT)
    assert state(network.host_link) == before
    assert network.host_link.datagrams_to_send() == []
    other = content(5)
    assert _read(network, KERNEL + 0x7000, 0x200) == other[0x7000:0x7200] != _MEMORY[0x7000:0x7200]


def test_the_session_key_is_never_what_an_attacker_can_choose() -> None:
    """Its random half is the host's, and drawn anew for every answer (trap 22 of the reference)."""
    keys = set()
    for seed in range(20):
        network = Network(seed)
        network.run(3.0)
        session = network.host_link._channel._current
        assert session is not None
        keys.add(session.key)
    assert len(keys) == 20
    assert KEY.raw not in keys
