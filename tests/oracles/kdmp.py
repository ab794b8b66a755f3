"""0vercl0k's kdmp-parser: 64-bit dumps of types 1, 5, 6, 8, 9 and A, of any size.

It maps the file and does not look at its end: reading a page that was cut off kills the process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kdmp_parser

from tests.oracles.oracle import OracleError

__all__ = ["Kdmp", "open_oracle"]


@dataclass(frozen=True, slots=True)
class Kdmp:
    """An Oracle. `parser` has header, context and virtual memory too."""

    parser: Any

    def read_page(self, pfn: int) -> bytes | None:
        page = self.parser.read_physical_page(pfn << 12)
        return None if page is None else bytes(page)

    def pages(self) -> Iterator[int]:
        return iter(sorted(address >> 12 for address in self.parser.pages))


@contextlib.contextmanager
def open_oracle(path: Path) -> Iterator[Kdmp]:
    """Open a dump; why it is refused stands on stdout, which the parser writes itself."""
    try:
        parser = kdmp_parser.KernelDumpParser(path)
    except RuntimeError as error:
        raise OracleError(str(error)) from error
    yield Kdmp(parser)
