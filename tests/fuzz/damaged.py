"""Whole analyses of what is not a live x64 machine: dumps of every type and architecture, x86 and ARM64 memory.

An input is the number of a machine or file, and what is changed in it: lists that loop, sizes that lie, pointers to
anywhere, page tables that lead into themselves, a bug check that has nothing to do with the stack, a file that ends.
"""

from __future__ import annotations

import functools
import os
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import trio

from kdbridge.memory.files import DumpFile
from protocol.address import PAGE_SIZE, PageRuns
from protocol.dumpfile import DumpType, encode_header
from simulator.crashes import CRASHES
from tests.dumps import HEADER
from tests.fuzz.analysis import analysed
from tests.fuzz.driver import Target
from tests.fuzz.dumps import header_fields
from tests.fuzz.machines import (
    CHANGE,
    CODES,
    GONE,
    HALF,
    WORD,
    Laid,
    LaidSource,
    LyingMemory,
    arm64,
    crashed,
    interesting,
    narrow,
    narrow_machine,
)
from tests.fuzz.mutate import Field, hostile_number
from tests.hand_dumps import bitmap, complete, header32, old_small32, ranges, summary
from tests.simulator.dumped import header_of, with_true_contexts

__all__ = ["DAMAGED", "DamagedFiles", "LyingMachines"]

_PATCH = struct.Struct("<IBQ")
"""Offset in the file, width, value. With a width of 0 the file ends there."""
_MOST_CHANGES = 16
_Groups = Sequence[Sequence[int]]


def _anything(rng: random.Random, alike: Sequence[int], groups: _Groups, width: int) -> int:
    """What a word becomes: an address of its own kind (lists loop), of any kind, or a number that lies."""
    kind = rng.randrange(5)
    if kind < 2:
        return rng.choice(alike if kind else rng.choice(groups)) + rng.choice((0, 0, 0, -width, width, 1))
    return hostile_number(rng, width, rng.choice((0, 0x1000, 0x10000)))


class LyingMachines:
    """Machines whose registers are true and whose memory lies."""

    def __init__(self, machines: Sequence[Laid]) -> None:
        self.machines = machines
        self.pages = [one.pages for one in machines]

    def make(self, rng: random.Random) -> bytes:
        number = rng.randrange(len(self.machines))
        machine, pages = self.machines[number], list(self.pages[number])
        width = machine.architecture.pointer_size
        changes: list[tuple[int, int, int]] = []
        if rng.getrandbits(1):
            changes.append((WORD, machine.bug_check, rng.choice(CODES)))
            for at in range(1, 5):
                value = _anything(rng, machine.words[0], machine.words, width)
                changes.append((WORD, machine.bug_check + at * width, value))
        for _ in range(1 + rng.randrange(_MOST_CHANGES)):
            alike = rng.choice(machine.words)
            address = rng.choice(alike) if rng.randrange(8) else rng.choice(pages) + width * rng.randrange(512)
            kind = GONE if not rng.randrange(16) else rng.choice((WORD, WORD, WORD, HALF))
            if rng.randrange(4):
                value = _anything(rng, alike, machine.words, width)
            else:  # what stands in another place of its kind: circles
                other = rng.choice(alike)
                page = self.pages[number].get(other & -PAGE_SIZE, b"")
                value = int.from_bytes(page[other % PAGE_SIZE :][:width], "little")
            changes.append((kind, address, value))
        return bytes([number]) + b"".join(CHANGE.pack(kind, at, value % (1 << 64)) for kind, at, value in changes)

    def source(self, data: bytes) -> LaidSource:
        number = data[0] % len(self.machines)
        machine = self.machines[number]
        return LaidSource(machine, LyingMemory(self.pages[number], data[1:], machine.architecture.pointer_size))

    def run(self, data: bytes) -> None:
        trio.run(analysed, self.source(data))


