"""Addresses by name: the image they lie in, and the nearest symbol where somebody knows one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import PureWindowsPath
from typing import Protocol, runtime_checkable

from kdbridge.target import NAME_NOT_READ, Module, image_of

from .model import Place

__all__ = ["Names", "StructureSource", "SymbolSource", "short_name"]


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


@runtime_checkable
class StructureSource(Protocol):
    """What a SymbolSource may know beside names: where fields of structures lie."""

    async def structure_offset(self, module: Module, type_name: str, field: str) -> int | None:
        """Where a field lies in a structure, in bytes. None: not known. Never raises for what it cannot read."""
        ...


def short_name(module: Module, kernel: int = 0) -> str:
    """What debuggers call an image: its file's name without extension; "nt" for the kernel (its base is `kernel`)."""
    if module.base and module.base == kernel:
        return "nt"
    return PureWindowsPath(module.name).stem or module.name


class Names:
    """The images of one machine, and those who know symbols, the best first.

    `reader` reads the name of an image of which a first look left it out.
    """

    def __init__(
        self,
        modules: Sequence[Module],
        sources: Sequence[SymbolSource] = (),
        kernel: int = 0,
        reader: Callable[[Module], Awaitable[Module]] | None = None,
    ) -> None:
        self.modules = tuple(modules)
        self.kernel = kernel
        self._sources = tuple(sources)
        self._reader = reader
        self._read: dict[int, Module] = {}
        """By the addresses of their list entries: images whose names were read."""

    def image_of(self, address: int) -> Module | None:
        """The image that an address lies in; ask `named` before its name is shown."""
        return image_of(self.modules, address)

    async def named(self, module: Module) -> Module:
        """The image with its name, which is read now where a first look left it out."""
        if self._reader is not None and module.name == NAME_NOT_READ and module.entry_address not in self._read:
            self._read[module.entry_address] = await self._reader(module)
        return self.as_known(module)

    def as_known(self, module: Module) -> Module:
        """The image as well as it is known by now."""
        return self._read.get(module.entry_address, module)

    async def place(self, address: int) -> Place:
        """Where an address lies, as well as it is known."""
        module = self.image_of(address)
        if module is None:
            return Place(address)
        module = await self.named(module)
        name, offset = short_name(module, self.kernel), address - module.base
        for source in self._sources:
            found = await source.nearest(module, offset)
            if found is not None:
                return Place(address, name, offset, found[0], offset - found[1], source.known_by)
        return Place(address, name, offset)

    async def structure_offset(self, structure: str, field: str) -> int | None:
        """Where a field lies in a structure of the kernel, by who knows it; None: nobody does.

        It is checked against the memory before it is used: symbols of another kernel must not make wrong statements.
        """
        kernel = next((one for one in self.modules if one.base and one.base == self.kernel), None)
        if kernel is None:
            return None
        for source in self._sources:
            if isinstance(source, StructureSource):
                found = await source.structure_offset(kernel, structure, field)
                if found is not None:
                    return found
        return None
