"""Dump files: made from what was brought home, at any moment, without the target; and checked."""

from .held import HeldPages
from .render import DumpKind, DumpLayoutChoice, Rendered, render
from .verify import Verified, verify

__all__ = ["DumpKind", "DumpLayoutChoice", "HeldPages", "Rendered", "Verified", "render", "verify"]
