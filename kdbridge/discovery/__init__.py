"""Discovery: from the version packet to everything that a dump's header and a reader's first screen need."""

from .discover import discover

__all__ = ["discover"]
