"""The kernel's buffer of debug prints: DbgPrint of the kernel and its drivers, whether a debugger listened or not."""

from __future__ import annotations

from kdbridge.discovery.notes import try_read, try_read_pointer
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import PAGE_SIZE, format_address
from protocol.structure import Structure

from .model import Missing
from .shortcomings import unreadable

__all__ = ["LARGEST_PRINT_BUFFER", "print_buffer"]

LARGEST_PRINT_BUFFER = 1 << 20
"""Bytes that are read at most. The kernel's own has 4 to 64 KiB until somebody enlarges it."""


_WHAT = "the kernel's print buffer"


async def print_buffer(source: Source, target: Target) -> tuple[str | None, tuple[Missing, ...]]:
    """What was printed, the oldest first, without NULs (None: it cannot be told), and what of it is missing.

    Of a buffer that never was full only the part that was written is read. Pages that cannot be read are told in it.
    """
    if target.kdbg is None:
        return None, (Missing(_WHAT, "without the KDBG nothing tells where it is"),)
    block, width = target.kdbg.block, target.pointer_size
    for start, size in await _places(source, block, width):
        written = await _write_pointer(source, block, width, start, size)
        if written is None:
            continue
        rollovers = await try_read_pointer(source, block["kd_print_rollover_count"], 4)
        gone: list[tuple[int, int]] = []
        pieces = [await _read(source, start, written, gone)]
        if rollovers:
            pieces.insert(0, await _read(source, start + written, size - written, gone))
        if all(piece is None for piece in pieces):
            return None, (Missing(_WHAT, f"it lies at {format_address(start)}, which cannot be read", tuple(gone)),)
        missing = (Missing(_WHAT, "parts of it cannot be read", tuple(gone)),) if gone else ()
        return "".join(piece for piece in pieces if piece is not None), missing
    return None, (await _no_place(source, block, width),)


async def _no_place(source: Source, block: Structure, width: int) -> Missing:
    wanted = (("kd_print_write_pointer", width), ("kd_print_circular_buffer_ptr", width), ("kd_print_buffer_size", 4))
    told = [(block[name], size) for name, size in wanted if block[name]]
    if not block["kd_print_write_pointer"]:
        return Missing(_WHAT, "the KDBG does not tell where it is")
    gone = await unreadable(source, *told)
    if gone:
        return Missing(_WHAT, "the variables that tell where it is cannot be read", gone)
    return Missing(_WHAT, "what the kernel's variables tell of its place, its size and its end does not fit together")


async def _places(source: Source, block: Structure, width: int) -> list[tuple[int, int]]:
    """(address, size) of the buffer, the likeliest first.

    The buffer that is in use is what KdPrintCircularBuffer points to, of KdPrintBufferSize bytes. The two older fields
    are its first and its end, by all that is known themselves; that they are variables is tried, too.
    """
    first, end = block["kd_print_circular_buffer"], block["kd_print_circular_buffer_end"]
    told = await try_read_pointer(source, block["kd_print_circular_buffer_ptr"], width)
    size = await try_read_pointer(source, block["kd_print_buffer_size"], 4) or 0
    places = [(told, size), (told, end - told)] if told else []
    places += [(first, size), (first, end - first)]
    inner, inner_end = [await try_read_pointer(source, at, width) or 0 for at in (first, end)]
    places += [(inner, size), (inner, inner_end - inner), (inner, end - inner)]
    return [(at, size) for at, size in places if at and 0 < size <= LARGEST_PRINT_BUFFER]


async def _write_pointer(source: Source, block: Structure, width: int, start: int, size: int) -> int | None:
    """How far into the buffer the next print goes; None where it goes elsewhere."""
    at = await try_read_pointer(source, block["kd_print_write_pointer"], width)
    for pointer in (at, block["kd_print_write_pointer"]):
        if pointer is not None and start <= pointer <= start + size:
            return pointer - start
    return None


async def _read(source: Source, start: int, size: int, gone: list[tuple[int, int]]) -> str | None:
    """The text; None where none of it can be read. What cannot is added to `gone`."""
    parts: list[str] = []
    read = size == 0
    data = await try_read(source, start, size)
    if data is not None:
        return _text(data)
    at = start
    while at < start + size:
        length = min(PAGE_SIZE - at % PAGE_SIZE, start + size - at)
        piece = await try_read(source, at, length)
        if piece is None:
            first = gone.pop()[0] if gone and sum(gone[-1]) == at else at
            gone.append((first, at + length - first))
        parts.append(f"\n[{length} bytes at {at:#x} cannot be read]\n" if piece is None else _text(piece))
        read = read or piece is not None
        at += length
    return "".join(parts) if read else None


def _text(data: bytes) -> str:
    return data.replace(b"\0", b"").decode("utf-8", "replace")
