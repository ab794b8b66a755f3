"""Snapshot: what was brought home of a machine, page by page, durable at every checkpoint."""

from .coverage import Coverage, PageState
from .store import Snapshot

__all__ = ["Coverage", "PageState", "Snapshot"]
