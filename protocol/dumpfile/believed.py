"""Lists of runs that a file claims: they are believed up to the first run that cannot be.

In a complete dump the place of a page follows from the sizes of all runs before its own. So where one run is damaged,
those before it lie where they should, and where those behind it lie nobody can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from protocol.address import PageRun

from .index import HIGHEST_PAGE

__all__ = ["BelievedRuns", "left_out"]

_UNSET = (0x45474150, 0x4547415045474150)
"""PAGE, in 32 and in 64 bits."""


class BelievedRuns:
    """The runs, once, up to the first that cannot be; `problem` says then which that was, and why."""

    def __init__(self, runs: Iterable[PageRun], what: str) -> None:
        """`what` one of them is called."""
        self._runs = runs
        self._what = what
        self.problem = ""

    def __iter__(self) -> Iterator[PageRun]:
        for number, run in enumerate(self._runs):
            if why := _impossible(run):
                self.problem = left_out(f"{self._what} {number}", why)
                return
            yield run


def left_out(what: str, why: str) -> str:
    """What to say of the first one in a list that is not believed."""
    return f"{what} {why}: it is left out, and so is what follows it"


def _impossible(run: PageRun) -> str:
    if run.base_page == run.page_count and run.base_page in _UNSET:
        return "was never set (PAGE stands there)"
    if run.end_page > HIGHEST_PAGE:
        return f"({run.page_count:#x} pages from {run.base_page:#x} on) is beyond 52 bits"
    return ""
