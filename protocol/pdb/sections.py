"""From a section and an offset in it, as symbols give places, to an offset from the image's base (RVA)."""

from __future__ import annotations

import bisect
import struct
import sys
from array import array

from protocol.errors import PdbFormatError

from .dbi import Dbi
from .msf import Msf

__all__ = ["Sections", "read_sections"]

_HEADER = struct.Struct("<8sIIII12xI")  # IMAGE_SECTION_HEADER: Name, VirtualSize, VirtualAddress, SizeOfRawData, …
_MOST_SECTIONS = 0xFFFF
_LARGEST_OMAP = 1 << 26


class Sections:
    """An image's sections, and what was moved about in it after it was linked."""

    __slots__ = ("_linked", "_omap_from", "_omap_to", "_starts")

    def __init__(
        self, linked: list[tuple[int, int]], present: list[tuple[int, int]], omap: tuple[array[int], array[int]]
    ) -> None:
        """`linked`: address and size of each section that symbols speak of; `present`: of those the image has now."""
        self._linked = linked
        self._starts = sorted(address for address, _ in present)
        self._omap_from, self._omap_to = omap

    def rva(self, section: int, offset: int) -> int | None:
        """Where a place is in the image now. None: in no section (a constant), or no more in the image."""
        if not 1 <= section <= len(self._linked):
            return None
        address, size = self._linked[section - 1]
        if offset > size:
            return None
        rva = address + offset
        if self._omap_from:
            index = bisect.bisect_right(self._omap_from, rva) - 1
            if index < 0 or not self._omap_to[index]:
                return None
            rva = self._omap_to[index] + rva - self._omap_from[index]
        return rva if rva < 1 << 32 else None

    def section_start(self, rva: int) -> int:
        """Where the section begins that a place lies in; 0 for the image's headers."""
        index = bisect.bisect_right(self._starts, rva) - 1
        return self._starts[index] if index >= 0 else 0


def read_sections(msf: Msf, dbi: Dbi) -> Sections:
    """Raises PdbFormatError where the file does not say what sections the image has."""
    if dbi.section_headers is None:
        raise PdbFormatError("section headers", "there are none in this file, so that no symbol has a place")
    present = _headers(msf, dbi.section_headers)
    if dbi.original_section_headers is None or dbi.omap_from_source is None:
        return Sections(present, present, (array("I"), array("I")))
    return Sections(_headers(msf, dbi.original_section_headers), present, _omap(msf, dbi.omap_from_source))


def _headers(msf: Msf, number: int) -> list[tuple[int, int]]:
    stream = msf.stream(number, "section headers")
    count = stream.size // _HEADER.size
    if not 1 <= count <= _MOST_SECTIONS:
        raise PdbFormatError(stream.name, f"{count} sections are not believable")
    data = stream.read(0, count * _HEADER.size)
    return [(address, max(size, raw)) for _, size, address, raw, _, _ in _HEADER.iter_unpack(data)]


def _omap(msf: Msf, number: int) -> tuple[array[int], array[int]]:
    """Pairs of addresses: from the first of each on, the image has what was linked there at the second."""
    stream = msf.stream(number, "OMAP")
    if stream.size > _LARGEST_OMAP:
        raise PdbFormatError(stream.name, f"{stream.size:#x} bytes are not believable")
    words = array("I", stream.read(0, stream.size & ~7))
    if sys.byteorder == "big":
        words.byteswap()
    return words[::2], words[1::2]
