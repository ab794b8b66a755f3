"""The map of physical memory: of one size whatever the memory's, and a single bad frame is seen."""

from __future__ import annotations

import random
import re
from xml.etree import ElementTree

import pytest

from kdbridge.analysis.coverage_map import MOST_SHAPES, coverage_svg
from kdbridge.analysis.model import Held
from protocol.address import PageRun, PageRuns

_NONE = PageRuns()


def _shapes(held: Held) -> list[tuple[str, int, int, int]]:
    """(class, x, y, width) of every rectangle, by another reader of XML."""
    root = ElementTree.fromstring(coverage_svg(held))
    assert len(list(root)) <= MOST_SHAPES
    return [
        (one.get("class", ""), int(one.get("x", "")), int(one.get("y", "")), int(one.get("width", "")))
        for one in root.iter("rect")
    ]  # fmt: skip


def _cells(held: Held, *looks: str) -> int:
    return sum(width for look, _, _, width in _shapes(held) if look in looks) // 10


def test_all_that_is_held_looks_held() -> None:
    memory = PageRuns([PageRun(1, 899)])
    assert _cells(Held(memory, memory, _NONE, _NONE), "k8") == 899
    assert _cells(Held(memory, _NONE, _NONE, _NONE), "k0") == 899
    half = PageRuns([PageRun(1, 450)])
    assert _cells(Held(memory, half, _NONE, _NONE), "k8") == 450
    assert _cells(Held(memory, half, _NONE, _NONE), "k0") == 449


def test_what_is_almost_whole_does_not_look_whole() -> None:
    memory = PageRuns([PageRun(0, 900 * 100)])
    held = memory - PageRuns([PageRun(12345, 1)])
    assert _cells(Held(memory, held, _NONE, _NONE), "k8") == 899
    assert _cells(Held(memory, held, _NONE, _NONE), "k7") == 1


@pytest.mark.parametrize("frame", [0, 777_777, 4_194_303])
def test_a_single_bad_frame_of_16_gib_is_seen(frame: int) -> None:
    memory = PageRuns([PageRun(0, 1 << 22)])
    bad = PageRuns([PageRun(frame, 1)])
    held = Held(memory, memory - bad, bad, _NONE)
    assert _cells(held, "bad") == 1
    (x, y) = next((x, y) for look, x, y, _ in _shapes(held) if look == "bad")
    each = -(-(1 << 22) // 900)
    assert ((x - 96) // 10 + y // 10 * 60) == frame // each
    inferred = Held(memory, memory, _NONE, bad)
    assert _cells(inferred, "inferred") == 1


def test_a_hole_of_a_terabyte_takes_no_room_and_is_named() -> None:
    memory = PageRuns([PageRun(0, 1000), PageRun(1 << 28, 1000)])
    svg = coverage_svg(Held(memory, memory, _NONE, _NONE))
    assert "no memory for 1024.0 GiB" in svg or "no memory for 1.0 TiB" in svg
    assert ">0x10000000000<" in svg, "where it goes on"
    assert _cells(Held(memory, memory, _NONE, _NONE), "hole") == 0


def test_a_small_hole_is_drawn_as_one() -> None:
    memory = PageRuns([PageRun(0, 500), PageRun(510, 390)])
    held = Held(memory, memory, _NONE, _NONE)
    assert (_cells(held, "hole"), _cells(held, "k8")) == (10, 890)


@pytest.mark.parametrize("seed", range(6))
def test_no_memory_makes_more_shapes_than_there_may_be(seed: int) -> None:
    dice = random.Random(seed)
    size = 10 ** dice.randrange(2, 8)

    def some() -> PageRuns:
        return PageRuns(PageRun(dice.randrange(size), dice.choice((1, 1, 3, size // 50))) for _ in range(3000))

    memory = some()
    held = Held(memory, some() & memory, some() & memory, some() & memory)
    shapes = _shapes(held)
    assert all(x >= 96 and x + width <= 96 + 600 for _, x, _, width in shapes)


def test_a_map_of_nothing_is_one() -> None:
    svg = coverage_svg(Held(_NONE, _NONE, _NONE, _NONE))
    assert re.match(r'<svg class="map" viewBox="0 0 696 10"', svg)
    assert ElementTree.fromstring(svg).tag == "svg"


def test_memory_that_nobody_told_of_is_what_is_held() -> None:
    held = PageRuns([PageRun(5, 100)])
    assert _cells(Held(_NONE, held, _NONE, _NONE), "k8") == 100
