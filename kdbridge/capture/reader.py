"""read_frames: every frame of a debugger's line in a capture file, whoever made the file."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from protocol.kdnet.datagram import MAGIC

from .container import Captured, read_container
from .frames import HOST, TARGET, Frame, Medium
from .pcapng import LINKTYPE_RTAC_SERIAL, RTAC_HEADER

if TYPE_CHECKING:
    from .udp import UdpFinder

__all__ = ["read_frames"]

_TO_TARGET = {1: True, 2: False, 3: True, 4: False}
"""Which way bytes went that an RTAC event carries; its other events carry none."""
_TWICE_WITHIN = 1.0
_REMEMBERED = 4096


def _nobody(text: str) -> None:
    """Whoever does not ask is not told."""


def read_frames(path: Path | str, *, report: Callable[[str], None] = _nobody) -> Iterator[Frame]:
    """Frames in the order of the file: serial bytes, and UDP datagrams that begin with KDNET's magic, on any port.

    What was captured twice (on two interfaces, or by a mirrored port) is given once. `report` is told what a reader
    should know of the file: that it was cut off, that frames in it were. Raises CaptureError, FileError.
    """
    path = Path(path)
    ends = partial(report, f"{path} was cut off: it ends in the middle of a frame")
    udp: UdpFinder | None = None
    twice = _Twice()
    repeated = shortened = 0
    for captured in read_container(path, ends):
        if captured.link_type == LINKTYPE_RTAC_SERIAL:
            frame = _serial(captured)
            if frame is not None:
                yield frame
            continue
        if MAGIC not in captured.data:
            continue
        if udp is None:
            from .udp import UdpFinder  # scapy comes with it, and is not needed for a serial line

            udp = UdpFinder()
        found = udp.find(captured.link_type, captured.data)
        if found is None:
            continue
        if twice.seen(captured.time, found.packet):
            repeated += 1
            continue
        shortened += found.shortened
        yield Frame(captured.time, None, found.data, Medium.NETWORK, found.source, found.destination)
    if repeated:
        report(f"captured twice and counted once: {_datagrams(repeated)}")
    if shortened:
        report(f"cut by the capture, whose snap length is too small for them: {_datagrams(shortened)}")


def _datagrams(count: int) -> str:
    return f"{count} datagram{'s' if count > 1 else ''}"


def _serial(captured: Captured) -> Frame | None:
    data = captured.data
    if len(data) <= RTAC_HEADER.size:
        return None
    seconds, microseconds, event, _, _ = RTAC_HEADER.unpack_from(data)
    to_target = _TO_TARGET.get(event)
    if to_target is None:
        return None
    ends = (HOST, TARGET) if to_target else (TARGET, HOST)
    return Frame(
        captured.time or seconds + microseconds / 1_000_000, to_target, data[RTAC_HEADER.size :], Medium.SERIAL, *ends
    )


class _Twice:
    """Which IP packets came a moment ago. The same packet again is another copy, not another packet."""

    def __init__(self) -> None:
        self._times: OrderedDict[bytes, float] = OrderedDict()

    def seen(self, time: float, packet: bytes) -> bool:
        key = hashlib.blake2b(packet, digest_size=16).digest()
        before = self._times.pop(key, None)
        self._times[key] = time
        if len(self._times) > _REMEMBERED:
            self._times.popitem(last=False)
        return before is not None and abs(time - before) <= _TWICE_WITHIN
