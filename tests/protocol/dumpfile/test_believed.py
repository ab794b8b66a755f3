"""Runs that a damaged file claims: those before the first impossible one are believed, and that one is named."""

from __future__ import annotations

import struct

import pytest

from protocol.address import PageRun
from protocol.dumpfile.believed import BelievedRuns

_GOOD = [PageRun(1, 0x9E), PageRun(0x100, 0x3F00)]
_WIDTHS = {32: struct.unpack("<I", b"PAGE")[0], 64: struct.unpack("<Q", b"PAGEPAGE")[0]}
"""What Windows fills a header with before it is written."""


def test_good_runs_are_all_believed() -> None:
    runs = BelievedRuns(_GOOD, "run")
    assert (list(runs), runs.problem) == (_GOOD, "")


@pytest.mark.parametrize("bits", _WIDTHS)
def test_a_run_that_was_never_set_ends_the_list(bits: int) -> None:
    runs = BelievedRuns([*_GOOD, PageRun(_WIDTHS[bits], _WIDTHS[bits]), PageRun(0x8000, 1)], "run")
    assert list(runs) == _GOOD
    assert runs.problem == "run 2 was never set (PAGE stands there): it is left out, and so is what follows it"


@pytest.mark.parametrize("run", [PageRun(1 << 41, 1), PageRun(0x200, 1 << 41), PageRun((1 << 40) - 1, 2)])
def test_a_run_beyond_what_a_processor_can_address_ends_the_list(run: PageRun) -> None:
    """52 bits of physical address are 2^40 pages of 4 KiB (Intel SDM 3A, 4.1.4)."""
    runs = BelievedRuns([_GOOD[0], run, _GOOD[1]], "range")
    assert list(runs) == _GOOD[:1]
    assert "range 1 (" in runs.problem and "is beyond 52 bits" in runs.problem


def test_the_last_page_that_can_be_is_believed() -> None:
    runs = BelievedRuns([PageRun((1 << 40) - 1, 1)], "run")
    assert (list(runs), runs.problem) == ([PageRun((1 << 40) - 1, 1)], "")
