"""One analysis, in the order in which a person wants to know: first why, then everything else."""

from __future__ import annotations

from collections.abc import Sequence

from kdbridge.source import Source
from kdbridge.target import Target

from .model import Analysis
from .names import SymbolSource

__all__ = ["Analyst"]


class Analyst:
    """Analyses one source. Reads each byte once (wrap it in `ReadOnce` before discovery), writes nothing."""

    def __init__(
        self, source: Source, target: Target, *, symbols: Sequence[SymbolSource] = (), console: str = ""
    ) -> None:
        self.source = source
        self.target = target
        self._symbols = tuple(symbols)
        self._console = console

    async def first(self) -> Analysis:
        """The first screen: bug check, crash context, the stopped thread's stack, the suspect. As little as can be."""
        raise NotImplementedError

    async def all(self) -> Analysis:
        """And the rest: all stacks, versions of images, processes, prints. What was found before is kept."""
        raise NotImplementedError
