"""One file an architecture: registers, control space and paging geometry. Found by machine type.

A new architecture is a new file here that makes one `Architecture`, and one line in `ARCHITECTURES`.
"""

from __future__ import annotations

from .amd64 import AMD64
from .description import Architecture, ControlSpace, MachineType, PagingGeometry

__all__ = [
    "AMD64",
    "ARCHITECTURES",
    "Architecture",
    "ControlSpace",
    "MachineType",
    "PagingGeometry",
    "architecture_of",
]

ARCHITECTURES: dict[int, Architecture] = {AMD64.machine_type: AMD64}
"""Machine type (GetVersion, dump header, PE header) to what is known of it."""


def architecture_of(machine_type: int) -> Architecture | None:
    """The architecture of this machine type, or None where this program does not know it."""
    return ARCHITECTURES.get(machine_type)