class _File:
    """A good dump: its bytes, and the places in it of numbers that lead somewhere, by kinds."""

    def __init__(self, data: bytes, memory: Mapping[int, bytes], words: _Groups, frame_of: Callable[[int], int | None],
                 width: int) -> None:  # fmt: skip
        self.data, self.width, self.words = data, width, words
        first = len(data) - PAGE_SIZE * len(memory)
        offsets = {frame: first + PAGE_SIZE * number for number, frame in enumerate(sorted(memory))}
        self.groups: list[list[Field]] = [[field for field in header_fields(data) if field[0] < first]]
        for group in words:
            found = [(frame_of(word & -PAGE_SIZE), word % PAGE_SIZE) for word in group]
            places = [(offsets[frame] + at, width) for frame, at in found if frame in offsets]
            if places:
                self.groups.append(places)


def _tables(file: _File, memory: Mapping[int, bytes], places: Sequence[tuple[int, int]]) -> None:
    """Entries in use of page tables are places, too. Tables are told by their physical addresses and sizes."""
    first = len(file.data) - PAGE_SIZE * len(memory)
    offsets = {frame: first + PAGE_SIZE * number for number, frame in enumerate(sorted(memory))}
    starts = [
        (offsets[place // PAGE_SIZE] + place % PAGE_SIZE, size)
        for place, size in places
        if place // PAGE_SIZE in offsets
    ]
    step = file.width
    entries = [at for start, size in starts for at in range(start, start + size, step) if file.data[at] & 1]
    file.groups.append([(at, step) for at in entries])


class DamagedFiles:
    """Dumps, damaged, and analysed."""

    def __init__(self, folder: Path, files: Sequence[_File]) -> None:
        self.files = files
        self.paths = [folder / f"{number}.dmp" for number in range(len(files))]
        for path, file in zip(self.paths, files, strict=True):
            path.write_bytes(file.data)

    def make(self, rng: random.Random) -> bytes:
        number = rng.randrange(len(self.files))
        file = self.files[number]
        parts = [bytes([number])]
        # A header that lies hides everything else, so every other input leaves it as it is.
        in_header = rng.getrandbits(1)
        for change in range(1 + rng.randrange(_MOST_CHANGES)):
            group = file.groups[0] if in_header and not change else rng.choice(file.groups[1:])
            at, width = rng.choice(group) if rng.randrange(10) else (rng.randrange(len(file.data) - 8), file.width)
            kind = rng.randrange(4)
            if kind == 0:  # what stands in another place of its kind: circles, and tables that lead into each other
                other, length = rng.choice(group)
                value = int.from_bytes(file.data[other : other + length], "little")
            elif kind == 1:
                value = int.from_bytes(file.data[at : at + width], "little") ^ 1 << rng.randrange(8 * width)
            else:
                value = _anything(rng, rng.choice(file.words), file.words, width)
            parts.append(_PATCH.pack(at, width, value % (1 << 8 * width)))
        if not rng.randrange(10):
            parts.append(_PATCH.pack(rng.randrange(len(file.data)), 0, 0))
        return b"".join(parts)

    def run(self, data: bytes) -> None:
        number = data[0] % len(self.files)
        path, good = self.paths[number], self.files[number].data
        size = len(good)
        changed: list[tuple[int, int]] = []
        fd = os.open(path, os.O_RDWR)
        try:
            for at, width, value in _PATCH.iter_unpack(data[1 : 1 + (len(data) - 1) // _PATCH.size * _PATCH.size]):
                if width == 0:
                    size = min(size, at)
                elif at + width <= len(good):
                    changed.append((at, at + width))
                    os.pwrite(fd, value.to_bytes(8, "little")[:width].ljust(width, b"\0"), at)
            if size < len(good):
                os.ftruncate(fd, size)
                changed.append((size, len(good)))
            with DumpFile(path) as dump:
                trio.run(analysed, dump)
        finally:
            for start, end in changed:
                os.pwrite(fd, good[start:end], start)
            os.close(fd)


@functools.cache
def _wide() -> tuple[_File, ...]:
    """64-bit dumps of every type that holds pages, each of a machine that crashed in another way."""
    made: list[_File] = []
    for kind, code in zip((1, 2, 5, 6, 8, 9, 0xA), CRASHES, strict=False):
        kernel = crashed(code)
        image = with_true_contexts(kernel)
        # A header has room for 42 runs: of a complete dump's memory, all is in the file.
        frames = kernel.image.runs.pages() if kind == 1 else image.content_pages()
        memory = {frame: data for frame in frames if (data := image.read_page(frame)) is not None}
        header = replace(header_of(kernel), dump_type=DumpType(kind), physical_memory=tuple(kernel.image.runs))
        data = _written(kind, bytearray(encode_header(header)), memory)

        @functools.cache
        def frame_of(page: int, translate: Callable[[int], int | None] = kernel.tables.translate) -> int | None:
            found = translate(page)
            return None if found is None else found // PAGE_SIZE

        file = _File(data, memory, tuple(interesting(kernel)), frame_of, 8)
        _tables(
            file, memory, [(page << 12, PAGE_SIZE) for process in kernel.processes for page in process.tables.pages]
        )
        made.append(file)
    return tuple(made)


def _written(kind: int, header: bytearray, memory: Mapping[int, bytes]) -> bytes:
    if kind == 1:
        return complete(header, memory)
    if kind == 2:
        return summary(header, memory)
    if kind in (5, 6):
        return bitmap(header, memory, b"FDMP" if kind == 5 else b"SDMP")
    return ranges(header, memory, kind)


def _of_laid(laid: Laid, data: bytes) -> _File:
    file = _File(data, laid.memory, laid.words, laid.frames.get, laid.architecture.pointer_size)
    used = set(laid.frames.values())
    # What no page is mapped to is noise or a table; PAE's top one lies within noise.
    tables = [
        (frame << 12, PAGE_SIZE) for frame, page in laid.memory.items() if frame not in used and page.count(0) > 2048
    ]
    _tables(file, laid.memory, [(laid.root, 32), *tables])
    return file


@functools.cache
def _narrow() -> tuple[_File, ...]:
    """32-bit dumps, with PAE and without: types that hold pages, and the small one of old."""
    made: list[_File] = []
    for pae in (True, False):
        laid, machine = narrow(pae), narrow_machine(pae)
        made += [_of_laid(laid, _written(kind, header32(machine, kind), laid.memory)) for kind in (1, 2, 5)]
        small = _File(old_small32(machine), {}, laid.words, laid.frames.get, 4)
        first = 0x1000
        small.groups.append([(at, 4) for at in range(first, first + 0x68, 4)])
        small.groups.append(
            [(at, 4) for at in range(first + 0x68, len(small.data) - 4, 4) if any(small.data[at : at + 4])]
        )
        made.append(small)
    return tuple(made)


@functools.cache
def _arm64() -> tuple[_File, ...]:
    laid = arm64()
    header = replace(
        HEADER, dump_type=DumpType.FULL, machine_image_type=0xAA64, number_processors=len(laid.contexts),
        directory_table_base=laid.root, physical_memory=tuple(PageRuns.from_pages(laid.memory)),
        ps_loaded_module_list=laid.version.ps_loaded_module_list, context_record=laid.contexts[0],
        ps_active_process_head=crashed(0xD1).symbols["PsActiveProcessHead"],
        kd_debugger_data_block=crashed(0xD1).kdbg_address,
    )  # fmt: skip
    return (_of_laid(laid, complete(bytearray(encode_header(header)), laid.memory)),)


DAMAGED = (
    Target("analysis-wide", 2, lambda folder: DamagedFiles(folder, _wide())),
    Target("analysis-narrow", 3, lambda folder: DamagedFiles(folder, _narrow())),
    Target("analysis-arm64", 1, lambda folder: DamagedFiles(folder, _arm64())),
    Target("analysis-x86-memory", 2, lambda _folder: LyingMachines((narrow(True), narrow(False))), refuses=False),
    Target("analysis-arm64-memory", 1, lambda _folder: LyingMachines((arm64(),)), refuses=False),
)
