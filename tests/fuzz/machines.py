"""Machines that are attacked: crashed x64 ones, an ARM64 one made of one of them, and x86 ones; and lying memory."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kdbridge.errors import MemoryFault, TargetRefusedError
from kdbridge.source import StopEvent
from protocol.address import PAGE_SIZE, VirtualAddress
from protocol.arch import ARM64, X86, X86_WITHOUT_PAE, Architecture
from protocol.layouts.version import GetVersion64
from protocol.structure import Structure
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from simulator.options import BugCheck
from tests.x86_machine import KDBG, MODULES, NT, STACK, X86Machine, x86_machine

__all__ = [
    "CHANGE",
    "CODES",
    "GONE",
    "HALF",
    "WORD",
    "Laid",
    "LaidSource",
    "LyingMemory",
    "arm64",
    "crashed",
    "interesting",
    "mapped",
    "narrow",
    "narrow_machine",
]

CHANGE = struct.Struct("<BQQ")
"""What lies about a memory: a kind, an address, a value."""
WORD, HALF, GONE = 0, 1, 2
"""A word at the address is the value; 2 bytes are; the page is not there."""

CODES = (0x0A, 0x1E, 0x3B, 0x50, 0x7E, 0x7F, 0x8E, 0x9F, 0xC1, 0xD1, 0xEF, 0x133, 0x139, 0x1000007E, 0x1000008E)
"""Bug checks whose parameters point to something, on one architecture or another."""
_VARIABLES = (
    "KiBugCheckData", "KiProcessorBlock", "PsLoadedModuleList", "PsActiveProcessHead", "MmUnloadedDrivers",
    "KdPrintCircularBuffer", "KdPrintWritePointer", "KdPrintBufferSize", "KdPrintRolloverCount",
)  # fmt: skip
_ARM64_FLAGS = 0x0040_000F
_SIGNED = 0x35 << 48
"""A pointer authentication code in the bits of an address that are all 1 without it, as a mask."""
_TRAP_MARK = 0xBADB0D00
_FIRST_FRAME, _FRAME, _FRAMES = STACK + 0xE00, 0x40, 6
"""Of the x86 machine: where the frame lies that its registers name, and how many there are so far apart."""
_ARM64_TABLE, _ARM64_PAGE = 0x3, 0x0040_0000_0000_0703


@functools.cache
def crashed(code: int) -> SimulatedKernel:
    """A small x64 machine that crashed so. Only read it: it is kept."""
    return build_kernel(
        KernelOptions(
            memory_size=16 << 20, content_size=0, processors=2, waiting_threads=1, bug_check=BugCheck(code)
        )
    )  # fmt: skip


def mapped(kernel: SimulatedKernel) -> Iterator[tuple[int, bytes]]:
    """Every page of the kernel half that is not part of a large one, by its address."""
    for leaf in kernel.tables.mapped(slots=range(256, 512)):
        if leaf.size == PAGE_SIZE and (data := kernel.image.read_page(leaf.physical >> 12)) is not None:
            yield leaf.address, data


def interesting(kernel: SimulatedKernel) -> Iterator[tuple[int, ...]]:
    """Addresses of words that lead somewhere, by kinds. Links of lists come first, as what loops hangs by them."""
    kinds = tuple(_kinds(kernel))
    yield _links(dict(mapped(kernel)), kinds, 8)
    yield from kinds


def _kinds(kernel: SimulatedKernel) -> Iterator[tuple[int, ...]]:
    modules, processes, threads = kernel.modules, kernel.processes, kernel.threads
    yield tuple(one.entry_address + at for one in modules for at in range(0, 0xA0, 8))
    yield tuple(one.base + at for one in modules for at in range(0x100, 0x280, 8))
    yield tuple(one.address + at for one in processes for at in range(0, kernel.profile.eprocess.size, 8))
    yield tuple(one.address + at for one in threads for at in range(0, kernel.profile.kthread.size, 8))
    yield tuple(one.prcb + at for one in kernel.processors for at in range(0, 0x200, 8))
    yield tuple(
        at
        for one in kernel.processors
        if one.stack_limit <= one.context_values["rsp"]
        for at in range(one.context_values["rsp"], one.stack_base, 8)
    )
    yield tuple(kernel.kdbg_address + at for at in range(0, 0x380, 8))
    yield (*(kernel.symbols[name] for name in _VARIABLES), *(one for one in kernel.bug_check[1:] if one >> 47))


def _links(pages: Mapping[int, bytes], kinds: Iterable[tuple[int, ...]], width: int) -> tuple[int, ...]:
    """Of these words those that are the first of a LIST_ENTRY: what each points to points back, in its second."""

    def word(address: int) -> int:
        page = pages.get(address & -PAGE_SIZE, b"")
        return int.from_bytes(page[address % PAGE_SIZE :][:width], "little")

    words = sorted({one for kind in kinds for one in kind})
    return tuple(one for one in words if word(one) not in (0, one) and word(word(one) + width) == one)


class LyingMemory:
    """Virtual memory of a machine, with changes."""

    def __init__(self, pages: Mapping[int, bytes], data: bytes, width: int = 8) -> None:
        self._pages = pages
        self._changed: dict[int, bytearray] = {}
        self._gone: set[int] = set()
        for kind, address, value in CHANGE.iter_unpack(data[: len(data) // CHANGE.size * CHANGE.size]):
            page = address & -PAGE_SIZE
            if kind % 3 == GONE:
                self._gone.add(page)
            elif page in pages:
                changed = self._changed.setdefault(page, bytearray(pages[page]))
                size = min(width if kind % 3 == WORD else 2, PAGE_SIZE - address % PAGE_SIZE)
                at = address % PAGE_SIZE
                changed[at : at + size] = value.to_bytes(8, "little")[:size]
        self._narrow = width == 4

    async def read(self, address: VirtualAddress, size: int) -> bytes:
        parts: list[bytes] = []
        done = 0
        while done < size:
            at = address + done
            if self._narrow and at >> 31 == 0x1_FFFF_FFFF:  # sign-extended
                at &= 0xFFFF_FFFF
            page, offset = at & -PAGE_SIZE, at % PAGE_SIZE
            content = None if page in self._gone else self._changed.get(page) or self._pages.get(page)
            if content is None:
                raise MemoryFault("no", address=address + done, size=size, done=done, virtual=True)
            parts.append(bytes(content[offset : offset + size - done]))
            done += len(parts[-1])
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Laid:
    """A machine that no simulator runs: its memory, both ways, and the registers of its processors."""

    architecture: Architecture
    version: GetVersion64
    root: int
    memory: Mapping[int, bytes]
    """Pages by frame."""
    frames: Mapping[int, int]
    """Frame of each virtual page."""
    words: tuple[tuple[int, ...], ...]
    """Virtual addresses of words that lead somewhere, by kinds."""
    bug_check: int
    """Where its code and parameters lie."""
    contexts: tuple[bytes, ...]
    specials: tuple[bytes, ...]

    @property
    def pages(self) -> dict[int, bytes]:
        """Pages by virtual address."""
        return {page: self.memory[frame] for page, frame in self.frames.items()}


class LaidSource:
    """It as a Source, as a live target is one that refuses physical reads: registers are true, memory is not."""

    name, physical = "laid", None

    def __init__(self, laid: Laid, virtual: LyingMemory) -> None:
        self.laid, self.virtual = laid, virtual
        context = laid.architecture.context.decode(laid.contexts[0])
        place = context[laid.architecture.program_counter]
        self.stop = StopEvent(0, 0x80000003, place, 0, True, len(laid.contexts))

    async def version(self) -> GetVersion64:
        return self.laid.version

    async def context(self, processor: int) -> Structure:
        return self.laid.architecture.context.decode(self._of(self.laid.contexts, processor))

    async def special_registers(self, processor: int) -> Structure:
        architecture = self.laid.architecture
        raw = self._of(self.laid.specials, processor)
        return architecture.special_registers.decode(raw, least=architecture.special_registers_least)

    def _of(self, registers: Sequence[bytes], processor: int) -> bytes:
        if not 0 <= processor < len(registers):
            raise TargetRefusedError("no", api="GetContext", status=0xC0000001)
        return registers[processor]


def _version(machine: int, minor: int, kernel: int, modules: int, blocks: int) -> GetVersion64:
    return GetVersion64(0xF, minor, 6, 2, 0x47, machine, 12, 3, 0x31, 0, kernel, modules, blocks)


@functools.cache
def narrow_machine(pae: bool) -> X86Machine:
    """The x86 machine that is laid out by hand, with stacks whose frame pointers lead up. Only read it."""
    machine = x86_machine(pae=pae)
    frame, returns = _FIRST_FRAME, NT + 0x1020
    for step in range(_FRAMES):
        above = frame + _FRAME
        # The third is a trap frame: the debugger's ebp and eip, and the mark behind them.
        machine.put(frame, struct.pack("<III", above, returns + 8 * step, _TRAP_MARK if step == 2 else 0))
        frame = above
    machine.put(frame, struct.pack("<III", 0, 0, 0))
    return machine


@functools.cache
def narrow(pae: bool) -> Laid:
    """It, as a live one would be."""
    machine = narrow_machine(pae)
    pages = {page: bytes(machine.memory[place >> 12]) for page, place in machine.mapped.items()}
    words = tuple(_narrow_words(machine))
    contexts = tuple(machine.context(number) for number in range(2))
    special = struct.pack("<4I", 0x8001003B, 0, machine.root, 0x6F9 if pae else 0x6D9).ljust(0x54, b"\0")
    head = int.from_bytes(machine.get(KDBG + 0x48, 4), "little")
    return Laid(
        architecture=X86 if pae else X86_WITHOUT_PAE,
        version=_version(0x14C, 7601, NT, head, KDBG),
        root=machine.root,
        memory={number: bytes(page) for number, page in machine.memory.items()},
        frames={page: place >> 12 for page, place in machine.mapped.items()},
        words=(_links(pages, words, 4), *words),
        bug_check=int.from_bytes(machine.get(KDBG + 0x88, 4), "little"),
        contexts=contexts,
        specials=(special, special),
    )


def _narrow_words(machine: X86Machine) -> Iterator[tuple[int, ...]]:
    """The chain of frames; the headers of images; of every page that is not noise, each word that is not 0."""
    chain = tuple(_FIRST_FRAME + _FRAME * number + at for number in range(_FRAMES + 1) for at in (0, 4, 8))
    yield chain
    yield chain
    yield tuple(range(STACK + 0xC80, STACK + 0xFC0, 4))
    yield tuple(base + at for _, _, base, *_ in MODULES for at in (0x3C, *range(0x80, 0x180, 4)))
    images = range(MODULES[1][2], MODULES[1][2] + MODULES[1][3])
    for page in machine.mapped:
        data = machine.memory[machine.mapped[page] >> 12]
        words = tuple(page + at for at in range(0, PAGE_SIZE, 4) if any(data[at : at + 4]))
        if page != STACK and page not in images and words:
            yield words


@functools.cache
def arm64() -> Laid:
    """The memory of a crashed x64 machine below ARM64 page tables, with that architecture's registers and frames.

    A kernel's structures are the same on both. No frame of the tables is one of the machine's.
    """
    kernel = crashed(0xD1)
    pages = {address: bytearray(data) for address, data in mapped(kernel)}

    def put(address: int, data: bytes) -> None:
        for at, byte in enumerate(data, address):
            pages[at & -PAGE_SIZE][at % PAGE_SIZE] = byte

    code = [one.entry_point & ~3 for one in kernel.modules if one.entry_point & -PAGE_SIZE in pages][:4]
    places = [entry + more for entry in code for more in (8, 0x10)]
    contexts: list[bytes] = []
    chain: list[int] = []
    for processor in kernel.processors:
        top = processor.context_values["rsp"] & ~0xF
        stops = [*range(top + 0x20, min(top + 0x120, processor.stack_base - 0x20), 0x20)]
        for number, at in enumerate(stops):
            above = stops[number + 1] if number + 1 < len(stops) else 0
            chain += [at, at + 8]
            put(at, struct.pack("<QQ", above, places[number % len(places)] & 0xFF80FFFF_FFFFFFFF | _SIGNED))
        pc = processor.context_values["rip"] & ~3
        values = {"context_flags": _ARM64_FLAGS, "cpsr": 0x4, "x0": kernel.kdbg_address, "x1": top}
        contexts.append(ARM64.context.encode({**values, "pc": pc, "sp": top, "fp": stops[0], "lr": places[-1]}))
        put(processor.context_address, contexts[-1])
        put(processor.prcb + kernel.kdbg["offset_prcb_proc_state_special_reg"], bytes(ARM64.special_registers.size))
    for module in kernel.modules:
        if module.base in pages:
            start = module.base + int.from_bytes(pages[module.base][0x3C:0x40], "little")
            put(start + 4, struct.pack("<H", 0xAA64))
    frames = {page: 0x100 + number for number, page in enumerate(sorted(pages))}
    memory = {frames[page]: bytes(data) for page, data in pages.items()}
    root, tables = _arm64_tables(frames, 0x101 + len(frames))
    return Laid(
        architecture=ARM64,
        version=_version(
            0xAA64, 19041, kernel.kernel_base, kernel.version.ps_loaded_module_list, kernel.version.debugger_data_list
        ),
        root=root << 12,
        memory={**memory, **tables},
        frames=frames,
        words=(tuple(chain), tuple(chain), *interesting(kernel)),
        bug_check=kernel.symbols["KiBugCheckData"],
        contexts=tuple(contexts),
        specials=(bytes(ARM64.special_registers.size),) * len(contexts),
    )


def _arm64_tables(frames: Mapping[int, int], first: int) -> tuple[int, dict[int, bytes]]:
    """The frame of the top table, which holds the kernel's half of addresses behind the user's; and all tables."""
    tables = {first: bytearray(PAGE_SIZE)}

    def below(parent: int, slot: int) -> int:
        (entry,) = struct.unpack_from("<Q", tables[parent], 8 * slot)
        if not entry:
            entry = first + len(tables) << 12 | _ARM64_TABLE
            tables[entry >> 12] = bytearray(PAGE_SIZE)
            struct.pack_into("<Q", tables[parent], 8 * slot, entry)
        return int(entry >> 12)

    for address, frame in frames.items():
        table = first
        for shift in (39, 30, 21):
            table = below(table, address >> shift & 0x1FF)
        struct.pack_into("<Q", tables[table], 8 * (address >> 12 & 0x1FF), frame << 12 | _ARM64_PAGE)
    return first, {frame: bytes(table) for frame, table in tables.items()}
