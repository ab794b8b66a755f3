"""What a rendering tells of the file that it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from protocol.dumpfile.header import DumpType

__all__ = ["Rendered"]


@dataclass(frozen=True, slots=True)
class Rendered:
    """The file that was written."""

    path: Path
    dump_type: DumpType
    size: int
    pages: int
    """Pages of the target's memory in it."""
    unreadable: int
    """Pages that the target refused: marked in a complete dump, left out of a bitmap dump."""
    missing: int
    """Pages that belong into this kind and were never read."""
    overlaid: int
    """Pages over which registers or a decoded KDBG were laid."""
    shortcomings: tuple[str, ...]
    pieces: int = 0
    """In a small dump: pieces of memory by virtual address, in the place of pages."""

    @property
    def amount(self) -> str:
        """How much memory is in it, in words."""
        return f"{self.pieces} pieces" if self.dump_type is DumpType.TRIAGE else f"{self.pages} pages"
