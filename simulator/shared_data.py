"""KUSER_SHARED_DATA: the page that tells every reader the time, the version and the number of processors."""

from __future__ import annotations

import struct

from protocol.address import PAGE_SIZE

from .profile import KernelProfile

__all__ = ["SYSTEM_ROOT", "SharedData", "encode_shared_data"]

from dataclasses import dataclass

SYSTEM_ROOT = r"C:\Windows"
_TICK = 156250
"""Length of a clock tick in 100 ns units."""

_WINDOWS_10 = 10240
"""Its first build."""


@dataclass(frozen=True, slots=True)
class SharedData:
    """What the page says. Times in 100 ns; `system_time` is a FILETIME (UTC)."""

    system_time: int
    interrupt_time: int
    time_zone_bias: int
    build: int
    product_type: int
    suite_mask: int
    processors: int
    physical_pages: int
    kd_debugger_enabled: int


def encode_shared_data(shared: SharedData, profile: KernelProfile) -> bytes:
    """The page (offsets: kd-protocol 7.5)."""
    page = bytearray(PAGE_SIZE)

    def put(offset: int, layout: str, *values: int) -> None:
        struct.pack_into(f"<{layout}", page, offset, *values)

    def put_time(offset: int, value: int) -> None:
        put(offset, "III", value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF)

    put(0x004, "I", 0x0FA00000)  # TickCountMultiplier
    put_time(0x008, shared.interrupt_time)
    put_time(0x014, shared.system_time)
    put_time(0x020, shared.time_zone_bias & (1 << 64) - 1)
    put(0x02C, "HH", 0x8664, 0x8664)
    root = SYSTEM_ROOT.encode("utf-16-le")
    page[0x030 : 0x030 + len(root)] = root
    nt_version = (10, 0) if shared.build >= _WINDOWS_10 else profile.nt_version
    if nt_version >= (10, 0):
        put(0x260, "I", shared.build | (0xC if profile.checked else 0xF) << 28)
    put(0x264, "I", shared.product_type)
    put(0x268, "B", 1)
    put(0x26A, "H", 9)  # NativeProcessorArchitecture: AMD64
    put(0x26C, "II", *nt_version)
    for feature in (2, 3, 6, 8, 9, 10, 12, 13, 14, 17, 20, 22, 23):
        put(0x274 + feature, "B", 1)
    put(0x2D0, "I", shared.suite_mask)
    put(0x2D4, "B", shared.kd_debugger_enabled)
    put(0x2E8, "I", shared.physical_pages & 0xFFFFFFFF)
    put(0x320, "Q", shared.interrupt_time // _TICK)
    put(0x3C0, "I", shared.processors)
    put(0x3C4, "B", (shared.processors + 63) // 64)
    return bytes(page)
