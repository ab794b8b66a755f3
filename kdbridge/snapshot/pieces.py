"""Pieces of virtual memory beside the pages: of targets of which nobody can tell which frame lies where.

The file: one record after the other, each an address, a size, a checksum, and the bytes. It is only ever added to, so
that a killed writer leaves at most one record that does not check, which is taken for not there.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from kdbridge.errors import SnapshotError
from kdbridge.memory.blocks import BlockMemory
from kdbridge.positioned import read_at, write_at

__all__ = ["VirtualPieces"]

_RECORD = struct.Struct("<QII")
_LARGEST = 1 << 24


class VirtualPieces:
    """What was read by virtual address. The file comes into being with the first piece."""

    def __init__(self, path: Path) -> None:
        """Reads what is there. Raises SnapshotError when it cannot."""
        self._path = path
        self._fd = -1
        self._writable = False
        self._end = 0
        self._index: list[tuple[int, int, int]] = []
        self._memory: BlockMemory | None = None
        try:
            self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            return
        except OSError as error:
            raise SnapshotError(f"{path} cannot be read: {error.strerror or error}") from None
        for address, size, at in self._records():
            self._index.append((address, size, at))
            self._end = at + size

    def _records(self) -> Iterator[tuple[int, int, int]]:
        at = 0
        while len(head := self._read_file(_RECORD.size, at)) == _RECORD.size:
            address, size, check = _RECORD.unpack(head)
            data = self._read_file(size, at + _RECORD.size) if size <= _LARGEST else b""
            if len(data) != size or zlib.crc32(head[:12] + data) != check:
                return
            yield address, size, at + _RECORD.size
            at += _RECORD.size + size

    def _read_file(self, size: int, at: int) -> bytes:
        try:
            return read_at(self._fd, size, at)
        except OSError as error:
            raise SnapshotError(f"{self._path} cannot be read: {error.strerror or error}") from None

    def add(self, address: int, data: bytes) -> None:
        """Keep these bytes. Raises OSError where they cannot be written."""
        if not self._writable:
            self._open_to_write()
        head = struct.pack("<QI", address, len(data))
        record = head + struct.pack("<I", zlib.crc32(head + data)) + data
        write_at(self._fd, record, self._end)
        self._index.append((address, len(data), self._end + _RECORD.size))
        self._end += len(record)
        self._memory = None

    def _open_to_write(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        self._writable = True

    def sync(self) -> None:
        """Make what was added durable. Raises OSError."""
        if self._writable:
            os.fsync(self._fd)

    @property
    def memory(self) -> BlockMemory:
        """All pieces, as virtual memory."""
        if self._memory is None:
            self._memory = BlockMemory((address, size, self._reader(at)) for address, size, at in self._index)
        return self._memory

    def _reader(self, at: int) -> Callable[[int, int], bytes]:
        return lambda offset, size: self._read_file(size, at + offset)

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return sum(size for _, size, _ in self._index)

    def __len__(self) -> int:
        return len(self._index)

    def close(self) -> None:
        """Give the file back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
