"""Serial ports of this machine, with what the system knows of each."""

from __future__ import annotations

import re
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
    return tuple(sorted(ports, key=lambda port: _by_number(port.device)))


def latency_timer(name: str, root: Path = Path("/")) -> int | None:
    """What the driver of /dev/NAME gathers bytes for (ms); None where it has no such timer, or is not Linux's."""
    try:
        return int((root / "sys/class/tty" / name / "device/latency_timer").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _describe(info: ListPortInfo, stable: dict[str, str], root: Path) -> SerialPort:
    name = Path(info.device).name
    return SerialPort(
        device=info.device,
        name=_known(info.name),
        description=_known(info.description),
        hardware_id=_known(info.hwid),
        manufacturer=_known(info.manufacturer),
        product=_known(info.product),
        serial_number=_known(info.serial_number),
        stable_name=stable.get(name),
        driver=_driver(name, root),
        latency_timer=latency_timer(name, root),
    )


def _known(value: str | None) -> str | None:
    return value if value and value != "n/a" else None


def _stable_names(root: Path) -> dict[str, str]:
    try:
        links = sorted((root / "dev/serial/by-id").iterdir())
        return {link.readlink().name: f"/dev/serial/by-id/{link.name}" for link in links if link.is_symlink()}
    except OSError:
        return {}


def _driver(name: str, root: Path) -> str | None:
    try:
        return (root / "sys/class/tty" / name / "device/driver").readlink().name
    except OSError:
        return None


def _by_number(device: str) -> tuple[tuple[str, int], ...]:
    """A key that puts COM10 after COM9."""
    return tuple((text, int(digits or 0)) for text, digits in re.findall(r"(\D*)([0-9]*)", device))
