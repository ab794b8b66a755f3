"""Faults as a user writes them."""

from __future__ import annotations

import pytest

from simulator.errors import SimulationError
from simulator.faults import LineFaults, parse_line_faults
from simulator.net import parse_faults
from tests.house.tree import ROOT


def test_what_is_written_is_read() -> None:
    assert parse_line_faults("flip=1e-5,drop=0.01,seed=7") == LineFaults(flip=1e-5, drop=0.01, seed=7)
    assert parse_line_faults("deaf") == parse_line_faults("deaf=1") == LineFaults(deaf=True)
    assert parse_line_faults("mute=0") == LineFaults()
    assert parse_line_faults("wrongbaud=9600,way=host") == LineFaults(wrongbaud=9600, way="host")
    assert parse_line_faults("die=10, back=20.5") == LineFaults(die=10, back=20.5)
    assert parse_line_faults("latency=16,restart=3") == LineFaults(latency=16, restart=3)


def test_a_text_may_hold_what_separates_others() -> None:
    assert parse_line_faults("text=login: ").text == "login: "
    assert parse_line_faults("text=a%2cb=c%0A,echo") == LineFaults(text="a,b=c\n", echo=True)


@pytest.mark.parametrize(
    "text",
    ["", "flip", "flip=", "flip=x", "flip=1.1", "flip=-0.1", "flip=nan", "flip=inf", "flop=0.1", "flip=0.1,flip=0.1",
     "seed=1.5", "seed=-1", "flip=\u0660", "flip=1_0", "deaf=2", "deaf=yes", "way=up", "way", "wrongbaud=0",
     "wrongbaud=9600.5", "text=", "text=\u00e9", "die=-1", "back=5", "die=5,back=5", "latency=1e9", "loss=0.1,"],
)  # fmt: skip
def test_what_is_no_fault_is_said(text: str) -> None:
    with pytest.raises(SimulationError):
        parse_line_faults(text)


def test_who_writes_a_network_s_fault_for_a_line_is_told_so_and_the_other_way_round() -> None:
    with pytest.raises(SimulationError, match=r"reorder is what a network does.*a serial line knows flip, drop"):
        parse_line_faults("loss=0.05,reorder=0.1")
    with pytest.raises(SimulationError, match=r"flip is a fault of serial lines; a network has loss, dup"):
        parse_faults("flip=1e-5")


def test_the_page_names_every_fault() -> None:
    page = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8")
    told = {line.split("`")[1].partition("=")[0] for line in page.splitlines() if line.startswith("| `")}
    assert set(LineFaults.__slots__) <= told
