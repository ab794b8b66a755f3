"""A port as POSIX systems have it: a tty, waited for as trio waits for sockets, and set where pyserial sets nothing."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import serial
import trio

from kdbridge.errors import TransportOpenError
from kdbridge.ports import latency_timer

from .descriptor import DescriptorStream
from .stream import StreamTransport
from .threaded import close_quietly

# For the type checker: there is nothing here for Windows.
assert sys.platform != "win32"  # noqa: S101

__all__ = ["TtyTransport", "latency_notes", "settle"]

_CLOSE_WITHIN = 2.0
_TOLERANCE = 0.03
"""A receiver samples in the middle of the tenth bit: it bears about 5 %, which both ends share."""
_TERMIOS2 = struct.Struct("=4IB19s2I")
"""struct termios2 of Linux: input, output, control and local flags, line discipline, characters, both speeds."""
_TCGETS2, _TCSETS2 = 0x802C542A, 0x402C542B


class TtyTransport:
    """Bytes over a tty that pyserial has opened with `inter_byte_timeout=0`."""

    def __init__(self, url: str, port: serial.Serial, notes: Sequence[str], lost: str) -> None:
        self._port: serial.Serial | None = port
        self._stream = StreamTransport(url, DescriptorStream(os.dup(port.fileno())), notes, lost)

    @property
    def url(self) -> str:
        """The port and how it was set."""
        return self._stream.url

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be set."""
        return self._stream.notes

    async def send(self, data: bytes) -> None:
        """Write all of it. Raises TransportLostError."""
        await self._stream.send(data)

    async def receive(self) -> bytes:
        """At least one byte. Raises TransportLostError."""
        return await self._stream.receive()

    def receive_within(self, seconds: float) -> bytes | None:
        """What comes within this short time. Raises TransportLostError."""
        return self._stream.receive_within(seconds)

    async def aclose(self) -> None:
        """Give the port back, after what was written has left it, but soon."""
        port, self._port = self._port, None
        if port is None:
            return
        await self._stream.aclose()
        # Closing waits until the port has sent all. What a flow control holds back must not hold us.
        with trio.CancelScope(shield=True), trio.move_on_after(_CLOSE_WITHIN):
            await trio.to_thread.run_sync(close_quietly, port, abandon_on_cancel=True)


def settle(url: str, port: serial.Serial, baud: int) -> None:
    """Let a break be no data and flush nothing, and see whether the port took its speed. Raises TransportOpenError."""
    if not sys.platform.startswith("linux"):
        return
    try:
        iflag, *rest, speed = _TERMIOS2.unpack(fcntl.ioctl(port.fileno(), _TCGETS2, bytes(_TERMIOS2.size)))
        iflag = iflag & ~termios.BRKINT | termios.IGNBRK
        fcntl.ioctl(port.fileno(), _TCSETS2, _TERMIOS2.pack(iflag, *rest, speed))
    except OSError:
        return
    if abs(speed - baud) > _TOLERANCE * baud:
        raise TransportOpenError(f"{url}: {port.port} cannot do {baud} baud; the nearest that it can is {speed}")


def latency_notes(port: serial.Serial, root: Path = Path("/")) -> tuple[str, ...]:
    """Ask an adapter to hand over each byte at once. Says so where it will not; a pseudo terminal has no hardware."""
    name = Path(str(port.port)).resolve().name
    if not (root / "sys/class/tty" / name / "device").exists():
        return ()
    notes = []
    try:
        port.set_low_latency_mode(True)
    except (OSError, ValueError) as error:
        notes.append(f"low latency could not be set on {name} ({error}); answers may take longer")
    timer = latency_timer(name, root)
    if timer is not None and timer > 1:
        notes.append(
            f"{name} gathers bytes for {timer} ms before it hands them over, so each answer comes that much later; "
            f"as root: echo 1 > /sys/class/tty/{name}/device/latency_timer"
        )
    return tuple(notes)
