"""Memory over any source: translation, virtual reads, page-table walks, and physical memory by other means."""

from .mapped import MappedPhysicalMemory
from .translate import Presence, Translation, Translator
from .virtual import PagedVirtualMemory
from .walk import WalkedTable, walk

__all__ = [
    "MappedPhysicalMemory",
    "PagedVirtualMemory",
    "Presence",
    "Translation",
    "Translator",
    "WalkedTable",
    "walk",
]
