"""What can go wrong while a machine is made up."""

from __future__ import annotations

from protocol.errors import KdError

__all__ = ["SimulationError"]


class SimulationError(KdError):
    """The machine that was asked for cannot be built: too little memory for so many processors, an odd option."""
