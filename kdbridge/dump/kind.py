"""Kinds of dumps, and how far a plan has to come for each."""

from __future__ import annotations

import enum

from kdbridge.plan import Stage

__all__ = ["DumpKind", "DumpLayoutChoice"]


class DumpKind(enum.StrEnum):
    """How much memory a dump holds, smallest first."""

    SMALL = "small"
    KERNEL = "kernel"
    AUTOMATIC = "automatic"
    """Windows' name for the kernel kind."""
    ACTIVE = "active"
    COMPLETE = "complete"

    @property
    def stage(self) -> Stage:
        """The stage that must have come to its end before a dump of this kind lacks nothing."""
        return _STAGES[self]

    @property
    def words(self) -> str:
        """With its article."""
        return f"{'an' if self in (self.ACTIVE, self.AUTOMATIC) else 'a'} {self.value} dump"

    @classmethod
    def best_of(cls, reached: Stage | None) -> DumpKind | None:
        """The largest kind that is whole when so much was read."""
        if reached is None:
            return None
        return next((kind for kind in reversed(cls) if kind is not cls.AUTOMATIC and kind.stage <= reached), None)


_STAGES = {
    DumpKind.SMALL: Stage.SMALL,
    DumpKind.KERNEL: Stage.KERNEL,
    DumpKind.AUTOMATIC: Stage.KERNEL,
    DumpKind.ACTIVE: Stage.ACTIVE,
    DumpKind.COMPLETE: Stage.COMPLETE,
}


class DumpLayoutChoice(enum.StrEnum):
    """How a complete dump is laid out: auto takes runs (type 1) where they fit, and a bitmap (type 5) beyond."""

    AUTO = "auto"
    RUNS = "runs"
    BITMAP = "bitmap"
