"""What kdbridge opens, damaged: dumps of a small machine, Snapshots, and the addresses that users write."""

from __future__ import annotations

import copy
import json
import os
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from kdbridge.discovery import discover
from kdbridge.dump import DumpKind, render
from kdbridge.dump.overlay import laid_over, overlay_for
from kdbridge.dump.verify import verify
from kdbridge.errors import MemoryFault
from kdbridge.memory.files import DumpFile
from kdbridge.plan import kernel_plan
from kdbridge.snapshot import PageState, Snapshot
from kdbridge.target import Target as FoundTarget
from kdbridge.target_json import target_to_json
from kdbridge.transports import parse_target
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns, VirtualAddress
from protocol.arch import AMD64
from protocol.dumpfile import DumpHeader, DumpType, ExceptionRecord
from protocol.dumpfile.plan import DumpPlan, plan_bitmap, plan_complete
from protocol.layouts.kdbg import KDDEBUGGER_DATA64
from protocol.layouts.kernel import KLDR_DATA_TABLE_ENTRY64
from simulator.errors import SimulationError
from simulator.from_file import machine_of_dump
from simulator.image import MemoryImage
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.dumps import written
from tests.fuzz.driver import Target
from tests.fuzz.dumps import header_fields
from tests.fuzz.mutate import Field, hostile_number, mutated, noise
from tests.kdbridge.simulated import SimulatedSource

__all__ = ["FILES"]

_PATCH = struct.Struct("<QB")
_CUT = 0xFF
_RENDERED_FRAMES, _RENDERED_RUNS, _RENDERED_EVERY = 0x1100, 1000, 16
"""What is written out as a dump, too: what takes long to write is no finding."""


_SMALL = KernelOptions(memory_size=16 << 20, processors=2, content_size=0)
_MACHINES = (
    (DumpType.FULL, _SMALL),
    (DumpType.BITMAP_FULL, replace(_SMALL, build=22621, encoded_kdbg=True)),
    (DumpType.BITMAP_KERNEL, replace(_SMALL, build=3790, stop="bugcheck-first")),
)


class _DumpFiles:
    """A whole machine in a dump file, in which some numbers that others depend on are lies.

    An input is the kind of the file, and patches: offset, size and bytes of each (size FF: the file ends there).
    """

    def __init__(self, folder: Path) -> None:
        self.paths: list[Path] = []
        self.places: list[list[Field]] = []
        self.known: list[list[int]] = []
        for kind, options in _MACHINES:
            kernel = build_kernel(options)
            header, runs = _header(kernel), kernel.image.runs
            if kind is DumpType.FULL:
                plan = plan_complete(header, runs)
            else:
                plan = plan_bitmap(header, runs, PageRuns.from_pages(kernel.image.content_pages()), kind)
            pages = {pfn: kernel.image.read_page(pfn) or b"" for pfn in plan.pages.pages()}
            self.paths.append(written(folder / f"{kind:X}.dmp", plan, pages))
            self.places.append(_places(kernel, plan))
            self.known.append(_known_numbers(kernel))
        self.originals = [path.read_bytes() for path in self.paths]

    def make(self, rng: random.Random) -> bytes:
        kind = rng.randrange(len(self.paths))
        places, original = self.places[kind], self.originals[kind]
        parts = [bytes([kind])]
        for _ in range(1 + rng.randrange(1 + rng.randrange(6))):
            at, width = rng.choice(places) if rng.randrange(8) else (rng.randrange(len(original) - 8), 8)
            if rng.getrandbits(1) and width == 8:
                data = rng.choice(self.known[kind]).to_bytes(8, "little")
            elif rng.randrange(4):
                data = hostile_number(rng, width, len(original)).to_bytes(width, "little")
            else:
                data = (int.from_bytes(original[at : at + width], "little") ^ 1 << rng.randrange(8 * width)).to_bytes(
                    width, "little"
                )
            parts.append(_PATCH.pack(at, width) + data)
        if not rng.randrange(6):
            parts.append(_PATCH.pack(rng.randrange(len(original)), _CUT))
        return b"".join(parts)

    def run(self, data: bytes) -> None:
        path, original = self.paths[data[0] % len(self.paths)], self.originals[data[0] % len(self.paths)]
        fd = os.open(path, os.O_RDWR)
        changed: list[tuple[int, int]] = []
        try:
            at = 1
            while at + _PATCH.size <= len(data):
                offset, width = _PATCH.unpack_from(data, at)
                at += _PATCH.size
                if width == _CUT:
                    os.ftruncate(fd, min(offset, len(original)))
                    changed.append((min(offset, len(original)), len(original)))
                elif offset + width <= len(original):
                    os.pwrite(fd, data[at : at + width], offset)
                    changed.append((offset, offset + width))
                    at += width
            try:
                served = machine_of_dump(lambda offset, size: os.pread(fd, size, offset), os.fstat(fd).st_size)
                served.target.handle_timeout(0.0)
                assert served.target.data_to_send()
            except SimulationError:
                pass
            with DumpFile(path) as dump:
                trio.run(self._look, dump, zlib.crc32(data))
        finally:
            for start, end in changed:
                os.pwrite(fd, original[start:end], start)
            os.close(fd)

    async def _look(self, dump: DumpFile, chance: int) -> None:
        verified = await verify(dump)
        await _look_around(dump, verified.target, chance)
        assert dump.held.page_count + dump.unreadable.page_count == dump.stored.page_count
        for run in list(dump.held)[:4]:
            assert len(dump.read_run(PageRun(run.base_page, min(run.page_count, 8)))) % PAGE_SIZE == 0


