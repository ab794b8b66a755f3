"""What every step of discovery shares: reading without dying of a hole, and telling what was found."""

from __future__ import annotations

from collections.abc import Callable

from kdbridge.errors import MemoryFault, TargetRefusedError
from kdbridge.source import Source
from kdbridge.target import Finding
from protocol.address import PAGE_SIZE, VirtualAddress
from protocol.layouts.kernel import LARGEST_NAME

__all__ = ["Notes", "read_string", "readable_end", "try_read", "try_read_pointer"]


class Notes:
    """The findings, in order. Nothing that is missing is missing in silence."""

    __slots__ = ("_report", "findings")

    def __init__(self, report: Callable[[Finding], None] | None) -> None:
        self.findings: list[Finding] = []
        self._report = report

    def found(self, step: str, text: str) -> None:
        """A step that worked, and how."""
        self._add(Finding(step, True, text))

    def missing(self, step: str, text: str) -> None:
        """A step that did not, and what that costs."""
        self._add(Finding(step, False, text))

    def _add(self, finding: Finding) -> None:
        self.findings.append(finding)
        if self._report is not None:
            self._report(finding)


async def try_read(source: Source, address: int, size: int) -> bytes | None:
    """These bytes of virtual memory, or None where not all of them are there."""
    if not address or size < 0 or address + size > 1 << 64:
        return None
    try:
        return await source.virtual.read(VirtualAddress(address), size)
    except (MemoryFault, TargetRefusedError):
        return None


async def readable_end(source: Source, address: int, size: int) -> bytes:
    """As many of these bytes as can be read: all of them, or those up to the end of the first page."""
    size = min(size, (1 << 64) - address)
    data = await try_read(source, address, size)
    if data is not None:
        return data
    first = PAGE_SIZE - address % PAGE_SIZE
    return (await try_read(source, address, first) or b"") if first < size else b""


async def try_read_pointer(source: Source, address: int, size: int = 8) -> int | None:
    """The pointer at this address: 8 bytes, or on x86 4."""
    data = await try_read(source, address, size)
    return None if data is None else int.from_bytes(data, "little")


async def read_string(source: Source, address: int, length: int) -> str | None:
    """The text of a UNICODE_STRING: `length` bytes at `address`, 2 KiB at most. None where it cannot be read."""
    length = min(length, LARGEST_NAME) & ~1
    if not length:
        return ""
    data = await try_read(source, address, length)
    if data is None:
        return None
    return data.decode("utf-16-le", "replace").split("\0")[0]
