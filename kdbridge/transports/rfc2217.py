"""rfc2217: a serial port of another machine, with its speed and lines set from here (ser2net, terminal servers).

rfc2217:HOST:PORT?baud=115200        options as for serial:

The protocol is pyserial's, which blocks and has a thread of its own; see `threaded` for how that is waited for.
"""

from __future__ import annotations

from serial.rfc2217 import Serial as Rfc2217Serial

from kdbridge.errors import TransportOpenError

from .address import TargetAddress
from .stream import reason
from .threaded import READ_TIMEOUT, ThreadedTransport, made_in_thread

__all__ = ["open_rfc2217"]

_LOST = "the connection to the port's server ended; see whether it still runs, then start again"


async def open_rfc2217(address: TargetAddress) -> ThreadedTransport:
    """Connect, and set the port at the other end. Raises TransportOpenError."""
    port = await made_in_thread(lambda: _open(address))
    return ThreadedTransport(address.url, port, (), _LOST)


def _open(address: TargetAddress) -> Rfc2217Serial:
    host = f"[{address.host}]" if ":" in address.host else address.host
    port = Rfc2217Serial()
    try:
        port.port = f"rfc2217://{host}:{address.port}"
        port.baudrate, port.timeout = address.baud, READ_TIMEOUT
        port.rtscts, port.xonxoff = address.flag("rtscts", False), address.flag("xonxoff", False)
        port.dtr, port.rts = address.flag("dtr", True), address.flag("rts", True)
        port.open()
    except (OSError, ValueError) as error:
        raise TransportOpenError(f"{address.url}: {_why(address, error)}") from error
    return port


def _why(address: TargetAddress, error: OSError | ValueError) -> str:
    text = str(error)
    if "does not seem to support" in text:
        return "who answers there does not speak RFC 2217; if it hands on raw bytes, write tcp: instead of rfc2217:"
    if "does not accept" in text:
        return f"the server does not set its port as asked; can it do {address.baud} baud?"
    if isinstance(error.__context__, (ConnectionRefusedError, TimeoutError)):
        return f"no server for serial ports answers there ({reason(error.__context__)})"
    return reason(error)
