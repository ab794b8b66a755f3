"""One file an architecture: registers, control space and paging geometry. Found by machine type.

A new architecture is a new file here that makes one `Architecture`, and one line in `ARCHITECTURES`.
"""

from __future__ import annotations

from .amd64 import AMD64
from .arm64 import ARM64
from .description import Architecture, ControlSpace, MachineType, PagingGeometry
from .x86 import X86, X86_WITHOUT_PAE

__all__ = [
    "AMD64",
    "ARCHITECTURES",
    "ARM64",
    "X86",
    "X86_WITHOUT_PAE",
    "Architecture",
    "ControlSpace",
    "MachineType",
    "PagingGeometry",
    "architecture_of",
    "pointer_size_of",
]

ARCHITECTURES: dict[int, Architecture] = {one.machine_type: one for one in (AMD64, X86, ARM64)}
"""Machine type (GetVersion, dump header, PE header) to what is known of it. Whether x86 has PAE it does not tell."""


def architecture_of(machine_type: int) -> Architecture | None:
    """The architecture of this machine type, or None where this program does not know it."""
    return ARCHITECTURES.get(machine_type)


def pointer_size_of(machine_type: int) -> int:
    """Bytes of a pointer on such a machine; 8 where this program does not know it."""
    architecture = architecture_of(machine_type)
    return 8 if architecture is None else architecture.pointer_size
