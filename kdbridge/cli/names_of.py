"""Who knows names of a machine's images: the symbol files that the user has, or lets us fetch."""

from __future__ import annotations

from kdbridge.analysis.images import image_identity
from kdbridge.analysis.names import SymbolSource
from kdbridge.symbols import pdb_symbols
from kdbridge.target import Module

from .analysing import Opened, SymbolWish
from .run import say

__all__ = ["symbols_of"]


def symbols_of(opened: Opened, wish: SymbolWish) -> tuple[SymbolSource, ...]:
    """Symbol files by the path that was given; nobody where there is none."""
    if not wish.path:
        return ()

    async def identity(module: Module) -> tuple[str, str, int] | None:
        return await image_identity(opened.reading, module)

    return (pdb_symbols(wish.path, identity, download=wish.download, report=say),)
