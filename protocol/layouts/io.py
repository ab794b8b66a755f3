"""The objects of the I/O manager by which a driver is found, on x64: IRP, device and driver object (wdm.h)."""

from __future__ import annotations

import construct as cs

from protocol.structure import StructureLayout

__all__ = [
    "DEVICE_OBJECT64",
    "DRIVER_OBJECT64",
    "IO_STACK_LOCATION64",
    "IO_TYPE_DEVICE",
    "IO_TYPE_DRIVER",
    "IO_TYPE_IRP",
    "IRP64",
    "MAJOR_FUNCTIONS",
]

IO_TYPE_DEVICE, IO_TYPE_DRIVER, IO_TYPE_IRP = 3, 4, 6
"""What the first 16 bits of these objects hold."""

MAJOR_FUNCTIONS = (
    "IRP_MJ_CREATE", "IRP_MJ_CREATE_NAMED_PIPE", "IRP_MJ_CLOSE", "IRP_MJ_READ", "IRP_MJ_WRITE",
    "IRP_MJ_QUERY_INFORMATION", "IRP_MJ_SET_INFORMATION", "IRP_MJ_QUERY_EA", "IRP_MJ_SET_EA", "IRP_MJ_FLUSH_BUFFERS",
    "IRP_MJ_QUERY_VOLUME_INFORMATION", "IRP_MJ_SET_VOLUME_INFORMATION", "IRP_MJ_DIRECTORY_CONTROL",
    "IRP_MJ_FILE_SYSTEM_CONTROL", "IRP_MJ_DEVICE_CONTROL", "IRP_MJ_INTERNAL_DEVICE_CONTROL", "IRP_MJ_SHUTDOWN",
    "IRP_MJ_LOCK_CONTROL", "IRP_MJ_CLEANUP", "IRP_MJ_CREATE_MAILSLOT", "IRP_MJ_QUERY_SECURITY",
    "IRP_MJ_SET_SECURITY", "IRP_MJ_POWER", "IRP_MJ_SYSTEM_CONTROL", "IRP_MJ_DEVICE_CHANGE", "IRP_MJ_QUERY_QUOTA",
    "IRP_MJ_SET_QUOTA", "IRP_MJ_PNP",
)  # fmt: skip
"""By the number that a stack location has, and that indexes DRIVER_OBJECT.MajorFunction."""

DEVICE_OBJECT64 = StructureLayout(
    "DEVICE_OBJECT",
    cs.Struct("type" / cs.Int16ul, "size" / cs.Int16ul, "reference_count" / cs.Int32ul, "driver_object" / cs.Int64ul),
    {"driver_object": 8},
    0x10,
)

DRIVER_OBJECT64 = StructureLayout(
    "DRIVER_OBJECT",
    cs.Struct(
        "type" / cs.Int16ul,
        "size" / cs.Int16ul,
        cs.Padding(4),
        "device_object" / cs.Int64ul,
        "flags" / cs.Int32ul,
        cs.Padding(4),
        "driver_start" / cs.Int64ul,
        "driver_size" / cs.Int32ul,
        cs.Padding(4),
        "driver_section" / cs.Int64ul,
        "driver_extension" / cs.Int64ul,
        "driver_name_length" / cs.Int16ul,
        "driver_name_maximum" / cs.Int16ul,
        cs.Padding(4),
        "driver_name" / cs.Int64ul,
        cs.Padding(0x28),
        *[name.lower() / cs.Int64ul for name in MAJOR_FUNCTIONS],
    ),
    {
        "device_object": 0x08, "driver_start": 0x18, "driver_size": 0x20, "driver_section": 0x28,
        "driver_name_length": 0x38, "driver_name": 0x40, "irp_mj_create": 0x70, "irp_mj_power": 0x120,
        "irp_mj_pnp": 0x148,
    },
    0x150,
)  # fmt: skip

IO_STACK_LOCATION64 = StructureLayout(
    "IO_STACK_LOCATION",
    cs.Struct("major_function" / cs.Int8ul, "minor_function" / cs.Int8ul, cs.Padding(0x26), "device" / cs.Int64ul),
    {"device": 0x28},
    0x30,
)
"""As far as its DeviceObject. The whole is 0x48 bytes."""

IRP64 = StructureLayout(
    "IRP",
    cs.Struct(
        "type" / cs.Int16ul,
        "size" / cs.Int16ul,
        cs.Padding(0x3E),
        "stack_count" / cs.Int8ul,
        "current_location" / cs.Int8ul,
        cs.Padding(0x74),
        "current_stack_location" / cs.Int64ul,
    ),
    {"stack_count": 0x42, "current_location": 0x43, "current_stack_location": 0xB8},
    0xC0,
)
"""As far as Tail.Overlay.CurrentStackLocation. The whole is 0xD0 bytes, then the stack locations."""
