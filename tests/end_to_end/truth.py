"""What the simulator knows about its machine, in the words and the order in which the engine prints it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from protocol.address import PAGE_SIZE
from simulator.image import MemoryImage
from simulator.kernel import SimulatedKernel
from simulator.processors import SimulatedProcessor
from tests.end_to_end.printed import Frame, Loaded, Memory, Session

__all__ = [
    "SPECIAL",
    "Words",
    "images",
    "loaded",
    "memory_with_contexts",
    "registers",
    "session",
    "some_words",
    "special_registers",
    "stack",
    "where",
]

_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rip", "rsp", "rbp", *(f"r{n}" for n in range(8, 16)))
_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs")

SPECIAL: Mapping[str, str] = {
    "cr0": "cr0",
    "cr2": "cr2",
    "cr3": "cr3",
    "cr4": "cr4",
    "cr8": "cr8",
    "gdtr": "gdtr_base",
    "gdtl": "gdtr_limit",
    "idtr": "idtr_base",
    "idtl": "idtr_limit",
    "tr": "tr",
}
"""Special registers as the engine calls them, and as we do."""


def registers(values: Mapping[str, int]) -> dict[str, int]:
    """What `r` must print for a CONTEXT with these values."""
    printed = {name: values[name] for name in _GENERAL}
    printed |= {name: values[f"seg_{name}"] for name in _SEGMENTS}
    return {**printed, "efl": values["e_flags"], "at": values["rip"]}


def special_registers(processor: SimulatedProcessor) -> dict[str, int]:
    """What `r cr0,…` must print."""
    return {name: processor.special_values[ours] for name, ours in SPECIAL.items()}


def stack(kernel: SimulatedKernel, processor: SimulatedProcessor) -> list[tuple[int, int, int]]:
    """(Child-SP, RetAddr, instruction) of each line of `k`, innermost first, down to user mode."""
    frames = [(frame.stack_pointer, frame.return_address, frame.instruction) for frame in processor.frames]
    user = frames[-1][1]
    if user:
        # Interrupted or called from user mode, where there is no unwind data: the engine takes what rsp points to.
        process = next(process for process in kernel.processes if process.address == processor.process)
        word = kernel.read_virtual(process.user_stack, 8, process.directory_table_base)
        frames.append((process.user_stack, int.from_bytes(word or b"", "little"), user))
    return frames


def where(kernel: SimulatedKernel, frames: list[Frame]) -> list[tuple[int, int, int]]:
    """The lines of `k` with the call site as an address: the engine names the nearest export before it."""
    bases = {module.name: module.base for module in kernel.modules}

    def site(text: str) -> int:
        name, _, offset = text.partition("+")
        if name.startswith("0x"):
            return int(name.replace("`", ""), 16)
        module, _, function = name.partition("!")
        symbol = function if module == "nt" else f"{module}!{function}"
        return (kernel.symbols[symbol] if function else bases[module]) + int(offset or "0", 16)

    return [(frame.stack_pointer, frame.return_address, site(frame.site)) for frame in frames]


def loaded(kernel: SimulatedKernel) -> Loaded:
    """What `lm` must list."""
    return Loaded(
        {module.name: (module.base, module.base + module.size) for module in kernel.modules},
        [(module.name, module.start, module.end) for module in reversed(kernel.unloaded_modules)],
    )


def images(kernel: SimulatedKernel) -> dict[str, tuple[str, int, int, int]]:
    """What `lmv` must say. It calls the kernel as the PDB that the kernel names."""
    return {
        module.name: (
            "ntkrnlmp.exe" if module.name == "nt" else module.file_name,
            module.time_date_stamp,
            module.check_sum,
            module.size,
        )
        for module in kernel.modules
    }


def session(kernel: SimulatedKernel) -> Session:
    """What `vertarget` must say. The engine cuts times to milliseconds and uptimes to seconds where it has no more."""
    count, checked = len(kernel.processors), kernel.profile.checked
    system = {(5, 2): "Windows Server 2003", (10, 0): "Windows 10"}[kernel.profile.nt_version]
    processors = "UP" if count == 1 else f"MP ({count} procs)"
    since = datetime(1601, 1, 1, tzinfo=UTC)
    return Session(
        f"{system} Kernel Version {kernel.options.build} {processors} {'Checked' if checked else 'Free'} x64",
        kernel.build_lab,
        kernel.kernel_base,
        kernel.symbols["PsLoadedModuleList"],
        since + timedelta(milliseconds=kernel.system_time // 10_000),
        timedelta(milliseconds=kernel.shared_data.interrupt_time // 10_000),
    )


def memory_with_contexts(kernel: SimulatedKernel) -> MemoryImage:
    """The machine's memory, with each processor's true CONTEXT where readers of a dump look for it.

    An encoded KDBG is there in plain. Nothing else differs from the machine's memory (dump-formats 5).
    """
    image = kernel.image.copy()
    parts = [(processor.context_address, processor.context()) for processor in kernel.processors]
    if kernel.kdbg_key is not None:
        parts.append((kernel.kdbg_address, kernel.kdbg.raw))
    for address, data in parts:
        for at, part in _pages(address, data):
            physical = kernel.tables.translate(at)
            assert physical is not None and image.write(physical, part)
    return image


def _pages(address: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length = min(len(data), PAGE_SIZE - address % PAGE_SIZE)
        yield address, data[:length]
        address, data = address + length, data[length:]


@dataclass(frozen=True, slots=True)
class Words:
    """Addresses to ask for, as a script for the engine, and what it must answer."""

    script: str
    expected: Memory


def some_words(
    kernel: SimulatedKernel, memory: MemoryImage, rng: random.Random, *, count: int = 1000, physical: int = 0
) -> Words:
    """`count` random addresses, a twentieth of them mapped nowhere, and so many physical ones of RAM.

    Mapped ones are evenly spread over the leaves of the kernel half, so that a page of a stack or a list comes up as
    often as a large page. Frames that are not RAM and pages that cannot be read must show as nothing.
    """
    leaves = list(kernel.tables.mapped(slots=range(256, 512)))
    lines: list[str] = []
    expected = Memory()

    def add(address: int, place: int | None, option: str = "") -> None:
        data = None if place is None else memory.read(place, 8)
        lines.append(f"dq {option}{address:x} L1")
        expected.words.append((address, None if data is None else int.from_bytes(data, "little")))
        if place is not None and data is None:
            expected.absent.add(place // PAGE_SIZE)

    unmapped = count // 20
    for _ in range(count - unmapped - physical):
        leaf = rng.choice(leaves)
        offset = rng.randrange(leaf.size // PAGE_SIZE) * PAGE_SIZE + rng.randrange(PAGE_SIZE - 7)
        add(leaf.address + offset, leaf.physical + offset)
    for _ in range(physical):
        run = rng.choice(list(memory.runs))
        place = rng.randrange(max(run.base_page, 1), run.end_page) * PAGE_SIZE + rng.randrange(PAGE_SIZE - 7)
        add(place, place, "/p ")
    while unmapped:
        address = (rng.choice(leaves).address ^ 1 << rng.randrange(12, 47)) + 8 * rng.randrange(512)
        if kernel.tables.translate(address) is None:
            add(address, None)
            unmapped -= 1
    return Words("".join(f"{line}\n" for line in lines), expected)