async def _look_around(source: DumpFile | Snapshot, target: FoundTarget, chance: int) -> None:
    """Everything that rendering and the command line read of it; now and then it is written out as a dump."""
    json.dumps(target_to_json(target), ensure_ascii=False).encode()
    small = target.runs is not None and target.runs.end_page < _RENDERED_FRAMES
    if small and len(source.held) < _RENDERED_RUNS and not chance % _RENDERED_EVERY:
        for kind in DumpKind:
            path = source.path.with_name("out.dmp")
            made = await render(source, target, path, kind=kind, partial=True, force=True)
            assert path.stat().st_size == made.size
    overlay = await overlay_for(source, target)
    assert overlay.frames <= (await laid_over(source, target)).frames
    pages = 0
    async for part in kernel_plan(source, target):
        pages += part.pages.page_count
    assert target.runs is not None and pages <= 4 * target.runs.page_count
    for module in target.modules[:4]:
        try:
            done = len(await source.virtual.read(VirtualAddress(module.base), 64)) - 1
        except MemoryFault as fault:
            done = fault.done
        assert 0 <= done < 64


def _header(kernel: SimulatedKernel) -> DumpHeader:
    stopped = kernel.processors[kernel.stopped_processor]
    code, one, two, three, four = kernel.bug_check
    return DumpHeader(
        minor_version=kernel.version.minor_version,
        directory_table_base=kernel.directory_table_base,
        ps_loaded_module_list=kernel.version.ps_loaded_module_list,
        ps_active_process_head=kernel.symbols["PsActiveProcessHead"],
        machine_image_type=0x8664,
        number_processors=len(kernel.processors),
        bug_check_code=code,
        bug_check_parameters=(one, two, three, four),
        kd_debugger_data_block=kernel.kdbg_address,
        context_record=stopped.context(),
        exception=ExceptionRecord(0x80000003, 1, 0, stopped.context_values["rip"]).encode(64),
    )


