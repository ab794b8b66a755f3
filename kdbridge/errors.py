"""What can go wrong while working on a target, each with the exit code that the command line ends with.

Whoever raises says who is to blame (the user, the transport, the target, a file), where, how far we came, and what
to do. Exit codes: 2 usage, 3 no contact, 4 target lost or refused, 5 file.
"""

from __future__ import annotations

from typing import ClassVar

from protocol.errors import KdError

__all__ = [
    "DiskFullError",
    "DumpError",
    "FileError",
    "MemoryFault",
    "NoContactError",
    "SnapshotError",
    "TargetChangedError",
    "TargetLostError",
    "TargetRefusedError",
    "TransportError",
    "TransportLostError",
    "TransportOpenError",
    "UsageError",
]


class UsageError(KdError):
    """What was asked for does not make sense; nothing was done."""

    exit_code: ClassVar[int] = 2


class TransportError(KdError):
    """The way to the target: a port, a socket."""

    exit_code: ClassVar[int] = 3


class TransportOpenError(TransportError):
    """The port or connection could not be opened."""


class TransportLostError(TransportError):
    """The connection ended while it was in use."""

    exit_code: ClassVar[int] = 4


class NoContactError(KdError):
    """The line is open, and nobody that can be talked to is at its other end."""

    exit_code: ClassVar[int] = 3


class TargetLostError(KdError):
    """The target was there and does not answer any more, or is not in the stop any more that it was in."""

    exit_code: ClassVar[int] = 4


class TargetChangedError(TargetLostError):
    """The machine restarted, or went on: what it holds now belongs to another moment, and is mixed with nothing."""


class TargetRefusedError(KdError):
    """The target answered that it will not. `status` is its NTSTATUS, `api` what was asked."""

    exit_code: ClassVar[int] = 4

    def __init__(self, message: str, *, api: str, status: int) -> None:
        super().__init__(message)
        self.api = api
        self.status = status


class MemoryFault(KdError):
    """Memory that cannot be read. `address` is the first byte that failed, `done` bytes before it came."""

    exit_code: ClassVar[int] = 4

    def __init__(self, message: str, *, address: int, size: int, done: int, virtual: bool) -> None:
        super().__init__(message)
        self.address = address
        self.size = size
        self.done = done
        self.virtual = virtual


class FileError(KdError):
    """A file of the user's: missing, not writable, not what it should be, or the disk is full."""

    exit_code: ClassVar[int] = 5


class SnapshotError(FileError):
    """A Snapshot folder that is damaged, locked, or not one."""


class DiskFullError(SnapshotError):
    """The disk has no room for what came. What is in the Snapshot stays, and can be gone on with."""


class DumpError(FileError):
    """A dump file that cannot be made or read."""
