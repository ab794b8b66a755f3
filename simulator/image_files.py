"""The files that a machine's images were loaded from, as they lie on its disk."""

from __future__ import annotations

import struct
from pathlib import Path

from protocol.address import PAGE_SIZE

from .kernel import SimulatedKernel

__all__ = ["image_file", "write_images"]

_STAMP_AT, _CHECK_SUM_AT = 8, 24 + 64
"""In the PE header: TimeDateStamp and CheckSum."""

_HOUR = 3600


def image_file(kernel: SimulatedKernel, name: str) -> bytes:
    """The file of a module, as it would lie on the machine's disk. A mismatched one is of another build."""
    plan = kernel.image_files.plans[name]
    file = bytearray(plan.as_file())
    if name in kernel.image_files.mismatched:
        header = struct.unpack_from("<I", file, 0x3C)[0]
        struct.pack_into("<I", file, header + _STAMP_AT, plan.spec.time_date_stamp + 77 * _HOUR)
        struct.pack_into("<I", file, header + _CHECK_SUM_AT, plan.spec.check_sum ^ 0x5555)
        text = plan.sections[0]
        for at in range(text.raw, text.raw + text.raw_size, PAGE_SIZE // 4):
            file[at] ^= 0x11
    return bytes(file)


def write_images(kernel: SimulatedKernel, folder: Path) -> dict[str, Path]:
    """Write the file of every module into `folder` under its file's name; returns where, by module."""
    folder.mkdir(parents=True, exist_ok=True)
    places: dict[str, Path] = {}
    for module in kernel.modules:
        places[module.name] = folder / module.file_name
        places[module.name].write_bytes(image_file(kernel, module.name))
    return places
