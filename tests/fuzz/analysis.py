"""What an analysis reads: unwind data, images, symbol files, and whole machines whose memory lies and loops."""

from __future__ import annotations

import random
from pathlib import Path

import trio

from kdbridge.analysis.analyst import Analyst
from kdbridge.analysis.names import Names
from kdbridge.analysis.reading import ReadOnce
from kdbridge.analysis.report_html import html_page
from kdbridge.analysis.report_json import analysis_document
from kdbridge.analysis.report_text import first_lines, rest_lines
from kdbridge.analysis.stack import walk
from kdbridge.discovery import discover
from kdbridge.memory.files import DumpFile
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import PAGE_SIZE
from protocol.pdb import Pdb
from protocol.pe.debug import parse_code_view
from protocol.pe.exports import parse_export_directory
from protocol.pe.headers import parse_pe_headers, pe_header_offset
from protocol.pe.resources import parse_data_entry, parse_resource_directory
from protocol.pe.version import parse_version_info
from protocol.unwind.caller import undo_prolog
from protocol.unwind.code import is_behind_call, read_epilog
from protocol.unwind.info import parse_runtime_function, parse_unwind_info
from simulator.crashes import CRASHES
from simulator.kernel import SimulatedKernel
from tests.dumps import reader
from tests.fuzz.driver import Target as Attacked
from tests.fuzz.machines import CHANGE, GONE, HALF, WORD, LyingMemory, crashed, interesting, mapped
from tests.fuzz.mutate import hostile_number, mutated, noise
from tests.fuzz.triage import SmallDumps
from tests.kdbridge.simulated import SimulatedSource

__all__ = ["ANALYSIS", "analysed"]

_PDB = Path(__file__).resolve().parents[1] / "data/symbols/rivers.pdb"
_MOST_CHANGES = 24


class _Structures:
    """One structure at a time; the first byte of an input says which."""

    def __init__(self, folder: Path) -> None:
        kernel = crashed(0xD1)
        image = next(one for one in kernel.modules if one.name == "mydrv")
        self.image = b"".join(_page(kernel, image.base + at) for at in range(0, image.size, PAGE_SIZE))
        headers = parse_pe_headers(self.image[pe_header_offset(self.image) : 0x400])
        table = headers.directories[3]
        self.rows = self.image[table.rva : table.rva + table.size]
        self.infos = [int.from_bytes(self.rows[at + 8 : at + 12], "little") for at in range(0, len(self.rows), 12)]
        self.places = {
            1: 0,
            2: headers.directories[0].rva,
            3: headers.directories[2].rva,
            4: headers.directories[6].rva,
        }

    def make(self, rng: random.Random) -> bytes:
        kind = rng.randrange(7)
        if not rng.randrange(4):
            return bytes([kind]) + noise(rng, 600)
        if kind == 0:
            at = rng.choice(self.infos)
            return b"\0" + mutated(rng, self.image[at : at + 64], [(0, 1), (1, 1), (2, 1), (3, 1)])
        start = self.places.get(kind, 0)
        piece = self.image[start : start + 0x400]
        return bytes([kind]) + mutated(rng, piece, [(at, width) for width in (2, 4) for at in range(0, 0x200, width)])

    def run(self, data: bytes) -> None:
        kind, body = data[0] % 7, data[1:]
        if kind == 0:
            info = parse_unwind_info(body)
            registers: list[int | None] = [0x1000 * number for number in range(16)]
            for inside in (None, 0, 5, 255):
                undo_prolog([(info, inside), (info, None)], registers)
            registers[5] = None
            undo_prolog([(info, None)], registers)
            list(info.epilogs(parse_runtime_function(body[:12].ljust(12, b"\0"))))
        elif kind == 1:
            parse_pe_headers(body[pe_header_offset(body) :])
        elif kind == 2:
            parse_export_directory(body)
        elif kind == 3:
            parse_resource_directory(body)
            parse_data_entry(body)
        elif kind == 4:
            parse_code_view(body)
        elif kind == 5:
            parse_version_info(body)
        else:
            epilog = read_epilog(body[:64], 0xFFFFF80000000000, body[0] & 15 if body else 0)
            if epilog is not None:
                epilog.places([0] * 16, 0)
            is_behind_call(body[:8])


