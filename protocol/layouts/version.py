"""DBGKD_GET_VERSION64: who the target is (kd-protocol 3.3)."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from protocol.errors import LayoutError

__all__ = ["GetVersion64", "SystemType", "VersionFlag"]

_LAYOUT = struct.Struct("<HHBBHHBBBBHQQQ")
assert _LAYOUT.size == 40


class SystemType(enum.IntEnum):
    """High byte of MajorVersion: what speaks on the other side. Only NT has a kernel to dump."""

    NT = 0
    XBOX = 1
    BIG = 2
    EXDI = 3
    NT_BOOT_DEBUGGER = 4
    EFI = 5
    TNT = 6
    SINGULARITY = 7
    HYPERVISOR = 8
    MIDORI = 9


class VersionFlag(enum.IntFlag):
    """Bits of Flags. A boot debugger sets DATA without data and leaves PTR64 out: probe, do not trust (T50)."""

    MP = 0x01
    DATA = 0x02
    PTR64 = 0x04
    NOMM = 0x08
    HSS = 0x10
    PARTITIONS = 0x20
    HAL_IN_NTOS = 0x40


@dataclass(frozen=True, slots=True)
class GetVersion64:
    """The version packet. Addresses are 64 bits wide on every architecture (x86: sign-extended)."""

    major_version: int
    minor_version: int
    protocol_version: int
    kd_secondary_version: int
    flags: int
    machine_type: int
    max_packet_type: int
    max_state_change: int
    max_manipulate: int
    simulation: int
    kern_base: int
    ps_loaded_module_list: int
    debugger_data_list: int

    @property
    def build(self) -> int:
        """Build number, such as 19041."""
        return self.minor_version

    @property
    def checked(self) -> bool:
        """A checked (debug) build: low byte of MajorVersion is 0C instead of 0F."""
        return self.major_version & 0xFF == 0x0C

    @property
    def system_type(self) -> int:
        """A SystemType, or a number nobody documented."""
        return self.major_version >> 8

    def encode(self) -> bytes:
        """The 40 bytes that fill the union of a GetVersion reply."""
        return _LAYOUT.pack(
            self.major_version,
            self.minor_version,
            self.protocol_version,
            self.kd_secondary_version,
            self.flags,
            self.machine_type,
            self.max_packet_type,
            self.max_state_change,
            self.max_manipulate,
            self.simulation,
            0,
            self.kern_base,
            self.ps_loaded_module_list,
            self.debugger_data_list,
        )

    @classmethod
    def decode(cls, data: bytes | memoryview) -> GetVersion64:
        """Raises LayoutError when fewer than 40 bytes are there."""
        if len(data) < _LAYOUT.size:
            raise LayoutError("DBGKD_GET_VERSION64", f"only {len(data)} of {_LAYOUT.size} bytes are there")
        fields = _LAYOUT.unpack_from(data)
        return cls(*fields[:10], *fields[11:])
