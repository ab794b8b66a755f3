"""From objects to drivers, over objects laid out by hand as wdm.h declares them."""

from __future__ import annotations

import struct

import pytest

from kdbridge.analysis.objects import DriverOf, driver_of
from protocol.bugcheck import ParameterKind
from tests.kdbridge.analysis.made_up import MadeUp, module, target_of

_BASE = 0xFFFFF800_20000000
_IRP, _LOCATION, _DEVICE, _DRIVER, _NAME = (0xFFFFA700_00000000 + 0x1000 * number for number in range(1, 6))
_POWER = 0x16


def _memory(**wrong: int) -> dict[int, bytes]:
    irp = bytearray(0xD0)
    struct.pack_into("<HH", irp, 0, wrong.get("irp_type", 6), 0xD0 + 0x48)
    irp[0x42:0x44] = b"\x01\x01"
    struct.pack_into("<Q", irp, 0xB8, wrong.get("location", _LOCATION))
    location = bytearray(0x48)
    location[0] = wrong.get("function", _POWER)
    struct.pack_into("<Q", location, 0x28, _DEVICE)
    device = bytearray(0x150)
    struct.pack_into("<HHIQ", device, 0, wrong.get("device_type", 3), 0x150, 1, _DRIVER)
    driver = bytearray(0x150)
    struct.pack_into("<HH", driver, 0, wrong.get("driver_type", 4), 0x150)
    struct.pack_into("<QI", driver, 0x18, _BASE, 0x8000)
    name = "\\Driver\\mydrv".encode("utf-16-le")
    struct.pack_into("<HHIQ", driver, 0x38, len(name), len(name) + 2, 0, _NAME)
    struct.pack_into("<Q", driver, 0x70 + 8 * _POWER, _BASE + 0x1230)
    parts = {_IRP: irp, _LOCATION: location, _DEVICE: device, _DRIVER: driver, _NAME: name}
    return {address: bytes(data) for address, data in parts.items()}


_TARGET = target_of(module("mydrv.sys", _BASE, 0x8000))


async def test_whoever_has_the_irp() -> None:
    found = await driver_of(MadeUp(_memory()), _TARGET, ParameterKind.IRP, _IRP)
    words = "an IRP (IRP_MJ_POWER) that is held by a device of \\Driver\\mydrv"
    assert found == DriverOf(_BASE, "\\Driver\\mydrv", words, _BASE + 0x1230)


@pytest.mark.parametrize(
    ("kind", "address"), [(ParameterKind.DEVICE_OBJECT, _DEVICE), (ParameterKind.DRIVER_OBJECT, _DRIVER)]
)
async def test_whose_the_object_is(kind: ParameterKind, address: int) -> None:
    found = await driver_of(MadeUp(_memory()), _TARGET, kind, address)
    assert isinstance(found, DriverOf)
    assert (found.start, found.name, found.routine) == (_BASE, "\\Driver\\mydrv", 0)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"irp_type": 5}, "lies no IRP: its type is 0x5"),
        ({"location": 0x1000}, "the stack location of the IRP at ffffa700`00001000 cannot be read"),
        ({"function": 0x80}, "has major function 0x80"),
        ({"device_type": 0}, "lies no DEVICE_OBJECT"),
        ({"driver_type": 0x100}, "lies no DRIVER_OBJECT: its type is 0x100"),
    ],
)
async def test_what_is_broken_leads_nowhere(wrong: dict[str, int], why: str) -> None:
    found = await driver_of(MadeUp(_memory(**wrong)), _TARGET, ParameterKind.IRP, _IRP)
    assert isinstance(found, str) and why in found


async def test_nothing_there() -> None:
    found = await driver_of(MadeUp({}), _TARGET, ParameterKind.IRP, _IRP)
    assert found == "the IRP at ffffa700`00001000 cannot be read"
