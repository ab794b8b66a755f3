"""A device that is stuck: its objects of the I/O manager, and the power IRP that its driver does not let go of.

Layouts of x64 as wdm.h has them: DEVICE_OBJECT, DRIVER_OBJECT, IRP, IO_STACK_LOCATION, and _TRIAGE_9F_POWER.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass

from .space import KernelSpace
from .stacks import LoadedImages

__all__ = ["PowerObjects", "lay_power_objects"]

_DEVICE, _DRIVER, _IRP = 3, 4, 6
_DEVICE_SIZE, _DRIVER_SIZE, _IRP_SIZE, _LOCATION_SIZE = 0x150, 0x150, 0xD0, 0x48
_POWER, _SET_POWER = 0x16, 2
"""IRP_MJ_POWER, IRP_MN_SET_POWER."""
_MAJOR_FUNCTIONS_AT = 0x70


@dataclass(frozen=True, slots=True)
class PowerObjects:
    """Where they lie: the physical device object, _TRIAGE_9F_POWER, the IRP."""

    device: int
    triage: int
    irp: int


def lay_power_objects(space: KernelSpace, images: LoadedImages, drivers: tuple[str, str, str]) -> PowerObjects:
    """A stack of three devices, the bus's at the bottom; the driver in the middle has the IRP."""
    routines = ("", f"{drivers[1]}!DispatchPower", f"{drivers[2]}!DispatchPower")
    devices = [
        _device(space, _driver(space, images, driver, routine))
        for driver, routine in zip(drivers, routines, strict=True)
    ]
    for below, above in itertools.pairwise(devices):
        space.write_qwords(below + 0x18, above)  # AttachedDevice
    irp = space.nonpaged.allocate(_IRP_SIZE + 3 * _LOCATION_SIZE, b"Irp ", 16)
    locations = irp + _IRP_SIZE
    space.write(irp, struct.pack("<HH", _IRP, _IRP_SIZE + 3 * _LOCATION_SIZE))
    space.write(irp + 0x42, bytes([3, 2]))  # StackCount, CurrentLocation
    space.write_qwords(irp + 0xB8, locations + _LOCATION_SIZE)
    for number, device in enumerate(devices):
        space.write(locations + number * _LOCATION_SIZE, bytes([_POWER, _SET_POWER]))
        space.write_qwords(locations + number * _LOCATION_SIZE + 0x28, device)
    triage = space.nonpaged.allocate(0x20, b"PoTr", 16)
    space.write(triage, struct.pack("<HH", 0x8000, 1))
    return PowerObjects(devices[0], triage, irp)


def _device(space: KernelSpace, driver: int) -> int:
    address = space.nonpaged.allocate(_DEVICE_SIZE, b"Devi", 16)
    space.write(address, struct.pack("<HHI", _DEVICE, _DEVICE_SIZE, 1))
    space.write_qwords(address + 8, driver)
    space.write_qwords(driver + 8, address)
    return address


def _driver(space: KernelSpace, images: LoadedImages, module: str, routine: str) -> int:
    """A DRIVER_OBJECT; each routine that is not told is the kernel's own for what is not supported."""
    address = space.nonpaged.allocate(_DRIVER_SIZE, b"Driv", 16)
    base, size = images.range_of(module)
    name = f"\\Driver\\{module}".encode("utf-16-le")
    space.write(address, struct.pack("<HH", _DRIVER, _DRIVER_SIZE))
    space.write_qwords(address + 0x18, base)
    space.write(address + 0x20, struct.pack("<I", size))
    space.write(address + 0x38, struct.pack("<HH", len(name), len(name) + 2))
    space.write_qwords(address + 0x40, space.nonpaged.place(name + b"\0\0", b"DrNa"))
    refused = images.address("nt!IopInvalidDeviceRequest")
    for number in range(28):
        space.write_qwords(address + _MAJOR_FUNCTIONS_AT + 8 * number, refused)
    if routine:
        space.write_qwords(address + _MAJOR_FUNCTIONS_AT + 8 * _POWER, images.address(routine))
    return address
