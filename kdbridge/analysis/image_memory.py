"""An image in memory, read by RVA and as little as can be: its headers, its symbol file's name, its version."""

from __future__ import annotations

from kdbridge.errors import MemoryFault, TargetRefusedError
from kdbridge.source import Source
from kdbridge.target import Module
from protocol.address import VirtualAddress
from protocol.errors import LayoutError
from protocol.pe.debug import MOST_DEBUG_ENTRIES, CodeView, code_view_entry, parse_code_view
from protocol.pe.headers import (
    DOS_HEADER_SIZE,
    DirectoryIndex,
    PeHeaders,
    parse_pe_headers,
    pe_header_offset,
    pe_headers_size,
)

__all__ = ["read_code_view", "read_headers", "read_image"]

_HEADERS = 0x200
"""Of nearly every image the headers lie in so much, without those of sections."""
_FILE_HEADER = 24
_WITH_DIRECTORIES = _FILE_HEADER + 112 + 8 * (DirectoryIndex.DEBUG + 1)
_DEBUG_ENTRY = 28


async def read_image(source: Source, image: Module, rva: int, size: int) -> bytes:
    """Bytes of an image. LayoutError: they are no part of it; MemoryFault: they cannot be read."""
    if not 0 <= rva <= rva + size <= image.size or image.base + image.size > 1 << 64:
        raise LayoutError("image", f"{size:#x} bytes at RVA {rva:#x} lie outside it", image.base)
    try:
        return await source.virtual.read(VirtualAddress(image.base + rva), size)
    except TargetRefusedError as refused:
        raise MemoryFault(str(refused), address=image.base + rva, size=size, done=0, virtual=True) from None


async def read_headers(source: Source, image: Module, *, sections: bool = False) -> PeHeaders:
    """Its headers; those of its sections may be left out where they are not asked for. MemoryFault and LayoutError."""
    try:
        head = await read_image(source, image, 0, min(_HEADERS, image.size))
    except MemoryFault:
        head = await read_image(source, image, 0, DOS_HEADER_SIZE)
    at = pe_header_offset(head, image.base)
    data = head[at:]
    if len(data) < _FILE_HEADER:
        data = await read_image(source, image, at, _FILE_HEADER)
    size = pe_headers_size(data, image.base + at)
    wanted = size if sections else min(size, _WITH_DIRECTORIES)
    if len(data) < wanted:
        data = await read_image(source, image, at, wanted)
    return parse_pe_headers(data, image.base + at)


async def read_code_view(source: Source, image: Module, headers: PeHeaders) -> CodeView | None:
    """What names its symbol file; None where the image names none. Raises MemoryFault and LayoutError."""
    directory = headers.directory(DirectoryIndex.DEBUG)
    if directory is None:
        return None
    size = min(directory.size, MOST_DEBUG_ENTRIES * _DEBUG_ENTRY)
    entry = code_view_entry(await read_image(source, image, directory.rva, size))
    if entry is None:
        return None
    return parse_code_view(await read_image(source, image, entry.rva, entry.size), image.base + entry.rva)
