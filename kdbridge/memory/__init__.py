"""Memory by address: page tables looked up, pages of files, pieces by virtual address. Over any Source."""

from .mapped import MappedPhysicalMemory
from .translate import Presence, Translation, Translator
from .virtual import PagedVirtualMemory

__all__ = [
    "MappedPhysicalMemory",
    "PagedVirtualMemory",
    "Presence",
    "Translation",
    "Translator",
]
