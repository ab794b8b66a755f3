"""Dump files: made from what was brought home, at any moment, without the target; and checked."""

from .held import HeldPages
from .kind import DumpKind, DumpLayoutChoice
from .render import render
from .rendered import Rendered
from .verify import Verified, verify

__all__ = ["DumpKind", "DumpLayoutChoice", "HeldPages", "Rendered", "Verified", "render", "verify"]
