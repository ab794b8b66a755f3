"""The container of a PDB, MSF 7.00: numbered streams of bytes, cut into blocks that lie anywhere in the file."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable

import construct as cs

from protocol.errors import PdbFormatError
from protocol.structure import StructureLayout

__all__ = ["SUPERBLOCK", "Msf", "ReadFile", "Stream"]

ReadFile = Callable[[int, int], bytes]
"""Bytes of the file from an offset on: (offset, size). Fewer only at its end."""

SUPERBLOCK = StructureLayout(
    "MSF superblock",
    cs.Struct(
        "magic" / cs.Bytes(32),
        "block_size" / cs.Int32ul,
        "free_block_map_block" / cs.Int32ul,
        "num_blocks" / cs.Int32ul,
        "num_directory_bytes" / cs.Int32ul,
        "unknown" / cs.Int32ul,
        "block_map_addr" / cs.Int32ul,
    ),
    {"block_size": 0x20, "num_blocks": 0x28, "num_directory_bytes": 0x2C, "block_map_addr": 0x34},
    0x38,
)

_MAGIC = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0"
_OLD_MAGIC, _COMPRESSED_MAGIC = b"Microsoft C/C++ program database 2.00", b"Microsoft MSFZ Container"
_BLOCK_SIZES = tuple(1 << bits for bits in range(9, 17))
_MOST_DIRECTORY_BYTES = 1 << 24
"""A directory holds four bytes a block: this is 16 GiB of blocks of 4 KiB."""
_MOST_STREAMS = 1 << 16
"""Streams are named by 16-bit numbers."""
_NIL = 0xFFFF_FFFF


class Stream:
    """One stream: bytes by offset, read from the file when they are asked for."""

    __slots__ = ("_block_size", "_blocks", "_first", "_read", "name", "size")

    def __init__(self, name: str, size: int, block_size: int, blocks: array[int], first: int, read: ReadFile) -> None:
        """Its blocks are `blocks` from index `first` on."""
        self.name = name
        self.size = size
        self._block_size = block_size
        self._blocks = blocks
        self._first = first
        self._read = read

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the stream, fewer only at its end. Raises PdbFormatError where the file ends before."""
        end = min(offset + size, self.size)
        pieces = []
        while offset < end:
            index, skip = divmod(offset, self._block_size)
            block, count = self._blocks[self._first + index], 1
            # Blocks that follow each other are one read.
            while index + count < -(-end // self._block_size) and (
                self._blocks[self._first + index + count] == block + count
            ):
                count += 1
            length = min(count * self._block_size - skip, end - offset)
            piece = self._read(block * self._block_size + skip, length)
            if len(piece) != length:
                raise PdbFormatError(self.name, f"the file ends inside block {block + len(piece) // self._block_size}")
            pieces.append(piece)
            offset += length
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Msf:
    """The streams of a file, from its superblock and directory."""

    def __init__(self, read: ReadFile, size: int) -> None:
        """`size` is the file's. Raises PdbFormatError for what is no MSF 7.00 file."""
        start = read(0, SUPERBLOCK.size)
        if not start.startswith(_MAGIC):
            raise PdbFormatError("superblock", _what_it_is(start))
        if len(start) < SUPERBLOCK.size:
            raise PdbFormatError("superblock", "the file ends inside it")
        fields = SUPERBLOCK.decode(start)
        self._read = read
        self._block_size = fields["block_size"]
        self._block_count = min(fields["num_blocks"], size // max(self._block_size, 1))
        if self._block_size not in _BLOCK_SIZES:
            raise PdbFormatError("superblock", f"blocks of {self._block_size} bytes are not believable")
        length = fields["num_directory_bytes"]
        if not 4 <= length <= min(_MOST_DIRECTORY_BYTES, size):
            raise PdbFormatError("superblock", f"a directory of {length:#x} bytes is not believable")
        self._take_directory(self._directory(length))

    def __len__(self) -> int:
        return len(self._sizes)

    def stream(self, number: int, name: str) -> Stream:
        """A stream by its number; `name` is for messages. Raises PdbFormatError where there is none."""
        size = self._sizes[number] if 0 <= number < len(self._sizes) else _NIL
        if size == _NIL:
            raise PdbFormatError(name, f"there is no stream {number} in this file")
        return Stream(name, size, self._block_size, self._words, self._firsts[number], self._read)

    def _blocks_of(self, size: int) -> int:
        return -(-size // self._block_size)

    def _directory(self, length: int) -> bytes:
        """The directory's bytes: the superblock tells the blocks that tell its blocks."""
        listed = 4 * self._blocks_of(length)
        # The superblock ends in the numbers of all the blocks of that list, of which documents show the first.
        tellers = self._read(SUPERBLOCK.size - 4, 4 * self._blocks_of(listed))
        if 4 * self._blocks_of(listed) > self._block_size - SUPERBLOCK.size + 4:
            raise PdbFormatError("superblock", f"a directory of {length:#x} bytes has no room in it")
        list_ = Stream("list of directory blocks", listed, self._block_size, self._checked(tellers), 0, self._read)
        blocks = self._checked(list_.read(0, listed))
        return Stream("directory", length, self._block_size, blocks, 0, self._read).read(0, length)

    def _checked(self, data: bytes) -> array[int]:
        blocks = _words(data)
        for block in blocks:
            if block >= self._block_count:
                raise PdbFormatError("superblock", f"the directory lies in block {block}, which is not in the file")
        return blocks

    def _take_directory(self, data: bytes) -> None:
        words = _words(data)
        count = words[0]
        if count > min(_MOST_STREAMS, len(words) - 1):
            raise PdbFormatError("directory", f"{count} streams are not believable")
        self._words = words
        self._sizes = words[1 : 1 + count]
        self._firsts = array("I")
        at = 1 + count
        for size in self._sizes:
            self._firsts.append(at)
            at += self._blocks_of(0 if size == _NIL else size)
            if at > len(words):
                raise PdbFormatError("directory", "it ends before the blocks of all its streams were told")
        # No block belongs to two streams, so that reading them all is reading the file once at most.
        if at - 1 - count > self._block_count:
            raise PdbFormatError("directory", "its streams are larger than the file")
        if at > 1 + count and max(words[1 + count : at]) >= self._block_count:
            raise PdbFormatError("directory", "a block is named that is not in the file")


def _what_it_is(start: bytes) -> str:
    if start.startswith(_COMPRESSED_MAGIC[: len(start)]) and len(start) > 24:
        return "this is a compressed symbol file (MSFZ), which is not read"
    if start.startswith(_OLD_MAGIC[: len(start)]) and len(start) > 36:
        return "this is a symbol file of before 2002 (PDB 2.00), which is not read"
    return f"a symbol file begins with {_MAGIC[:24].decode()!r}, this one does not"


def _words(data: bytes) -> array[int]:
    """Whole 32-bit little-endian words; a rest is left out."""
    words = array("I", data[: len(data) & ~3])
    assert words.itemsize == 4
    if sys.byteorder == "big":
        words.byteswap()
    return words
