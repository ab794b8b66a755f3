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

    Raises DumpError when it cannot be written; `size` is what it needs, in bytes.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        _remove(temporary)
        raise DumpError(
            f"{path} cannot be written: {error.strerror or error}; {size} bytes are needed. What was read is kept."
        ) from None
    except BaseException:
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
