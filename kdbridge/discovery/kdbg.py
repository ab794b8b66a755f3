"""Finding the KDBG: through the list of debugger data, beside the module list, in the kernel's data, or encoded."""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing

from kdbridge.source import Source
from kdbridge.target import Kdbg
from protocol.arch import pointer_size_of
from protocol.errors import LayoutError
from protocol.layouts.kdbg import KDBG_TAG, LARGEST_SIZE, SMALLEST_SIZE, parse_kdbg
from protocol.layouts.version import GetVersion64

from .notes import Notes, try_read

__all__ = ["block_at", "find_kdbg"]

_STEP = "KDBG"
_MOST_BLOCKS = 32
_NEIGHBOURHOOD = 0x8000
_CHUNK = 0x8000
_MOST_SCANNED = 2 << 20
_WRITABLE, _DISCARDABLE, _EXECUTABLE = 0x8000_0000, 0x0200_0000, 0x2000_0000
_MASK = (1 << 64) - 1
_TAG_BYTES = KDBG_TAG.to_bytes(4, "little")
_TAG_AT, _KERN_BASE_AT, _MODULE_LIST_AT = 0x10, 0x18, 0x48


async def find_kdbg(source: Source, version: GetVersion64, notes: Notes) -> Kdbg | None:
    """The block in plain, by the first way that leads to one. None: no way did, and notes say what that costs."""
    width = pointer_size_of(version.machine_type)
    candidates, problem = await _listed(source, version)
    for address, tag in candidates:
        if tag == KDBG_TAG and (found := await block_at(source, address, width)) is not None:
            notes.found(_STEP, f"at {address:#x}, in the list of debugger data")
            return found
    for address, tag in candidates:
        if tag != KDBG_TAG and (found := await _encoded(source, address, version)) is not None:
            notes.found(
                _STEP, f"at {address:#x}, in the list of debugger data; encoded, and decoded by what it must hold"
            )
            return found
    # Only now: an encoded block hides the links in it, and such a list ends there as it should.
    if problem:
        notes.missing("list of debugger data", f"{problem}; searching for the KDBG instead")
    async with aclosing(_regions(source, version)) as regions:
        async for where, start, data in regions:
            for address in _plain_places(start, data):
                found = await block_at(source, address, width)
                if found is not None and _is_kernels(found, version):
                    notes.found(_STEP, f"at {address:#x}, by its tag {where}")
                    return found
            for address in _encoded_places(start, data, version):
                if (found := await _encoded(source, address, version)) is not None:
                    notes.found(_STEP, f"at {address:#x}, {where}; encoded, and decoded by what it must hold")
                    return found
    notes.missing(_STEP, "not found, plain or encoded: the kernel's own account of itself is lacking")
    return None


def _is_kernels(found: Kdbg, version: GetVersion64) -> bool:
    """Whether a block that was come upon is of this kernel. A damaged dump may not tell where that is."""
    if version.kern_base:
        return found.block["kern_base"] in (version.kern_base, 0)
    return found.block["ps_loaded_module_list"] == version.ps_loaded_module_list


async def _listed(source: Source, version: GetVersion64) -> tuple[list[tuple[int, int]], str]:
    """(address, tag) of the blocks in the list, and what is wrong with it. Its head holds two links and is no block."""
    head = version.debugger_data_list
    if not head:
        return [], "the version packet names none"
    blocks: list[tuple[int, int]] = []
    at = head
    seen = {head}
    for _ in range(_MOST_BLOCKS):
        data = await try_read(source, at, 0x18)
        if data is None:
            return blocks, f"broken at {at:#x}"
        link = int.from_bytes(data[: pointer_size_of(version.machine_type)], "little")
        tag = int.from_bytes(data[_TAG_AT : _TAG_AT + 4], "little")
        if at != head:
            blocks.append((at, tag))
        elif tag == KDBG_TAG:
            # Some kernels give the block itself where others give the head of the list.
            blocks.append((at, tag))
        if link in seen:
            break
        seen.add(link)
        at = link
    return blocks, ""


async def block_at(source: Source, address: int, pointer_size: int = 8) -> Kdbg | None:
    """The plain block at this address; None where there is none."""
    head = await try_read(source, address, 0x18)
    if head is None:
        return None
    size = int.from_bytes(head[0x14:0x18], "little")
    if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        return None
    data = await try_read(source, address, size)
    if data is None:
        return None
    try:
        return Kdbg(address, parse_kdbg(data, address, pointer_size), encoded=False)
    except LayoutError:
        return None


def _rotate(value: int, count: int) -> int:
    return (value << count | value >> 64 - count) & _MASK


def _swap(value: int) -> int:
    return int.from_bytes(value.to_bytes(8, "little"), "big")


def _keys(q_base: int, q_list: int, version: GetVersion64) -> list[tuple[int, int]]:
    """(rotation, constant) that turn two encoded words into the two that the version packet names.

    Encoding is x = bswap(rotl(v ^ never, r) ^ address) ^ always: for one block that is bswap(rotl(v, r)) ^ K with a
    single constant K (kd-protocol 6.5). So two known words give r, and one of them K: no symbols are needed.
    """
    difference = _swap(version.kern_base ^ version.ps_loaded_module_list)
    return [
        (rotation, _swap(_rotate(q_base, rotation)) ^ version.kern_base)
        for rotation in range(64)
        if _rotate(q_base ^ q_list, rotation) == difference
    ]


