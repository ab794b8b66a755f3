"""A dump file is there as a whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from kdbridge.errors import DumpError

__all__ = ["whole_file"]


@contextmanager
def whole_file(path: Path, size: int) -> Iterator[BinaryIO]:
    """A file to write to: under a temporary name, renamed when the block ends, gone when it fails.

    Raises DumpError when it cannot be written, or has not the `size` in bytes that it was to have: then whatever gave
    its bytes gave too few or too many, and they lie where no reader looks for them.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            _check(path, os.fstat(file.fileno()).st_size, size)
        temporary.replace(path)
    except OSError as error:
        _remove(temporary)
        raise DumpError(
            f"{path} cannot be written: {error.strerror or error}; {size} bytes are needed. What was read is kept."
        ) from None
    except BaseException:
        _remove(temporary)
        raise


def _check(path: Path, written: int, size: int) -> None:
    if written != size:
        raise DumpError(f"{path} was not written: {written} bytes came where {size} belong")


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
