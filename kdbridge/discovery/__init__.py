"""Discovery: from the version packet to everything that a dump's header and a reader's first screen need."""

from .discover import LookedAgain, discover, find_memory_runs, look_again

__all__ = ["LookedAgain", "discover", "find_memory_runs", "look_again"]
