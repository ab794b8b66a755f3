"""From an IRP, a device object or a driver object to the driver whose it is (x64)."""

from __future__ import annotations

from dataclasses import dataclass

from kdbridge.discovery.notes import read_string, try_read
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import format_address
from protocol.arch import MachineType
from protocol.bugcheck import ParameterKind
from protocol.layouts.io import (
    DEVICE_OBJECT64,
    DRIVER_OBJECT64,
    IO_STACK_LOCATION64,
    IO_TYPE_DEVICE,
    IO_TYPE_DRIVER,
    IO_TYPE_IRP,
    IRP64,
    MAJOR_FUNCTIONS,
)
from protocol.structure import Structure, StructureLayout

__all__ = ["DriverOf", "driver_of"]


@dataclass(frozen=True, slots=True)
class DriverOf:
    """A driver: where its image begins, its name ("\\Driver\\mydrv"), and how it was found, in words."""

    start: int
    name: str
    words: str
    routine: int = 0
    """Its routine for the IRP's major function; 0 where it was not found by an IRP."""


async def driver_of(source: Source, target: Target, kind: ParameterKind, address: int) -> DriverOf | str:
    """The driver that this object belongs to, or why it cannot be told."""
    if target.version.machine_type != MachineType.AMD64:
        return "objects of the I/O manager are read on x64 only"
    match kind:
        case ParameterKind.IRP:
            return await _of_irp(source, address)
        case ParameterKind.DEVICE_OBJECT:
            return await _of_device(source, address, "a device object")
        case ParameterKind.DRIVER_OBJECT:
            return await _of_driver(source, address, "the driver object")
        case _:
            return f"{kind.value} leads to no driver"


async def _of_irp(source: Source, address: int) -> DriverOf | str:
    """By its current stack location: whoever has that one holds the IRP."""
    irp = await _object(source, IRP64, address, IO_TYPE_IRP)
    if isinstance(irp, str):
        return irp
    data = await try_read(source, irp["current_stack_location"], IO_STACK_LOCATION64.size)
    if data is None:
        return f"the stack location of the IRP at {format_address(address)} cannot be read"
    location = IO_STACK_LOCATION64.decode(data)
    function = location["major_function"]
    if function >= len(MAJOR_FUNCTIONS):
        return f"the stack location of the IRP at {format_address(address)} has major function {function:#x}"
    words = f"an IRP ({MAJOR_FUNCTIONS[function]}) that is held by a device"
    return await _of_device(source, location["device"], words, MAJOR_FUNCTIONS[function].lower())


async def _of_device(source: Source, address: int, words: str, function: str = "") -> DriverOf | str:
    device = await _object(source, DEVICE_OBJECT64, address, IO_TYPE_DEVICE)
    return device if isinstance(device, str) else await _of_driver(source, device["driver_object"], words, function)


async def _of_driver(source: Source, address: int, words: str, function: str = "") -> DriverOf | str:
    driver = await _object(source, DRIVER_OBJECT64, address, IO_TYPE_DRIVER)
    if isinstance(driver, str):
        return driver
    name = await read_string(source, driver["driver_name"], driver["driver_name_length"]) or ""
    of_whom = f"of {name}" if name else f"of the driver at {format_address(driver['driver_start'])}"
    return DriverOf(driver["driver_start"], name, f"{words} {of_whom}", driver[function] if function else 0)


async def _object(source: Source, layout: StructureLayout, address: int, type_: int) -> Structure | str:
    data = await try_read(source, address, layout.size)
    if data is None:
        return f"the {layout.name} at {format_address(address)} cannot be read"
    found = layout.decode(data)
    if found["type"] != type_:
        return f"at {format_address(address)} lies no {layout.name}: its type is {found['type']:#x}"
    return found
