"""pipe: a virtual machine's serial port on a Windows named pipe (Hyper-V, VMware, VirtualBox on Windows).

Written after the documentation of Windows and trio, checked by types, and never run on Windows so far.

resets= and reconnect are taken as in WinDbg's own strings; a pipe that goes away ends the session here all the same.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kdbridge.errors import TransportLostError, TransportOpenError, UsageError

from .address import TargetAddress
from .transport import Transport

__all__ = ["open_pipe"]

_CHUNK = 65536
_LOST = "the other side closed the pipe; see whether the virtual machine still runs, then start again"


if sys.platform == "win32":
    import ctypes

    import trio

    _GENERIC_READ, _GENERIC_WRITE = 0x80000000, 0x40000000
    _OPEN_EXISTING = 3
    _FILE_FLAG_OVERLAPPED = 0x40000000
    _INVALID_HANDLE = ctypes.c_void_p(-1).value
    _WHY = {
        2: "there is no such pipe; is the virtual machine running, and is its serial port on a pipe of this name?",
        5: "access is denied; start this program as administrator",
        53: "there is no such computer",
        231: "the pipe is in use; close the other debugger (WinDbg) that has it open",
    }
    """ERROR_FILE_NOT_FOUND, ERROR_ACCESS_DENIED, ERROR_BAD_NETPATH, ERROR_PIPE_BUSY."""

    def _create_file(address: TargetAddress) -> int:
        create = ctypes.WinDLL("kernel32", use_last_error=True).CreateFileW
        create.restype = ctypes.c_void_p
        create.argtypes = [
            ctypes.c_wchar_p,
            *[ctypes.c_uint32] * 2,
            ctypes.c_void_p,
            *[ctypes.c_uint32] * 2,
            ctypes.c_void_p,
        ]
        access = _GENERIC_READ | _GENERIC_WRITE
        handle = create(address.place, access, 0, None, _OPEN_EXISTING, _FILE_FLAG_OVERLAPPED, None)
        if handle is None or handle == _INVALID_HANDLE:
            number = ctypes.get_last_error()
            raise TransportOpenError(f"{address.url}: {_WHY.get(number) or ctypes.FormatError(number)}")
        return int(handle)

    class _PipeTransport:
        """Overlapped reads and writes: a cancelled one that was done in the meantime counts as done."""

        def __init__(self, url: str, handle: int, notes: Sequence[str]) -> None:
            self.url, self.notes = url, tuple(notes)
            self._handle = handle
            self._open = True
            trio.lowlevel.register_with_iocp(handle)

        async def send(self, data: bytes) -> None:
            """Write all of it."""
            view = memoryview(data)
            while view:
                try:
                    view = view[await trio.lowlevel.write_overlapped(self._handle, view) :]
                except OSError as error:
                    raise TransportLostError(f"{self.url}: {_LOST} ({error.strerror or error})") from error

        async def receive(self) -> bytes:
            """At least one byte."""
            buffer = bytearray(_CHUNK)
            try:
                size = await trio.lowlevel.readinto_overlapped(self._handle, buffer)
            except OSError as error:
                raise TransportLostError(f"{self.url}: {_LOST} ({error.strerror or error})") from error
            if not size:
                raise TransportLostError(f"{self.url}: {_LOST}")
            return bytes(buffer[:size])

        async def aclose(self) -> None:
            """Close the handle."""
            if self._open:
                self._open = False
                ctypes.windll.kernel32.CloseHandle(ctypes.c_void_p(self._handle))

    async def open_pipe(address: TargetAddress) -> Transport:
        """Open the client end. Raises TransportOpenError."""
        notes = ("reconnect: when the pipe goes away, start again",) if address.flag("reconnect", False) else ()
        return _PipeTransport(address.url, _create_file(address), notes)

else:

    async def open_pipe(address: TargetAddress) -> Transport:
        """Say that there are no named pipes here. Raises UsageError."""
        raise UsageError(
            f"{address.url}: named pipes exist on Windows only; on this system a virtual machine's serial port "
            "is a Unix socket or a TCP port: unix:/path/to/socket or tcp:HOST:PORT"
        )
