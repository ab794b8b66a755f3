"""serial: a port of this machine: a UART, a USB adapter, a pseudo terminal.

serial:PORT?baud=115200

Eight bits, no parity, one stop bit. Options: baud (any speed that the port can do); dtr and rts, 1 if not said: the
two lines that tell the other side that somebody is here; rtscts and xonxoff, 0 if not said: KD uses no flow control,
and xonxoff takes two byte values away from it. The port is locked, and whatever had arrived before is thrown away:
its beginning is lost, and a target repeats what was not acknowledged.

On Windows the port is read in threads (`threaded`). That way was written and checked by types; it was not run there.
"""

from __future__ import annotations

import errno
import stat
import sys
from dataclasses import replace
from pathlib import Path

import serial

from kdbridge.errors import TransportOpenError
from kdbridge.ports import list_ports

from .address import TargetAddress, parse_target
from .threaded import READ_TIMEOUT, ThreadedTransport, close_quietly, made_in_thread
from .transport import Transport

if sys.platform != "win32":
    import grp
    import termios

    from .tty import TtyTransport, latency_notes, settle

    _ERRORS: tuple[type[Exception], ...] = (OSError, ValueError, OverflowError, termios.error)
else:
    _ERRORS: tuple[type[Exception], ...] = (OSError, ValueError, OverflowError)

__all__ = ["open_serial", "stable_address"]

_LOST = "the port is gone; see whether its cable or adapter is still plugged in, then start again"
_XONXOFF = "xonxoff=1: bytes 0x11 and 0x13 do not get through, and KD's packets contain them; use it for trials only"
_BUSY = "is in use by another program (a terminal, WinDbg, another kdbridge); close it there"


async def open_serial(address: TargetAddress) -> Transport:
    """Open a port. Raises TransportOpenError, which says what hinders and what to do."""
    port = await made_in_thread(lambda: _open(address))
    notes = (_XONXOFF,) if port.xonxoff else ()
    if sys.platform != "win32":
        return TtyTransport(address.url, port, notes + latency_notes(port), _LOST)
    else:  # noqa: RET505  (mypy looks at one of them on each system)
        return ThreadedTransport(address.url, port, notes, _LOST)


def _open(address: TargetAddress) -> serial.Serial:
    device = address.place if sys.platform == "win32" else _device(address)
    port = serial.Serial()
    try:
        port.port = device
        port.baudrate = address.baud
        port.rtscts, port.xonxoff = address.flag("rtscts", False), address.flag("xonxoff", False)
        port.dtr, port.rts = address.flag("dtr", True), address.flag("rts", True)
        if sys.platform == "win32":
            port.timeout = READ_TIMEOUT
        else:
            # VMIN 1: else a read of nothing gives b"", which is the end of a stream to everybody else.
            port.inter_byte_timeout = 0
            port.exclusive = True
        port.open()
    except _ERRORS as error:
        raise TransportOpenError(f"{address.url}: {_why(device, address.baud, error)}") from error
    if sys.platform != "win32":
        try:
            settle(address.url, port, address.baud)
        except BaseException:
            close_quietly(port)
            raise
    return port


def stable_address(address: str) -> str:
    """The same target by a name that its port keeps when the adapter is plugged in anew, where it has one."""
    parsed = parse_target(address)
    if parsed.scheme == "serial":
        for port in list_ports():
            if port.stable_name and Path(parsed.place).name == Path(port.device).name:
                return replace(parsed, place=port.stable_name).url
    return address


def _device(address: TargetAddress) -> str:
    """The port's path. Raises TransportOpenError when there is none there."""
    name = address.place
    path = Path(name)
    if "/" not in name and not path.exists():
        path = Path("/dev", name)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise TransportOpenError(f"{address.url}: there is no port {name}; {_here()}") from None
    except OSError as error:
        raise TransportOpenError(f"{address.url}: {name} cannot be looked at: {error.strerror}") from error
    if not stat.S_ISCHR(mode):
        what = "a socket; write unix: for serial:" if stat.S_ISSOCK(mode) else "not a serial port"
        raise TransportOpenError(f"{address.url}: {name} is {what}; {_here()}")
    return str(path)


def _here() -> str:
    ports = [f"serial:{port.device}" for port in list_ports()]
    return f"here are {', '.join(ports)}" if ports else "no serial port is here; is the adapter plugged in?"


def _why(device: str, baud: int, error: BaseException) -> str:
    """One sentence for what pyserial and the system said. pyserial hides some of the system's numbers, not all."""
    number = getattr(error, "errno", None)
    if number is None and error.__context__ is not None and error.__context__.args:
        number = error.__context__.args[0]
    text = str(error)
    if number in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EBUSY) or "PermissionError(13" in text:
        return f"{device} {_BUSY}"
    if number in (errno.EACCES, errno.EPERM):
        group = _group(device)
        return f"permission denied; join the group {group} (sudo usermod -aG {group} $USER), and log in again"
    if number == errno.ENOTTY:
        return f"{device} is not a serial port; {_here()}"
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO) or "FileNotFoundError(" in text:
        return f"there is no port {device}; {_here()}"
    if number == errno.EIO:
        return f"{device} has a name, but no hardware behind it; {_here()}"
    if number == errno.EINVAL or isinstance(error, (ValueError, OverflowError)):
        return f"{device} cannot do {baud} baud ({text})"
    return f"{device} cannot be opened: {text}"


def _group(device: str) -> str:
    """Who may open the port: dialout on Debian, uucp elsewhere."""
    if sys.platform != "win32":
        try:
            group = grp.getgrgid(Path(device).stat().st_gid).gr_name
        except (OSError, KeyError):
            return "dialout"
        return "dialout" if group in ("root", "tty") else group
    else:  # noqa: RET505
        return "dialout"
