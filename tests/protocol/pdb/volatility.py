"""volatility3's reader of symbol files, with its file given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from volatility3.framework import contexts
from volatility3.framework.symbols.windows.pdbconv import PdbReader

__all__ = ["reader_of"]


@contextmanager
def reader_of(path: Path) -> Iterator[PdbReader]:
    """A reader, while the file is open."""
    reader = PdbReader(contexts.Context(), path.resolve().as_uri())
    try:
        yield reader
    finally:
        for layer in reader.context.layers.values():
            layer.destroy()
