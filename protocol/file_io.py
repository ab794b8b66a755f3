"""KD_FILE_IO: the target reads files from the debugger's machine, to replace drivers (kd-protocol 4.2).

It waits until it is answered. A dump tool declines: the target then uses its own copy.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from .errors import RemoteProtocolError

__all__ = ["HEADER_SIZE", "FileIo", "FileIoApi"]

HEADER_SIZE = 64
_CREATE = struct.Struct("<IIIIIII4xQQ16x")
_TRANSFER = struct.Struct("<IIQQI36x")
_HEAD = struct.Struct("<II")
assert _CREATE.size == _TRANSFER.size == HEADER_SIZE


class FileIoApi(enum.IntEnum):
    """ApiNumber of FILE_IO packets."""

    CREATE_FILE = 0x3430
    READ_FILE = 0x3431
    WRITE_FILE = 0x3432
    CLOSE_FILE = 0x3433


@dataclass(frozen=True, slots=True)
class FileIo:
    """A file request or its reply: the 64 bytes of header, and a path or data behind them."""

    header: bytes
    data: bytes

    @property
    def api(self) -> int:
        """A FileIoApi."""
        return int(_HEAD.unpack_from(self.header)[0])

    @property
    def status(self) -> int:
        """NTSTATUS, in a reply."""
        return int(_HEAD.unpack_from(self.header)[1])

    @property
    def path(self) -> str:
        """The path of a create request, as the target wrote it."""
        return self.data.decode("utf-16-le", "replace").split("\0")[0] if self.api == FileIoApi.CREATE_FILE else ""

    def encode(self) -> bytes:
        """The payload of a type 11 packet."""
        return self.header + self.data

    def decline(self, status: int) -> FileIo:
        """The host's refusal: the header echoed with a status, no data. WinDbg says C000000F."""
        return FileIo(self.header[:4] + status.to_bytes(4, "little") + self.header[8:], b"")

    @classmethod
    def create(cls, path: str, *, access: int = 0x120089, attributes: int = 0x80, share: int = 1) -> FileIo:
        """A create request, as loaders and kernels send it."""
        head = _CREATE.pack(FileIoApi.CREATE_FILE, 0, access, attributes, share, 1, 0, 0, 0)
        return cls(head, path.encode("utf-16-le") + b"\0\0")

    @classmethod
    def transfer(cls, api: FileIoApi, handle: int, offset: int = 0, length: int = 0, data: bytes = b"") -> FileIo:
        """A read, write or close request."""
        return cls(_TRANSFER.pack(api, 0, handle, offset, length), data)

    @classmethod
    def decode(cls, payload: bytes) -> FileIo:
        """Raises RemoteProtocolError."""
        if len(payload) < HEADER_SIZE:
            raise RemoteProtocolError(f"a file request of {len(payload)} bytes came; its header has {HEADER_SIZE}")
        message = cls(payload[:HEADER_SIZE], payload[HEADER_SIZE:])
        if message.api not in tuple(FileIoApi):
            raise RemoteProtocolError(f"file I/O with the unknown number {message.api:#x} came")
        return message
