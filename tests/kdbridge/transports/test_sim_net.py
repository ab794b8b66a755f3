"""sim: over a network: both ends in this process, and time as fast as it is wanted."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kdbridge.errors import UsageError
from kdbridge.transports import DatagramTransport, open_transport
from kdbridge.transports.sim_net import SimNetTransport, open_sim_net
from simulator.net import Faults
from simulator.scenarios import SCENARIOS


def _sim(**options: str) -> SimNetTransport:
    return open_sim_net("sim:bugcheck", "bugcheck", {"link": "net", "memory": "16M", **options})


async def test_it_is_opened_by_its_link(autojump_clock: trio.testing.MockClock) -> None:
    url = "sim:breakpoint?memory=16M&link=net&version=4&loss=0.5&jitter=0.02&seed=7"
    way = await open_transport(url)
    assert isinstance(way, SimNetTransport) and isinstance(way, DatagramTransport)
    assert way.url == url
    assert way.notes == (f"a simulated machine on a simulated network: {SCENARIOS['breakpoint'].text}",)
    assert way.networked.faults == Faults(loss=0.5, jitter=0.02, seed=7)
    assert way.networked.link.version == 4
    assert way.running.kernel.options.seed == 7
    await way.aclose()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"link": "usb"}, "link=usb should be link=net"),
        ({"version": "3"}, "version=3 is none that was ever seen; there are 2, 4 and 5"),
        ({"baud": "9600"}, "a network has no baud"),
        ({"loss": "7"}, "loss is a number from 0 to 1"),
        ({"seed": "x"}, "seed is a number"),
        ({"colour": "red"}, "knows no option colour"),
    ],
)
def test_what_no_network_can_be_is_a_mistake_of_the_user(options: dict[str, str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        _sim(**options)


async def test_the_target_pokes_and_is_answered_at_once(autojump_clock: trio.testing.MockClock) -> None:
    way = _sim()
    text = way.explain()
    assert text is not None and "192.0.2.1:50000" in text
    assert await way.receive() == b""
    assert trio.current_time() < 0.1 and way.explain() is None
    assert way.link.version == 5 and way.received > 0 and way.transfer_sizes == (1096, 1096)
    assert way.loss() == ""


async def test_a_network_that_loses_all_keeps_its_reader_waiting(autojump_clock: trio.testing.MockClock) -> None:
    way = _sim(loss="1")
    with trio.move_on_after(100) as scope:
        await way.receive()
    assert scope.cancelled_caught
    text = way.explain(100)
    assert text is not None and text.startswith("not a single datagram came within 100 seconds")


async def test_cancelled_it_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    way = _sim(delay="0.5")
    woken = 0
    with trio.move_on_after(20):
        while True:
            with trio.move_on_after(0.03) as scope:
                await way.receive()
            woken += not scope.cancelled_caught
    # UNUSED, and the state change that the greeting brings again and again, as nobody acknowledges what nobody reads.
    assert woken > 2 and way.link.peer is not None
