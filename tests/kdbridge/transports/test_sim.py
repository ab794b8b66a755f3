"""sim: a machine inside this process, at the end of a line that may be slow."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kdbridge.errors import UsageError
from kdbridge.transports import open_transport
from kdbridge.transports.sim import open_sim, parse_size
from simulator.scenarios import SCENARIOS
from tests.recording import split


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("64K", 65536), ("64k", 65536), ("256M", 256 << 20), ("1G", 1 << 30), ("2t", 2 << 40), ("0", 0)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "1.5G", "-1", "1 G", "0x1000", "1GB", "\u0661", "1" * 19])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size; write 4096, 64K, 256M or 1G"):
        parse_size(text)


def test_options_make_the_machine() -> None:
    way = open_sim(
        "sim:x", "bugcheck", {"processors": "7", "memory": "32M", "seed": "9", "unreadable": "3", "runs": "5"}
    )
    kernel = way.running.kernel
    assert len(kernel.processors) == 7
    assert kernel.image.runs.page_count <= 32 << 8
    assert len(kernel.image.runs) == 5
    assert len(kernel.image.unreadable) == 3
    assert kernel.options.seed == 9
    assert way.notes == (f"a simulated machine: {SCENARIOS['bugcheck'].text}",)
    assert open_sim("sim:", "", {"memory": "16M"}).running.scenario.name == "bugcheck"


@pytest.mark.parametrize(
    ("scenario", "options", "text"),
    [
        ("nonsense", {}, "there is no scenario 'nonsense'; there are: bugcheck"),
        ("bugcheck", {"colour": "red"}, "knows no option colour; it knows processors, seed"),
        ("bugcheck", {"processors": "many"}, "processors=many is not a number"),
        ("bugcheck", {"processors": "0"}, "0 processors"),
        ("bugcheck", {"memory": "1K"}, "at least 16 MiB"),
        ("bugcheck", {"memory": "big"}, "'big' is not a size"),
        ("bugcheck", {"baud": "0"}, "0 baud carries nothing"),
        ("bugcheck", {"fault": "flop=1"}, "'flop=1' is no fault of a serial line"),
        ("bugcheck", {"fault": "jitter=1"}, "jitter is what a network does"),
        ("bugcheck", {"baud": "9" * 13}, "is not a number"),
    ],
)
def test_what_no_machine_can_be_is_a_mistake_of_the_user(scenario: str, options: dict[str, str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        open_sim(f"sim:{scenario}", scenario, options)


async def test_the_first_packet_comes_at_once_on_a_fast_line(autojump_clock: trio.testing.MockClock) -> None:
    way = open_sim("sim:", "bugcheck", {"memory": "16M"})
    data = await way.receive()
    assert trio.current_time() < 0.1
    (packet,), _ = split(data)
    assert (packet.packet_type, packet.packet_id) == (7, 0x80800800)


@pytest.mark.parametrize("baud", [9600, 115200, 921600])
async def test_a_line_carries_a_byte_in_ten_bits(baud: int, autojump_clock: trio.testing.MockClock) -> None:
    way = open_sim("sim:", "bugcheck", {"memory": "16M", "baud": str(baud)})
    started = trio.current_time()
    data = b""
    while len(data) < 16 + 240 + 1:
        data += await way.receive()
    assert trio.current_time() - started == pytest.approx((16 + 240 + 1) * 10 / baud, rel=0.02, abs=1e-3)


async def test_a_silent_machine_keeps_its_reader_waiting(autojump_clock: trio.testing.MockClock) -> None:
    way = open_sim("sim:", "silent", {"memory": "16M"})
    with trio.move_on_after(3600) as scope:
        await way.receive()
    assert scope.cancelled_caught


async def test_cancelled_it_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    way = open_sim("sim:", "bugcheck", {"memory": "16M", "baud": "9600"})
    data = b""
    while len(data) < 257:
        with trio.move_on_after(0.003):
            data += await way.receive()
    packets, between = split(data[:257])
    assert between == [] and packets[0].packet_type == 7
    await way.aclose()


async def test_what_is_wrong_with_the_line_is_part_of_the_address(autojump_clock: trio.testing.MockClock) -> None:
    """A comma and an equals sign are the faults' own; of a target that is mute nothing comes."""
    way = await open_transport("sim:bugcheck?memory=16M&fault=text=a%2Cb,mute,seed=7&processors=1")
    assert way.url == "sim:bugcheck?memory=16M&fault=text=a%2Cb,mute,seed=7&processors=1"
    with trio.fail_after(60):
        assert [await way.receive() for _ in range(3)] == [b"a,b"] * 3
    await way.aclose()


async def test_a_network_has_its_own_faults() -> None:
    with pytest.raises(UsageError, match="fault= is for a serial line"):
        await open_transport("sim:bugcheck?memory=16M&link=net&fault=flip=0.1")