async def _encoded(source: Source, address: int, version: GetVersion64) -> Kdbg | None:
    data = await try_read(source, address, SMALLEST_SIZE & ~7)
    if data is None:
        return None
    words = struct.unpack(f"<{len(data) // 8}Q", data)
    for rotation, constant in _keys(words[_KERN_BASE_AT // 8], words[_MODULE_LIST_AT // 8], version):
        head = _swap(_rotate(words[_TAG_AT // 8], rotation)) ^ constant
        size = head >> 32
        if head & 0xFFFF_FFFF != KDBG_TAG or not SMALLEST_SIZE <= size <= LARGEST_SIZE:
            continue
        whole = await try_read(source, address, size & ~7)
        if whole is None:
            continue
        plain = b"".join(
            (_swap(_rotate(word, rotation)) ^ constant).to_bytes(8, "little")
            for word in struct.unpack(f"<{len(whole) // 8}Q", whole)
        )
        try:
            return Kdbg(address, parse_kdbg(plain, address), encoded=True)
        except LayoutError:
            continue
    return None


async def _regions(source: Source, version: GetVersion64) -> AsyncGenerator[tuple[str, int, bytes], None]:
    """Where a KDBG may lie, nearest first: (in words, address, bytes)."""
    if version.ps_loaded_module_list:
        start = max(version.ps_loaded_module_list - _NEIGHBOURHOOD & ~0xFFF, 0)
        for at in range(start, start + 2 * _NEIGHBOURHOOD, 0x1000):
            data = await try_read(source, at, 0x1000)
            if data is not None:
                tail = await try_read(source, at + 0x1000, LARGEST_SIZE) or b""
                yield "near the module list", at, data + tail
    scanned = 0
    for name, start, size in await _data_sections(source, version.kern_base):
        for at in range(start, start + size, _CHUNK):
            if scanned >= _MOST_SCANNED:
                return
            length = min(_CHUNK, start + size - at)
            scanned += length
            for place, data in await _readable(source, at, length):
                tail = await try_read(source, place + len(data), LARGEST_SIZE) or b""
                yield f"in the kernel's section {name}", place, data + tail


async def _readable(source: Source, start: int, size: int) -> list[tuple[int, bytes]]:
    """These bytes; where not all of them are there, the pages that are: one that is paged out hides no others."""
    data = await try_read(source, start, size)
    if data is not None:
        return [(start, data)]
    parts: list[tuple[int, bytes]] = []
    at = start
    while at < start + size:
        length = min(0x1000 - at % 0x1000, start + size - at)
        data = await try_read(source, at, length)
        if data is not None:
            parts.append((at, data))
        at += length
    return parts


async def _data_sections(source: Source, base: int) -> list[tuple[str, int, int]]:
    """(name, address, size) of the kernel image's sections that hold variables."""
    headers = await try_read(source, base, 0x1000)
    if headers is None or headers[:2] != b"MZ":
        return []
    at = int.from_bytes(headers[0x3C:0x40], "little")
    if at > 0xE00 or headers[at : at + 4] != b"PE\0\0":
        return []
    count = int.from_bytes(headers[at + 6 : at + 8], "little")
    table = at + 24 + int.from_bytes(headers[at + 20 : at + 22], "little")
    sections: list[tuple[str, int, int]] = []
    for entry in range(table, min(table + 40 * count, len(headers) - 39), 40):
        name, size, rva = struct.unpack_from("<8sII", headers, entry)
        flags = int.from_bytes(headers[entry + 36 : entry + 40], "little")
        if flags & _WRITABLE and not flags & (_DISCARDABLE | _EXECUTABLE):
            sections.append((name.rstrip(b"\0").decode("ascii", "replace"), base + rva, size))
    return sections


def _plain_places(start: int, data: bytes) -> list[int]:
    places: list[int] = []
    at = data.find(_TAG_BYTES)
    while at >= 0 and len(places) < 64:
        if at >= _TAG_AT and (start + at) % 8 == 0:
            places.append(start + at - _TAG_AT)
        at = data.find(_TAG_BYTES, at + 1)
    return places


def _encoded_places(start: int, data: bytes, version: GetVersion64) -> list[int]:
    """Where two words differ by a rotation of what KernBase and PsLoadedModuleList differ by."""
    difference = _swap(version.kern_base ^ version.ps_loaded_module_list)
    if not difference:
        return []
    wanted = {_rotate(difference, rotation) for rotation in range(64)}
    words = struct.unpack_from(f"<{len(data) // 8}Q", data)
    first, second = _KERN_BASE_AT // 8, _MODULE_LIST_AT // 8
    return [
        start + 8 * index
        for index in range(len(words) - second)
        if words[index + first] ^ words[index + second] in wanted
    ][:64]
