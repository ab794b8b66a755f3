"""Page locations, as published (dump-formats 3.2 B)."""

from __future__ import annotations

from protocol.layouts.pfn import PageLocation


def test_the_eight_locations_are_numbered_as_published() -> None:
    names = "Zeroed Free Standby Modified ModifiedNoWrite Bad Active Transition"
    told = [location.name.title().replace("_", "") for location in PageLocation]
    assert told == names.split() and [int(location) for location in PageLocation] == list(range(8))
