"""Ways to a target: one file for each scheme."""

from .transport import Transport

__all__ = ["Transport"]
