"""Ways to a target: one file for each scheme."""

from .address import TargetAddress, is_target, parse_target
from .opening import open_transport
from .transport import Transport

__all__ = ["TargetAddress", "Transport", "is_target", "open_transport", "parse_target"]
