"""Reading and writing a file at an offset, on every system: what POSIX has as pread and pwrite, whole or an error."""

from __future__ import annotations

import os

__all__ = ["read_at", "write_at"]

_HAS_PREAD = hasattr(os, "pread")


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Bytes of the file from `offset` on; fewer than `size` only at its end. Raises OSError."""
    if _HAS_PREAD:
        return os.pread(fd, size, offset)
    # Windows has one position a file. Nobody here reads a file from two threads.
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, size)


def write_at(fd: int, data: bytes, offset: int) -> None:
    """All of `data`, or OSError: a disk that fills up takes a part first, and says so only when asked again."""
    done = 0
    while done < len(data):
        if _HAS_PREAD:
            done += os.pwrite(fd, data[done:], offset + done)
        else:
            os.lseek(fd, offset + done, os.SEEK_SET)
            done += os.write(fd, data[done:])
