"""Image files at hand: what of a module's memory must be what its file says, if nobody wrote to it since.

A file is a module's if its name, timestamp and size are; it is believed only after a sample of pages that were read
from the target was the same, byte for byte. Left out is what the loader or the kernel writes to: the header, import
addresses, the pointers of control flow guard.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pefile

from kdbridge.errors import FileError
from kdbridge.target import Module
from protocol.address import PAGE_SIZE

__all__ = ["LocalImage", "LocalImages"]

_WRITABLE, _DISCARDABLE = 0x8000_0000, 0x0200_0000
_LOAD_CONFIG, _IMPORT_ADDRESSES, _DELAYED_IMPORTS = 10, 12, 13
_GUARD_POINTERS = (0x58, 0x70, 0x78)
"""In a PE32+ load configuration: the cookie, the check's and the dispatch's pointer."""
_LARGEST_FILE = 1 << 28


@dataclass(frozen=True, slots=True)
class LocalImage:
    """A module's file: the pages, by their offset in the image, that memory must have as they are here."""

    path: Path
    pages: dict[int, bytes]


class LocalImages:
    """A folder of image files, looked through once, by name."""

    def __init__(self, folder: Path) -> None:
        """Raises FileError when it is no folder that can be read."""
        try:
            self._files = {path.name.lower(): path for path in folder.iterdir() if path.is_file()}
        except OSError as error:
            raise FileError(f"{folder} cannot be read: {error.strerror or error}") from None

    def of(self, module: Module) -> tuple[LocalImage | None, str]:
        """The file of this module, relocated to where it lies; or None, and why not."""
        path = self._files.get(module.path.replace("/", "\\").rpartition("\\")[2].lower() or module.name.lower())
        if path is None:
            return None, "no file of this name"
        try:
            if path.stat().st_size > _LARGEST_FILE:
                return None, "too large for an image"
            with pefile.PE(str(path), fast_load=True) as image:
                stamp, size = image.FILE_HEADER.TimeDateStamp, image.OPTIONAL_HEADER.SizeOfImage
                if (stamp, size) != (module.time_date_stamp, module.size):
                    return None, f"its file is of another build (timestamp {stamp:08x}, size {size:#x})"
                return LocalImage(path, dict(_pages(image, module.base))), ""
        except (pefile.PEFormatError, OSError, struct.error, AttributeError, IndexError, ValueError) as error:
            return None, f"{path.name} is no image that can be used ({type(error).__name__})"


def _pages(image: pefile.PE, base: int) -> Iterator[tuple[int, bytes]]:
    """Whole pages of sections that are neither written to nor thrown away after loading."""
    touched = set(_touched(image))
    image.parse_data_directories([pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_BASERELOC"]])
    memory = image.get_memory_mapped_image(ImageBase=base)
    for section in image.sections:
        if section.Characteristics & (_WRITABLE | _DISCARDABLE):
            continue
        start, end = section.VirtualAddress, section.VirtualAddress + section.Misc_VirtualSize
        for rva in range(start, end, PAGE_SIZE):
            if rva // PAGE_SIZE not in touched and not rva % PAGE_SIZE:
                yield rva, bytes(memory[rva : rva + PAGE_SIZE]).ljust(PAGE_SIZE, b"\0")


def _touched(image: pefile.PE) -> Iterator[int]:
    """Numbers of pages that the loader or the kernel writes to in spite of their section."""
    directories = image.OPTIONAL_HEADER.DATA_DIRECTORY
    yield 0
    for number in (_IMPORT_ADDRESSES, _DELAYED_IMPORTS):
        if number < len(directories) and directories[number].Size:
            first = directories[number].VirtualAddress
            yield from range(first // PAGE_SIZE, (first + directories[number].Size - 1) // PAGE_SIZE + 1)
    config = directories[_LOAD_CONFIG].VirtualAddress if len(directories) > _LOAD_CONFIG else 0
    for offset in _GUARD_POINTERS if config else ():
        pointer = image.get_qword_at_rva(config + offset)
        if pointer:
            yield (pointer - image.OPTIONAL_HEADER.ImageBase) // PAGE_SIZE
