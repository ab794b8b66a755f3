"""Discovery: from the version packet to everything that a dump's header and a reader's first screen need."""

from .discover import discover, find_memory_runs

__all__ = ["discover", "find_memory_runs"]
