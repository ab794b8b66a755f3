"""Traps of sessions and versions (kd-protocol 8.4)."""

from __future__ import annotations

import pytest

from kdbridge.discovery import discover
from simulator.kernel import KernelOptions, build_kernel
from tests.kdbridge.simulated import SimulatedSource

# Sizes by build from kd-protocol 6.2; OffsetPrcbContext lies at 338 and came with Windows 7.
_SIZES = {
    3790: 0x318, 6000: 0x328, 6001: 0x330, 7601: 0x340, 9600: 0x360, 10586: 0x360, 14393: 0x368, 17134: 0x368,
    17763: 0x380, 19041: 0x380, 22000: 0x390, 22621: 0x3A0,
}  # fmt: skip


@pytest.mark.parametrize(("build", "size"), _SIZES.items())
async def test_t62_the_size_of_the_kdbg_decides_which_fields_exist(build: int, size: int) -> None:
    kernel = build_kernel(KernelOptions(build=build, processors=2, memory_size=32 << 20))
    found = await discover(SimulatedSource(kernel))
    assert found.kdbg is not None
    block = found.kdbg.block
    assert block["size"] == len(block.raw) == size
    assert block.has("offset_prcb_context") == (size >= 0x33A)
    assert block.has("pte_base") == (size >= 0x368)
    assert block.has("pointer_auth_mask") == (size >= 0x398)
    for processor, truth in zip(found.processors, kernel.processors, strict=True):
        assert processor.prcb == truth.prcb
        state = truth.prcb + kernel.profile.prcb.context_frame
        assert (processor.context_address == state) == (size < 0x33A)
        assert processor.context is not None and processor.context["rip"] == truth.context_values["rip"]
    assert [module.base for module in found.modules] == [module.base for module in kernel.modules]
