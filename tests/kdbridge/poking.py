"""Breaking a simulated machine's memory on purpose, before anybody reads it."""

from __future__ import annotations

from protocol.address import PAGE_SIZE
from simulator.kernel import SimulatedKernel

__all__ = ["peek", "poke", "poke_pointer", "unmap"]


def poke(kernel: SimulatedKernel, address: int, data: bytes) -> None:
    """Write to kernel memory, page by page."""
    at = 0
    while at < len(data):
        length = min(len(data) - at, PAGE_SIZE - (address + at & PAGE_SIZE - 1))
        physical = kernel.tables.translate(address + at)
        assert physical is not None, f"{address + at:#x} is not mapped"
        assert kernel.image.write(physical, data[at : at + length])
        at += length


def poke_pointer(kernel: SimulatedKernel, address: int, value: int) -> None:
    poke(kernel, address, value.to_bytes(8, "little"))


def peek(kernel: SimulatedKernel, address: int) -> int:
    """The 64-bit word at this address."""
    data = kernel.read_virtual(address, 8)
    assert data is not None
    return int.from_bytes(data, "little")


def unmap(kernel: SimulatedKernel, address: int) -> None:
    """Make the page at this address unreadable: its frame fails."""
    physical = kernel.tables.translate(address)
    assert physical is not None
    kernel.image.unreadable.add(physical // PAGE_SIZE)
