"""Real images (PE) that are here anyway, as the loader lays them into memory, and what pefile says of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pefile
import pip
import pytest

from simulator.image_files import image_file
from simulator.kernel import KernelOptions, build_kernel
from tests.referee import engine_home

__all__ = ["RealImage", "functions", "images", "names_of_exports", "version_strings"]

_LAUNCHERS = "_vendor/distlib/t*.exe"
_ENGINE = "engine/dbghelp.dll"
"""Microsoft's own, where the debugger engine is installed."""
_PARSED = [
    pefile.DIRECTORY_ENTRY[f"IMAGE_DIRECTORY_ENTRY_{name}"] for name in ("EXPORT", "RESOURCE", "DEBUG", "EXCEPTION")
]


@dataclass(frozen=True)
class RealImage:
    """An image by name: its file as pefile sees it, and its bytes in memory."""

    name: str
    file: pefile.PE
    memory: bytes


def _image(name: str, data: bytes) -> RealImage:
    file = pefile.PE(data=data, fast_load=True)
    file.parse_data_directories(_PARSED)
    mapped = file.get_memory_mapped_image()
    return RealImage(name, file, bytes(mapped[: file.OPTIONAL_HEADER.SizeOfImage]))


@cache
def images() -> tuple[RealImage, ...]:
    """pip's launchers (of x86, x64 and ARM64), one of Microsoft's, two of the simulator's. Skips where none is real."""
    paths = sorted(Path(pip.__file__).parent.glob(_LAUNCHERS))
    if not paths:
        pytest.skip("pip has no launchers here: there is no real image to read")
    paths += [path for path in [engine_home() / _ENGINE] if path.exists()]
    kernel = build_kernel(KernelOptions(memory_size=16 << 20, content_size=0))
    made = [_image(f"simulated {name}", image_file(kernel, name)) for name in ("nt", "mydrv")]
    return (*(_image(path.name, path.read_bytes()) for path in paths), *made)


def functions(file: pefile.PE) -> list[tuple[int, int, bool]]:
    """(begin, end, whether it is only a part of another's) of each row of .pdata, ascending. Of x64 images alone."""
    if file.FILE_HEADER.Machine != pefile.MACHINE_TYPE["IMAGE_FILE_MACHINE_AMD64"]:
        return []
    rows = getattr(file, "DIRECTORY_ENTRY_EXCEPTION", [])
    return [
        (one.struct.BeginAddress, one.struct.EndAddress, one.unwindinfo is None or bool(one.unwindinfo.Flags & 4))
        for one in rows
    ]


def version_strings(file: pefile.PE) -> dict[str, str]:
    """Those of the first table."""
    for info in getattr(file, "FileInfo", [[]])[0]:
        if info.Key == b"StringFileInfo":
            for table in info.StringTable:
                return {key.decode(): value.decode().strip() for key, value in table.entries.items()}
    return {}


def names_of_exports(file: pefile.PE) -> dict[int, set[str]]:
    """Names by RVA, without forwarders; what has no name is called by its ordinal."""
    found: dict[int, set[str]] = {}
    for symbol in file.DIRECTORY_ENTRY_EXPORT.symbols if hasattr(file, "DIRECTORY_ENTRY_EXPORT") else ():
        if symbol.address and not symbol.forwarder:
            name = symbol.name.decode() if symbol.name else f"Ordinal{symbol.ordinal}"
            found.setdefault(symbol.address, set()).add(name)
    return found
