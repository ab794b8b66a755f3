"""Addresses by name: the image they lie in, and the nearest symbol where somebody knows one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PureWindowsPath
from typing import Protocol

from kdbridge.target import Module, image_of

from .model import Place

__all__ = ["Names", "SymbolSource", "short_name"]


class SymbolSource(Protocol):
    """Somebody who knows names of an image: its export table, its PDB."""

    @property
    def known_by(self) -> str:
        """ "export" or "pdb"."""
        ...

    async def nearest(self, module: Module, offset: int) -> tuple[str, int] | None:
        """The symbol that begins at or before `offset` from the image's base, and its own offset. None: not known.

        Never raises for what it cannot read: a symbol is a comfort.
        """
        ...


def short_name(module: Module, kernel: int = 0) -> str:
    """What debuggers call an image: its file's name without extension; "nt" for the kernel (its base is `kernel`)."""
    if module.base and module.base == kernel:
        return "nt"
    return PureWindowsPath(module.name).stem or module.name


class Names:
    """The images of one machine, and those who know symbols, the best first."""

    def __init__(self, modules: Sequence[Module], sources: Sequence[SymbolSource] = (), kernel: int = 0) -> None:
        self.modules = tuple(modules)
        self.kernel = kernel
        self._sources = tuple(sources)

    def image_of(self, address: int) -> Module | None:
        """The image that an address lies in."""
        return image_of(self.modules, address)

    async def place(self, address: int) -> Place:
        """Where an address lies, as well as it is known."""
        module = self.image_of(address)
        if module is None:
            return Place(address)
        name, offset = short_name(module, self.kernel), address - module.base
        for source in self._sources:
            found = await source.nearest(module, offset)
            if found is not None:
                return Place(address, name, offset, found[0], offset - found[1], source.known_by)
        return Place(address, name, offset)
