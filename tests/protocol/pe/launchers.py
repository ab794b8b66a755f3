"""Real images that lie wherever pip does: its launchers for Windows, of three architectures, as pefile reads them.

pefile is the witness: it lays a file out as the loader would, and reads the same tables.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pefile
import pytest

__all__ = ["LAUNCHERS", "laid_out", "read_by_pefile"]

LAUNCHERS = ("t32.exe", "t64.exe", "w64.exe", "t64-arm.exe")


def _path(name: str) -> Path:
    try:
        from pip._vendor import distlib
    except ImportError:
        pytest.skip("pip is not here, and its launchers are not")
    path = Path(str(distlib.__file__)).parent / name
    if not path.exists():
        pytest.skip(f"this pip has no {name}")
    return path


@cache
def read_by_pefile(name: str) -> pefile.PE:
    """The file, all of its directories read."""
    return pefile.PE(str(_path(name)))


@cache
def laid_out(name: str) -> bytes:
    """Its bytes as in memory, to the end that its header says."""
    image = pefile.PE(str(_path(name)), fast_load=True)
    size = image.OPTIONAL_HEADER.SizeOfImage
    return bytes(image.get_memory_mapped_image()).ljust(size, b"\0")[:size]
