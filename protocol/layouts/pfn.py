"""The PFN database's words: where the memory manager keeps a page (dump-formats 3.2 B).

The layout of a record is no contract: it differs between builds, and nothing tells it.
"""

from __future__ import annotations

import enum

__all__ = ["PageLocation"]


class PageLocation(enum.IntEnum):
    """MMPFNENTRY.PageLocation, three bits: on which list a frame is, or that it is on none."""

    ZEROED = 0
    FREE = 1
    STANDBY = 2
    MODIFIED = 3
    MODIFIED_NO_WRITE = 4
    BAD = 5
    ACTIVE = 6
    TRANSITION = 7
