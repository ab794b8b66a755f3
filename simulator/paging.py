"""Page tables laid into a MemoryImage: built entry by entry, walked by a reader that shares no code."""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from protocol.address import PAGE_SHIFT, PAGE_SIZE

from .errors import SimulationError
from .image import MemoryImage

__all__ = [
    "GIB",
    "KERNEL_SLOTS",
    "MIB2",
    "PAGE_SIZES",
    "USER_SLOTS",
    "Mapping",
    "PageTables",
    "PteFlag",
    "read_virtual",
    "translate",
]

MIB2 = 1 << 21
GIB = 1 << 30
PAGE_SIZES = (PAGE_SIZE, MIB2, GIB)
"""What one leaf can map."""

KERNEL_SLOTS = range(256, 512)
"""PML4 entries of the kernel half: the same in every process, but for the self map and what is private."""

USER_SLOTS = range(256)
"""PML4 entries of the user half."""

_ENTRY = struct.Struct("<Q")
_TABLE = struct.Struct("<512Q")
_FRAME = 0x000F_FFFF_FFFF_F000
_SHIFTS = (39, 30, 21, 12)
_LEVEL_OF_SIZE = {GIB: 1, MIB2: 2, PAGE_SIZE: 3}


class PteFlag(enum.IntFlag):
    """Bits of an AMD64 page table entry, and Windows' software bits in an entry that is not valid."""

    VALID = 1 << 0
    WRITE = 1 << 1
    USER = 1 << 2
    WRITE_THROUGH = 1 << 3
    CACHE_DISABLED = 1 << 4
    ACCESSED = 1 << 5
    DIRTY = 1 << 6
    LARGE = 1 << 7
    GLOBAL = 1 << 8
    PROTOTYPE = 1 << 10
    TRANSITION = 1 << 11
    NO_EXECUTE = 1 << 63


_TABLE_FLAGS = PteFlag.VALID | PteFlag.WRITE | PteFlag.ACCESSED | PteFlag.DIRTY


@dataclass(frozen=True, slots=True)
class Mapping:
    """A valid leaf: `size` bytes at virtual `address` are physical memory from `physical` on."""

    address: int
    physical: int
    size: int
    entry: int


def _canonical(address: int) -> int:
    return address | 0xFFFF << 48 if address >> 47 & 1 else address


def translate(image: MemoryImage, root: int, address: int) -> int | None:
    """Walk the tables in `image` from a root (a CR3); the physical address, or None where nothing is mapped."""
    if address != _canonical(address & (1 << 48) - 1):
        return None
    entry = root
    for shift in _SHIFTS:
        data = image.read((entry & _FRAME) + (address >> shift & 511) * 8, 8)
        if data is None:
            return None
        entry = int.from_bytes(data, "little")
        if not entry & 1:
            return None
        if shift == 12 or (shift in (30, 21) and entry & 0x80):
            offset = (1 << shift) - 1
            return entry & _FRAME & ~offset | address & offset
    return None


def read_virtual(image: MemoryImage, root: int, address: int, size: int) -> bytes | None:
    """Memory by virtual address; None where not all of it is there."""
    parts: list[bytes] = []
    while size > 0:
        length = min(size, PAGE_SIZE - (address & PAGE_SIZE - 1))
        physical = translate(image, root, address)
        data = None if physical is None else image.read(physical, length)
        if data is None:
            return None
        parts.append(data)
        address, size = address + length, size - length
    return b"".join(parts)


