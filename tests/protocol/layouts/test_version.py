"""The version packet: the offsets of kd-protocol 3.3, and three real targets' bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LayoutError
from protocol.layouts.version import GetVersion64, SystemType, VersionFlag
from protocol.manipulate import ApiNumber, Manipulate
from tests.protocol.kdnet_capture import Captured
from tests.protocol.reference import number, tables

_SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}

# The bytes of Windows 8.1 that the reference quotes, and its addresses (kdnet 9.4).
_WINDOWS_8_1 = bytes.fromhex("0F0080250602070064860C0331000000") + b"".join(
    address.to_bytes(8, "little") for address in (0xFFFFF8026BC18000, 0xFFFFF8026BEE22D0, 0xFFFFF8026BEF91F0)
)


def test_every_field_stands_where_the_reference_says(shared: Path) -> None:
    raw = bytes(range(0x81, 0x81 + 40))
    version = GetVersion64.decode(raw)
    (rows,) = tables(shared, "3.3")
    published = [
        int.from_bytes(raw[number(at) :][: _SIZES[size]], "little") for at, _, size, name, _ in rows if name != "Unused"
    ]
    assert [getattr(version, name) for name in GetVersion64.__slots__] == published
    assert len(published) == 13
    # Unused is written as zero.
    assert version.encode() == raw[:14] + bytes(2) + raw[16:]


def test_a_windows_8_1() -> None:
    version = GetVersion64.decode(_WINDOWS_8_1)
    assert (version.build, version.checked, version.system_type) == (9600, False, SystemType.NT)
    assert VersionFlag(version.flags) == VersionFlag.MP | VersionFlag.DATA | VersionFlag.PTR64
    assert (version.max_packet_type, version.max_state_change, version.max_manipulate) == (12, 3, 0x31)
    assert version.encode() == _WINDOWS_8_1


def test_a_boot_debugger(captured: list[Captured]) -> None:
    replies = [p for p in captured if p.said["api"] == "GetVersion" and not p.from_host]
    reply, said = Manipulate.decode(replies[0].payload), replies[0].params
    version = GetVersion64.decode(reply.union)
    assert version.encode() == reply.union
    assert (version.major_version, version.build) == (said["major"], said["minor"]) == (0x40F, 10586)
    assert (version.system_type, version.checked) == (SystemType.NT_BOOT_DEBUGGER, False)
    # T50: the flag promises data, the list is null, and a 64-bit machine does not say so.
    assert VersionFlag(version.flags) == VersionFlag.DATA and version.debugger_data_list == 0
    assert (version.machine_type, version.kern_base) == (said["machine"], said["kern_base"]) == (0x8664, 0x96F000)
    # Whoever decodes the union by its own table finds the same numbers.
    fields = Manipulate(ApiNumber.GET_VERSION, union=reply.union).fields()
    assert fields["kern_base"] == version.kern_base and fields["version_flags"] == version.flags


def test_numbers_of_the_reference() -> None:
    assert [int(system) for system in SystemType] == list(range(10))
    assert [int(flag) for flag in VersionFlag] == [1, 2, 4, 8, 0x10, 0x20, 0x40]
    checked = GetVersion64.decode(b"\x0c" + _WINDOWS_8_1[1:])
    assert checked.checked and checked.system_type == SystemType.NT


@given(st.binary(min_size=40, max_size=60))
def test_any_forty_bytes_are_a_version(raw: bytes) -> None:
    version = GetVersion64.decode(raw)
    assert version.encode() == raw[:14] + bytes(2) + raw[16:40]
    assert GetVersion64.decode(memoryview(raw)) == version


@pytest.mark.parametrize("size", range(40))
def test_less_is_none(size: int) -> None:
    with pytest.raises(LayoutError, match=f"only {size} of 40"):
        GetVersion64.decode(_WINDOWS_8_1[:size])
