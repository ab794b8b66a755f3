"""Serial ports of this machine, with what the system knows of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from serial.tools.list_ports import comports
from serial.tools.list_ports_common import ListPortInfo

__all__ = ["SerialPort", "latency_timer", "list_ports"]


@dataclass(frozen=True, slots=True)
class SerialPort:
    """One port. What is not known is None."""

    device: str
    """What to write after serial:"""
    name: str | None = None
    description: str | None = None
    hardware_id: str | None = None
    manufacturer: str | None = None
    product: str | None = None
    serial_number: str | None = None
    stable_name: str | None = None
    """A name under /dev/serial/by-id that stays when other adapters come and go."""
    driver: str | None = None
    latency_timer: int | None = None
    """How long an FTDI adapter gathers bytes before it hands them over (ms); 1 is best."""

    def to_json(self) -> dict[str, object]:
        """As a JSON object."""
        return asdict(self)


def list_ports(found: Iterable[ListPortInfo] | None = None, root: Path = Path("/")) -> tuple[SerialPort, ...]:
    """The ports that are here, by name. `found` and `root` are for those who bring a system of their own."""
    stable = _stable_names(root)
    ports = [_describe(info, stable, root) for info in (comports() if found is None else found)]
    return tuple(sorted(ports, key=lambda port: [int(p) if p.isdigit() else p for p in _split(port.device)]))