class _SymbolFiles:
    """A PDB of our own making, damaged."""

    def __init__(self, folder: Path) -> None:
        self.data = _PDB.read_bytes()
        self.fields = [(at, 4) for at in range(0, len(self.data), 4) if any(self.data[at : at + 4])]

    def make(self, rng: random.Random) -> bytes:
        return mutated(rng, self.data, self.fields, [self.data])

    def run(self, data: bytes) -> None:
        pdb = Pdb(reader(data), len(data))
        for rva in (0, 0x1000, 0x1010, 0x2FFF, 0x7FFFFFFF):
            found = pdb.nearest(rva)
            assert found is None or found[1] <= rva
        pdb.field_offset("_RIVER", "Length")
        assert pdb.identity.key


def _page(kernel: SimulatedKernel, address: int) -> bytes:
    return kernel.read_virtual(address & -PAGE_SIZE, PAGE_SIZE) or bytes(PAGE_SIZE)


class _LyingSource(SimulatedSource):
    """A machine whose registers are true, and whose memory is not."""

    lying: LyingMemory

    @property
    def virtual(self) -> LyingMemory:  # type: ignore[override]
        return self.lying


class _Machines:
    """Crashed machines in whose memory a few words are anything. An input says which machine, and which words."""

    def __init__(self, folder: Path) -> None:
        self.kernels = [crashed(code) for code in CRASHES]
        self.pages = [dict(mapped(kernel)) for kernel in self.kernels]
        self.words = [[word for words in interesting(kernel) for word in words] for kernel in self.kernels]

    def make(self, rng: random.Random) -> bytes:
        number = rng.randrange(len(self.kernels))
        words, pages = self.words[number], list(self.pages[number])
        changes = b""
        for _ in range(1 + rng.randrange(_MOST_CHANGES)):
            address = rng.choice(words) if rng.randrange(8) else rng.choice(pages) + 8 * rng.randrange(512)
            kind = rng.choice((WORD, WORD, WORD, HALF, HALF, GONE if not rng.randrange(4) else WORD))
            if rng.randrange(4):
                value = rng.choice(words) + rng.choice((0, 0, -8, 8, 1)) if rng.randrange(3) else hostile_number(rng, 8)
            else:  # what stands in another place: circles
                other = rng.choice(words)
                page = self.pages[number].get(other & -PAGE_SIZE, b"")
                value = int.from_bytes(page[other % PAGE_SIZE :][:8], "little")
            changes += CHANGE.pack(kind, address, value & (1 << 64) - 1)
        return bytes([number]) + changes

    def source(self, data: bytes) -> _LyingSource:
        number = data[0] % len(self.kernels)
        source = _LyingSource(self.kernels[number], physical=False)
        source.lying = LyingMemory(self.pages[number], data[1:])
        return source


class _Stacks(_Machines):
    """Their stacks alone, walked from each processor's registers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.targets = [trio.run(discover, SimulatedSource(kernel)) for kernel in self.kernels]

    def run(self, data: bytes) -> None:
        trio.run(self._look, self.source(data), self.targets[data[0] % len(self.kernels)])

    async def _look(self, source: _LyingSource, target: Target) -> None:
        for one in target.processors:
            assert one.context is not None
            stack = await walk(source, target, Names(target.modules), one.context, processor=one.number)
            assert 0 < len(stack.frames) <= 256 and stack.ended


class _Analyses(_Machines):
    """The whole analysis, in all its forms."""

    def run(self, data: bytes) -> None:
        trio.run(analysed, self.source(data))


async def analysed(source: Source) -> None:
    once = ReadOnce(source)
    analyst = Analyst(once, await discover(once))
    shown = list(first_lines(await analyst.first()))
    analysis = await analyst.all()
    shown += rest_lines(analysis)
    assert shown and analysis_document(analysis)["schema"] and len(html_page(analysis)) > 1000


class _Dumps(SmallDumps):
    """Damaged small dumps, analysed."""

    def make(self, rng: random.Random) -> bytes:
        data = super().make(rng)
        # Hardly any damage makes a file no dump at all: an end inside its header does.
        return data[: rng.randrange(0x2000)] if not rng.randrange(16) else data

    def run(self, data: bytes) -> None:
        self.path.write_bytes(data)
        with DumpFile(self.path) as dump:
            trio.run(analysed, dump)


ANALYSIS = (
    Attacked("analysis-parts", 60, _Structures),
    Attacked("analysis-pdb", 20, _SymbolFiles),
    Attacked("analysis-stack", 5, _Stacks, refuses=False),
    Attacked("analysis", 1, _Analyses, refuses=False),
    Attacked("analysis-dump", 4, _Dumps),
)
