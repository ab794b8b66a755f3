"""What every outside reader of dump files is asked for, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

__all__ = ["Oracle", "OracleError"]


class OracleError(Exception):
    """The reader refused the file, crashed, or took too long."""


class Oracle(Protocol):
    """An open dump."""

    def read_page(self, pfn: int) -> bytes | None:
        """The 4,096 bytes of a page frame; None where the reader finds none."""
        ...

    def pages(self) -> Iterator[int]:
        """The page frames that the reader finds in the file, ascending."""
        ...