class PageTables:
    """Four levels of tables with one root. Tables are made when an address first needs them."""

    __slots__ = ("_allocate_page", "_image", "_pages", "root", "self_map_slot")

    def __init__(self, image: MemoryImage, allocate_page: Callable[[], int], root: int | None = None) -> None:
        """`allocate_page` gives the frame number of a fresh zeroed page; `root` the PML4's physical address."""
        self._image = image
        self._allocate_page = allocate_page
        self.root = allocate_page() << PAGE_SHIFT if root is None else root
        self.self_map_slot: int | None = None
        self._pages: set[int] = {self.root >> PAGE_SHIFT}

    @property
    def pages(self) -> frozenset[int]:
        """Frames of the tables that this object made, the root among them."""
        return frozenset(self._pages)

    def map_self(self, slot: int) -> int:
        """Let PML4 entry `slot` point to the PML4 itself, as Windows does; returns the base of all PTEs."""
        self.self_map_slot = slot
        self._write_entry(self.root + slot * 8, self.root | _TABLE_FLAGS | PteFlag.NO_EXECUTE)
        return _canonical(slot << 39)

    def map(
        self, address: int, physical: int, size: int = PAGE_SIZE, flags: PteFlag = PteFlag.WRITE | PteFlag.NO_EXECUTE
    ) -> None:
        """One leaf of 4 KiB, 2 MiB or 1 GiB; valid, accessed and dirty are added to `flags`."""
        level = _LEVEL_OF_SIZE.get(size)
        if level is None or address % size or physical % size:
            raise SimulationError(f"cannot map {address:#x} to {physical:#x} by a page of {size:#x} bytes")
        bits = flags | PteFlag.VALID | PteFlag.ACCESSED
        if flags & PteFlag.WRITE:
            bits |= PteFlag.DIRTY
        if level < 3:
            bits |= PteFlag.LARGE
        self.set_entry(address, physical | bits, level)

    def map_run(
        self, address: int, physical: int, pages: int, flags: PteFlag = PteFlag.WRITE | PteFlag.NO_EXECUTE
    ) -> None:
        """`pages` pages of 4 KiB that follow each other on both sides."""
        for page in range(pages):
            self.map(address + page * PAGE_SIZE, physical + page * PAGE_SIZE, PAGE_SIZE, flags)

    def set_entry(self, address: int, value: int, level: int = 3) -> None:
        """Put any value into the entry for `address` at this level (3 = PTE): transition, page file, prototype."""
        table = self.root
        for upper in range(level):
            place = table + (address >> _SHIFTS[upper] & 511) * 8
            entry = self._read_entry(place)
            if not entry & PteFlag.VALID:
                frame = self._allocate_page()
                self._pages.add(frame)
                user = PteFlag.USER if address >> 47 == 0 else PteFlag(0)
                entry = frame << PAGE_SHIFT | _TABLE_FLAGS | user
                self._write_entry(place, entry)
            elif upper and entry & PteFlag.LARGE:
                raise SimulationError(f"{address:#x} is already mapped by a larger page")
            table = entry & _FRAME
        self._write_entry(table + (address >> _SHIFTS[level] & 511) * 8, value)

    def mark_written(self, address: int) -> None:
        """Set the dirty bit of the leaf for `address`, as the processor does at a write, permitted or not."""
        table = self.root
        for level, shift in enumerate(_SHIFTS):
            place = table + (address >> shift & 511) * 8
            entry = self._read_entry(place)
            if level == len(_SHIFTS) - 1 or (level and entry & PteFlag.LARGE):
                self._write_entry(place, entry | PteFlag.DIRTY)
                return
            table = entry & _FRAME

    def share_kernel_half(self, other: PageTables, private: Collection[int] = ()) -> None:
        """Give `other` this kernel half as it is now: the same tables below, but its own self map.

        Slots in `private` stay as they are there.
        """
        own = {self.self_map_slot, other.self_map_slot, *private}
        self.share(other, (slot for slot in KERNEL_SLOTS if slot not in own))

    def share(self, other: PageTables, slots: Iterable[int]) -> None:
        """Let these PML4 entries of `other` lead to the same tables as they do here."""
        for slot in slots:
            other._write_entry(other.root + slot * 8, self._read_entry(self.root + slot * 8))

    def translate(self, address: int, root: int | None = None) -> int | None:
        """The physical address behind a virtual one, or None; walks the tables in the image, from any root."""
        return translate(self._image, self.root if root is None else root, address)

    def mapped(self, root: int | None = None, slots: range = range(512)) -> Iterator[Mapping]:
        """Every valid leaf below these PML4 slots, ascending, without what the self map shows again."""
        root = (self.root if root is None else root) & _FRAME
        top = self._table(root)
        for slot in slots:
            if top[slot] & 1 and top[slot] & _FRAME != root:
                yield from self._leaves(top[slot] & _FRAME, slot << 39, 1)

    def _leaves(self, table: int, base: int, level: int) -> Iterator[Mapping]:
        shift = _SHIFTS[level]
        for index, entry in enumerate(self._table(table)):
            if not entry & 1:
                continue
            address = base | index << shift
            if level == 3 or entry & PteFlag.LARGE:
                yield Mapping(_canonical(address), entry & _FRAME & ~((1 << shift) - 1), 1 << shift, entry)
            else:
                yield from self._leaves(entry & _FRAME, address, level + 1)

    def _table(self, physical: int) -> tuple[int, ...]:
        page = self._image.read(physical, PAGE_SIZE)
        if page is None:
            raise SimulationError(f"the page table at {physical:#x} cannot be read")
        return _TABLE.unpack(page)

    def _read_entry(self, physical: int) -> int:
        data = self._image.read(physical, 8)
        if data is None:
            raise SimulationError(f"the page table entry at {physical:#x} cannot be read")
        return int.from_bytes(data, "little")

    def _write_entry(self, physical: int, value: int) -> None:
        if not self._image.write(physical, _ENTRY.pack(value)):
            raise SimulationError(f"the page table entry at {physical:#x} lies outside memory")
