"""How many random machines a test tries: a share of them in the gate, all of them by `make whole`."""

from __future__ import annotations

import os

__all__ = ["drawn"]


def drawn(whole: int, gate: int) -> range:
    """Seeds from 0 on: so many in all, of which the gate has time for so many."""
    return range(whole if os.environ.get("KDBRIDGE_WHOLE") else gate)
