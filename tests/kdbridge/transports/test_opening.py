"""Each scheme has its opener."""

from __future__ import annotations

import pytest

from kdbridge.errors import UsageError
from kdbridge.transports import open_transport
from kdbridge.transports.address import SCHEMES
from kdbridge.transports.opening import OPENERS


def test_every_scheme_has_an_opener_and_every_opener_a_scheme() -> None:
    assert set(OPENERS) == set(SCHEMES)


async def test_a_simulated_machine_is_opened_by_its_scenario() -> None:
    transport = await open_transport("sim:bugcheck?processors=2&memory=64M")
    assert transport.url == "sim:bugcheck?processors=2&memory=64M"
    await transport.aclose()


@pytest.mark.parametrize("address", ["sim:no-such-scenario", "sim:bugcheck?colour=blue", "MEMORY.DMP"])
async def test_what_cannot_be_opened_is_a_usage_error(address: str) -> None:
    with pytest.raises(UsageError):
        await open_transport(address)
