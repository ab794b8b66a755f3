"""Objects of the I/O manager, held against wdm.h's numbers."""

from __future__ import annotations

import struct

import pytest

from protocol.layouts.io import DRIVER_OBJECT64, IO_STACK_LOCATION64, IRP64, MAJOR_FUNCTIONS


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0x00, "IRP_MJ_CREATE"), (0x02, "IRP_MJ_CLOSE"), (0x03, "IRP_MJ_READ"), (0x04, "IRP_MJ_WRITE"),
        (0x09, "IRP_MJ_FLUSH_BUFFERS"), (0x0E, "IRP_MJ_DEVICE_CONTROL"), (0x0F, "IRP_MJ_INTERNAL_DEVICE_CONTROL"),
        (0x10, "IRP_MJ_SHUTDOWN"), (0x12, "IRP_MJ_CLEANUP"), (0x16, "IRP_MJ_POWER"), (0x17, "IRP_MJ_SYSTEM_CONTROL"),
        (0x1B, "IRP_MJ_PNP"),
    ],
)  # fmt: skip
def test_major_functions_have_the_numbers_of_wdm(number: int, name: str) -> None:
    assert MAJOR_FUNCTIONS[number] == name
    data = bytearray(DRIVER_OBJECT64.size)
    struct.pack_into("<Q", data, 0x70 + 8 * number, 0xFFFFF800_12345678)
    assert DRIVER_OBJECT64.decode(bytes(data))[name.lower()] == 0xFFFFF800_12345678
    assert len(MAJOR_FUNCTIONS) == 0x1B + 1


def test_an_irp_names_its_stack_location_and_that_its_device() -> None:
    irp = bytearray(IRP64.size)
    struct.pack_into("<HH", irp, 0, 6, 0x118)
    irp[0x42:0x44] = bytes([3, 2])
    struct.pack_into("<Q", irp, 0xB8, 0xFFFFA700_00001000)
    found = IRP64.decode(bytes(irp))
    assert (found["type"], found["stack_count"], found["current_location"]) == (6, 3, 2)
    location = bytearray(IO_STACK_LOCATION64.size)
    location[0] = 0x16
    struct.pack_into("<Q", location, 0x28, 0xFFFFA700_00002000)
    assert found["current_stack_location"] == 0xFFFFA700_00001000
    decoded = IO_STACK_LOCATION64.decode(bytes(location))
    assert (decoded["major_function"], decoded["device"]) == (0x16, 0xFFFFA700_00002000)
