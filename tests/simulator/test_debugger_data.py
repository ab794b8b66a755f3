"""The block a kernel of each age publishes: which fields it has, which of them are null, and its encoded form."""

from __future__ import annotations

import struct

import pytest

from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from simulator.profile import PROFILES, kdbg_size_for, profile_for


def _block(build: int, size: int | None = None) -> tuple[SimulatedKernel, bytes]:
    kernel = build_kernel(KernelOptions(build=build, processors=1, memory_size=32 << 20, kdbg_size=size))
    return kernel, kernel.kdbg.raw


def _qword(block: bytes, offset: int) -> int:
    return int(struct.unpack_from("<Q", block, offset)[0])


def _word(block: bytes, offset: int) -> int:
    return int(struct.unpack_from("<H", block, offset)[0])


def test_19041_has_what_a_real_one_has() -> None:
    """Values that dump-formats 5 read out of a real system."""
    kernel, block = _block(19041)
    assert len(block) == 0x380
    words = {0x2BC: 0x1F0, 0x2F2: 0x100, 0x338: 0x85C0, 0x2BE: 0x24, 0x2B4: 8, 0x2E6: 0x180, 0x2F4: 0x10, 0x2F6: 0x18,
             0x2FA: 0x33, 0x2FC: 0x2B, 0x302: 0x40, 0x304: 0x23, 0x306: 0x53, 0x2AE: 0x28}  # fmt: skip
    assert {offset: _word(block, offset) for offset in words} == words
    longs = struct.unpack_from("<4I", block, 0x340)
    assert longs == (0x30, 0x38, 0x208, 0x4B0)
    assert _qword(block, 0x360) == kernel.pte_base
    # The memory manager keeps these in structures without names since Windows 8.
    for offset in (0x0A8, 0x0C8, 0x110, 0x118, 0x120, 0x128, 0x148, 0x1A8, 0x278):
        assert _qword(block, offset) == 0
    for offset in (0x048, 0x050, 0x058, 0x088, 0x0C0, 0x1C8, 0x1D0, 0x208, 0x218, 0x220, 0x228, 0x270):
        assert _qword(block, offset) >> 47 == 0x1FFFF


def test_server_2003_has_the_old_variables_and_no_pointer_to_a_context() -> None:
    kernel, block = _block(3790)
    assert len(block) == 0x318
    assert _word(block, 0x2BC) == 0x120 and _word(block, 0x2F2) == 0x40  # ProcessorState at 40 (kd-protocol 5.5)
    for offset in (0x0A8, 0x110, 0x118, 0x120, 0x128, 0x0E8, 0x0F0):
        assert _qword(block, offset), hex(offset)
    start = kernel.read_virtual(_qword(block, 0x110), 8)
    assert start is not None and int.from_bytes(start, "little") >> 47 == 0x1FFFF


@pytest.mark.parametrize("size", [0x208, 0x290, 0x340, 0x360, 0x368, 0x380, 0x3A0])
def test_a_size_may_be_asked_for(size: int) -> None:
    kernel, block = _block(19041, size)
    assert len(block) == size and struct.unpack_from("<I", block, 0x14)[0] == size
    assert kernel.read_virtual(kernel.kdbg_address, size) == block


def test_a_build_between_two_has_the_older_one_s_size() -> None:
    assert [kdbg_size_for(build) for build in (3789, 3790, 5999, 15063, 20348, 26100)] == [
        0x318, 0x318, 0x318, 0x368, 0x380, 0x3A0,
    ]  # fmt: skip
    assert [profile_for(build).build for build in (3000, 7000, 10586, 17763, 30000)] == [3790, 7601, 9600, 19041, 22621]
    assert [profile.first_build for profile in PROFILES] == sorted(profile.first_build for profile in PROFILES)


def test_structures_of_the_reference_are_where_it_says() -> None:
    """kd-protocol 5.4 and 5.5."""
    for build, state, size, context in (
        (3790, 0x40, 0xD8, None),
        (7601, 0x40, 0xD8, 0x4BD8),
        (9600, 0x40, 0xE0, 0x5980),
        (19041, 0x100, 0xF0, 0x85C0),
    ):
        prcb = profile_for(build).prcb
        assert (prcb.special_registers, prcb.special_registers_size, prcb.context) == (state, size, context)
        assert prcb.context_frame == state + (0xF0 if state == 0x100 else 0xE0)