def _places(kernel: SimulatedKernel, plan: DumpPlan) -> list[Field]:
    """Offsets in the file of the numbers that a reader follows, each kind of them about as often as any other."""
    index = plan.index()

    def physical(address: int, width: int) -> list[Field]:
        offset = index.offset_of(address >> PAGE_SHIFT)
        return [] if offset is None else [(offset + (address & PAGE_SIZE - 1), width)]

    def virtual(address: int, width: int = 8) -> list[Field]:
        found = kernel.tables.translate(address)
        return [] if found is None else physical(found, width)

    block, symbols = kernel.kdbg_address, kernel.symbols
    groups: list[list[Field]] = [
        list(header_fields(b"".join(plan.prefix()))),
        [
            place
            for name in KDDEBUGGER_DATA64.fields
            for place in virtual(block + KDDEBUGGER_DATA64.offset_of(name), KDDEBUGGER_DATA64.size_of(name))
        ],
        [place for n in range(4) for place in virtual(symbols["KiProcessorBlock"] + 8 * n)],
        [
            place
            for processor in kernel.processors
            for offset in (0, 8, 0x10, kernel.kdbg["offset_prcb_context"], kernel.kdbg["offset_prcb_current_thread"])
            for place in virtual(processor.prcb + offset)
        ],
        [
            place
            for module in kernel.modules
            for name in KLDR_DATA_TABLE_ENTRY64.fields
            for place in virtual(
                module.entry_address + KLDR_DATA_TABLE_ENTRY64.offset_of(name), KLDR_DATA_TABLE_ENTRY64.size_of(name)
            )
        ],
        [
            place
            for name in ("PsLoadedModuleList", "MmPhysicalMemoryBlock", "MmUnloadedDrivers", "MmLastUnloadedDriver",
                         "PsActiveProcessHead", "KdpDebuggerDataListHead", "KiBugCheckData", "NtBuildLab")
            for place in virtual(symbols[name])
        ],
        _pointed_at(kernel, "MmPhysicalMemoryBlock", 0x50, virtual),
        _pointed_at(kernel, "MmUnloadedDrivers", 0x100, virtual),
        [place for offset in (0x264, 0x3C0) for place in virtual(AMD64.fixed_shared_data + offset, 4)],
        _tables(kernel.image, kernel.directory_table_base, physical),
    ]  # fmt: skip
    longest = max(map(len, groups))
    return [place for group in groups if group for place in (group * (longest // len(group)))]


def _pointed_at(
    kernel: SimulatedKernel, name: str, size: int, virtual: Callable[[int, int], list[Field]]
) -> list[Field]:
    pointer = int.from_bytes(kernel.read_virtual(kernel.symbols[name], 8) or b"", "little")
    return [place for at in range(0, size, 4) for place in virtual(pointer + at, 4 if at % 8 else 8)]


def _tables(image: MemoryImage, root: int, physical: Callable[[int, int], list[Field]]) -> list[Field]:
    """Entries in use, down to the lowest tables; few of each."""
    found: list[Field] = []
    level = [root]
    for depth in range(4):
        below: list[int] = []
        for table in level[:40]:
            entries = struct.unpack("<512Q", image.read(table, PAGE_SIZE) or bytes(PAGE_SIZE))
            used = [index for index, entry in enumerate(entries) if entry & 1]
            found += [place for index in used[:24] for place in physical(table + 8 * index, 8)]
            if depth < 3:
                below += [entries[index] & 0xFFFFF_FFFFF000 for index in used if not entries[index] & 0x80]
        level = list(dict.fromkeys(below))
    return found


def _known_numbers(kernel: SimulatedKernel) -> list[int]:
    """Numbers that mean something in this machine: they make circles, overlaps and structures in the wrong place."""
    root = kernel.directory_table_base
    return [
        kernel.kdbg_address, kernel.kernel_base, kernel.version.ps_loaded_module_list, *kernel.symbols.values(),
        *(module.entry_address for module in kernel.modules), *(p.prcb for p in kernel.processors),
        *(root | flags for flags in (0x63, 0xE3, 0)), *(pfn << 12 | 0x63 for pfn in list(kernel.image.content_pages())),
        kernel.image.runs.end_page << PAGE_SHIFT | 0x63, 0xE3, 0x63, (1 << 52) - 0x1000 | 0x63,
    ]  # fmt: skip


class _Snapshots:
    """A Snapshot folder whose description or coverage is not what was written.

    An input is the length of target.json, it, and the coverage.
    """

    def __init__(self, folder: Path) -> None:
        kernel = build_kernel(_SMALL)
        target = trio.run(discover, SimulatedSource(kernel))
        self.path = folder / "snapshot"
        with Snapshot.create(self.path, target) as snapshot:
            for pfn in kernel.image.content_pages():
                snapshot.put(pfn, kernel.image.read_page(pfn))
            snapshot.put(0x200, None)
        self.text = (self.path / "target.json").read_bytes()
        self.document = json.loads(self.text)
        self.coverage = (self.path / "coverage").read_bytes()

    def make(self, rng: random.Random) -> bytes:
        text, coverage = self.text, self.coverage
        what = rng.randrange(8)
        if what < 5:
            document = copy.deepcopy(self.document)
            for _ in range(1 + rng.randrange(3)):
                _spoil(rng, document)
            text = json.dumps(document).encode()
        elif what == 5:
            text = mutated(rng, text)
        if what == 6:
            coverage = mutated(rng, coverage, ((8, 4), (0, 8)))
        elif what == 7:
            torn = bytes(rng.choice(((1, 2), (0, 1), (1, 1, 2), (0, 2, 3)))) * rng.randrange(1 << rng.randrange(17))
            coverage = coverage[:16] + torn
        return len(text).to_bytes(4, "little") + text + coverage

    def run(self, data: bytes) -> None:
        size = int.from_bytes(data[:4], "little")
        (self.path / "target.json").write_bytes(data[4 : 4 + size])
        (self.path / "coverage").write_bytes(data[4 + size :])
        with Snapshot.open(self.path) as snapshot:
            assert not (snapshot.held & snapshot.unreadable)
            for state in PageState:
                runs = snapshot.coverage.runs(state) if state else ()
                assert all(snapshot.coverage.state_of(run.base_page) is state for run in runs)
            trio.run(self._look, snapshot, zlib.crc32(data))

    async def _look(self, snapshot: Snapshot, chance: int) -> None:
        target = snapshot.target
        await discover(snapshot)
        await _look_around(snapshot, target, chance)


_HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1.5, float("inf"), 10**30, "", "0x0", "0x1", "-0x1", "0xffffffffffffffff",
    "0x10000000000000000", "0x" + "f" * 38, "1_0", " 0x5 ", "x", "\ud800", "A" * 5000, [], {}, [[]], [None] * 3,
    [["0x0", "0xffffffffffffffffff"]], [["0x5", "-0x2"]], {"structure": []}, {"structure": "KDDEBUGGER_DATA64"},
    {"structure": "KDDEBUGGER_DATA64", "bytes": "00"}, {"structure": "CONTEXT (AMD64)", "bytes": ""},
)  # fmt: skip


def _spoil(rng: random.Random, document: dict[str, Any]) -> None:
    """One value somewhere in the document becomes something else, or is gone."""
    at: Any = document
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(at[key], dict | list) and at[key] and rng.randrange(6):
            at = at[key]
            continue
        if not rng.randrange(8):
            del at[key]
        elif rng.randrange(3) and isinstance(at[key], str) and at[key].startswith("0x"):
            at[key] = hex(hostile_number(rng, rng.choice((1, 2, 4, 8))))
        else:
            at[key] = copy.deepcopy(rng.choice(_HOSTILE))
        return


class _Addresses:
    """Target addresses as users might write them. What is taken has a form of ours that means the same."""

    _good = (
        rb"serial:/dev/ttyUSB0?baud=115200", rb"serial:COM3", rb"/dev/ttyUSB0", rb"COM3", rb"\\.\COM12",
        rb"tcp:192.168.1.5:5003", rb"tcp:[fe80::1]:5003", rb"tcp-listen:0.0.0.0:5003", rb"unix:/path/to/socket",
        rb"unix-listen:/path?x=1", rb"pipe:\\.\pipe\kd", rb"rfc2217:192.168.1.5:2217?baud=115200&rtscts=1",
        rb"sim:bugcheck?processors=4&memory=64M", rb"com:port=COM1,baud=115200", rb"com:ipport=5003,port=10.0.0.1",
        rb"com:pipe,port=\\.\pipe\x,resets=0,reconnect", rb"net:port=50000,key=1.2.3.4", rb"tcp:[fe80::1%eth0]:1",
        rb"com:ipport=5003,port=::1",
    )  # fmt: skip
    _letters = (
        b":", b"?", b"&", b"=", b",", b"[", b"]", b"%", b"0", b"65536", b"-1", b" ", b"\xc2\xb2", b"\\", b"1" * 5000,
    )  # fmt: skip

    def make(self, rng: random.Random) -> bytes:
        data = rng.choice(self._good)
        if rng.getrandbits(1):
            # Letters that mean something, in the place of others.
            at = rng.randrange(len(data) + 1)
            return data[:at] + rng.choice(self._letters) + data[at + rng.randrange(3) :]
        return mutated(rng, data, (), self._good) if rng.randrange(10) else noise(rng, 60)

    def run(self, data: bytes) -> None:
        address = parse_target(data.decode("utf-8", "replace"))
        assert address.baud > 0
        if address.scheme != "net":  # its URL shows no key
            assert replace(parse_target(address.url)) == address


FILES = (
    Target("dump-file", 8, _DumpFiles),
    Target("snapshot", 8, _Snapshots),
    Target("target-address", 20, lambda _folder: _Addresses()),
)
