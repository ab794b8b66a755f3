"""The layout of a record of the PFN database: models of MMPFN on x64.

Nobody tells a debugger without symbols which one a target has (dump-formats 3.2 B), so it is a parameter: a reader has
to find it out by what is known of some frames.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import SimulationError

__all__ = ["COMPACT_PFN", "PFN_LAYOUTS", "VISTA_PFN", "WINDOWS_10_PFN", "PfnLayout"]


@dataclass(frozen=True, slots=True)
class PfnLayout:
    """Where the fields lie. All have 8 bytes, but for the reference count (2) and the location's byte.

    The location takes the byte's lowest three bits; bit 4 says modified, bits 6 and 7 are the cache attribute.
    """

    name: str
    record_size: int
    link: int
    """u1: Flink, WsIndex."""
    share_count: int
    """u2: ShareCount, Blink; bit 63 is the lock."""
    pte_address: int
    original_pte: int | None
    reference_count: int
    location: int
    """u3.e1."""
    pte_frame: int
    """u4: the page table that has the entry; bit 57 says that the entry is a prototype."""

    def __post_init__(self) -> None:
        wide = (self.link, self.share_count, self.pte_address, self.original_pte, self.pte_frame)
        taken = [byte for start in wide if start is not None for byte in range(start, start + 8)]
        taken += [self.reference_count, self.reference_count + 1, self.location]
        if len(set(taken)) != len(taken) or max(taken) >= self.record_size:
            raise SimulationError(f"the fields of the PFN layout {self.name} overlap, or do not fit into a record")


WINDOWS_10_PFN = PfnLayout(
    "windows-10", 0x30, link=0x00, pte_address=0x08, original_pte=0x10, share_count=0x18, reference_count=0x20,
    location=0x22, pte_frame=0x28,
)  # fmt: skip
"""As since Windows 8."""

VISTA_PFN = PfnLayout(
    "vista", 0x30, link=0x00, share_count=0x08, pte_address=0x10, reference_count=0x18, location=0x1A,
    original_pte=0x20, pte_frame=0x28,
)  # fmt: skip
"""As until Windows 7."""

COMPACT_PFN = PfnLayout(
    "compact", 0x28, pte_address=0x00, link=0x08, share_count=0x10, original_pte=None, pte_frame=0x18,
    reference_count=0x20, location=0x23,
)  # fmt: skip
"""No version's: a record size that no reader may take for granted."""

PFN_LAYOUTS = (WINDOWS_10_PFN, VISTA_PFN, COMPACT_PFN)
"""The models."""
