"""Ways to a target: one file for each scheme."""

from .address import TargetAddress, is_target, parse_target
from .net_form import masked, masked_keys
from .opening import open_transport
from .serial import stable_address
from .transport import DatagramTransport, PromptTransport, RecordedTransport, Transport

__all__ = [
    "DatagramTransport",
    "PromptTransport",
    "RecordedTransport",
    "TargetAddress",
    "Transport",
    "is_target",
    "masked",
    "masked_keys",
    "open_transport",
    "parse_target",
    "stable_address",
]
