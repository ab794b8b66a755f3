"""The version resource of an image in memory: who made it, what it is, which version."""

from __future__ import annotations

from kdbridge.errors import MemoryFault
from kdbridge.source import Source
from kdbridge.target import Module
from protocol.errors import LayoutError
from protocol.pe.headers import Directory, DirectoryIndex, PeHeaders
from protocol.pe.resources import (
    DATA_ENTRY_SIZE,
    DIRECTORY_SIZE,
    RT_VERSION,
    parse_data_entry,
    parse_resource_directory,
    resource_directory_size,
)
from protocol.pe.version import LARGEST_VERSION_INFO, VersionInfo, parse_version_info

from .image_memory import read_image

__all__ = ["read_version"]

_TREE = 0x100
"""Linkers put all directories first: of most images the whole tree lies in so much."""
_LOOKS = (0x180, 0x300)
"""Of the version so much is read at first: company and description stand at its beginning."""
_WANTED = ("CompanyName", "FileDescription")
_LEVELS = 3
"""Type, name, language."""


async def read_version(
    source: Source, image: Module, headers: PeHeaders
) -> tuple[VersionInfo | None, MemoryFault | None]:
    """The first one of the image, and what cut it short, if anything did: then what it seems to lack may be there.

    None: it has none. Raises MemoryFault where nothing of it can be read, and LayoutError.
    """
    directory = headers.directory(DirectoryIndex.RESOURCE)
    if directory is None:
        return None, None
    tree = _Tree(source, image, directory)
    at = 0
    for level in range(_LEVELS):
        entries = parse_resource_directory(await tree.directory(at), image.base + directory.rva + at)
        entry = next((one for one in entries if level or one.id == RT_VERSION), None)
        if entry is None:
            return None, None
        at = entry.offset
        if not entry.is_directory:
            break
    else:
        raise LayoutError("resource directory", "it has more than three levels", image.base + directory.rva)
    rva, size = parse_data_entry(await tree.read(at, DATA_ENTRY_SIZE), image.base + directory.rva + at)
    return await _info(source, image, rva, min(size, LARGEST_VERSION_INFO))


async def _info(source: Source, image: Module, rva: int, size: int) -> tuple[VersionInfo, MemoryFault | None]:
    info: VersionInfo | None = None
    for look in (*(one for one in _LOOKS if one < size), size):
        try:
            data = await read_image(source, image, rva, look)
        except MemoryFault as fault:
            if info is None:
                raise
            return info, fault  # the rest lies in another page
        info = parse_version_info(data, image.base + rva)
        if all(name in info.strings for name in _WANTED):
            break
    assert info is not None  # noqa: S101
    return info, None


class _Tree:
    """The tree's bytes: a first piece, and what lies behind it piece by piece."""

    def __init__(self, source: Source, image: Module, directory: Directory) -> None:
        self._source = source
        self._image = image
        self._directory = directory
        self._head: bytes | None = None

    async def directory(self, at: int) -> bytes:
        size = resource_directory_size(await self.read(at, DIRECTORY_SIZE), self._image.base + self._directory.rva + at)
        return await self.read(at, size)

    async def read(self, at: int, size: int) -> bytes:
        """Bytes at an offset from the tree's beginning, all of them inside of the directory."""
        if at + size > self._directory.size:
            problem = f"{size:#x} bytes at {at:#x} lie behind its end"
            raise LayoutError("resource directory", problem, self._image.base + self._directory.rva)
        if self._head is None:
            first = min(_TREE, self._directory.size)
            self._head = await read_image(self._source, self._image, self._directory.rva, first)
        if at + size <= len(self._head):
            return self._head[at : at + size]
        return await read_image(self._source, self._image, self._directory.rva + at, size)
