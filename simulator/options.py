"""What kind of machine is wanted: everything that a seed does not decide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from protocol.address import PageRuns

from .pfn_layout import WINDOWS_10_PFN, PfnLayout

__all__ = ["LAYOUTS", "BugCheck", "KernelOptions", "Layout", "PfnKind", "StopKind", "as_layout"]

StopKind = Literal["bugcheck-first", "bugcheck-final", "breakpoint", "running"]
"""Where the machine stands: a bug check's first or last break (status 3, 4), an int3 in a driver, or a break-in."""

PfnKind = Literal["none", "true", "scrambled"]
"""What lies at MmPfnDatabase: an empty page, a record for each frame, or as many bytes without any sense."""

Layout = Literal["desktop", "server"]
"""How much there is beside what a crash needs; a server has everything that kernel and active dumps are about."""

_WITHOUT_SHADOW = 3790

LAYOUTS: tuple[Layout, ...] = ("desktop", "server")
"""All of them."""


@dataclass(frozen=True, slots=True)
class BugCheck:
    """A bug check. Without parameters they are those that fit the stack that is made (simulator.crashes)."""

    code: int
    parameters: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class KernelOptions:
    """What kind of machine. Everything that is not told here is drawn from the seed."""

    seed: int = 1
    processors: int = 4
    memory_size: int = 256 << 20
    """Bytes of RAM, 16 MiB to 64 GiB and beyond."""
    runs: int | PageRuns | None = None
    """So many runs, or these; None: those of a PC of this size."""
    build: int = 19041
    kdbg_size: int | None = None
    """None: as long as this build's."""
    encoded_kdbg: bool = False
    foreign_block: bool = False
    """Another owner's block stands before the kernel's in the list of debugger data."""
    content_size: int | None = None
    """Bytes of RAM filled with data that is not zero; None: a sixteenth of memory, at most 4 MiB."""
    unreadable_pages: int = 0
    """So many pages of the runs cannot be read by anybody."""
    gigabyte_page: bool | None = None
    """A 1 GiB page maps RAM; None: on machines with 4 GiB and more."""
    stop: StopKind = "bugcheck-final"
    bug_check: BugCheck = BugCheck(0xD1)
    guilty_driver: str = "mydrv"
    """Which of the two drivers that are not Microsoft's makes it crash: mydrv, or labflt."""
    stopped_processor: int = 0
    debugger_attached: bool = False
    """A debugger has answered before (bit 1 of KdDebuggerEnabled)."""
    system_time: int = 133_546_012_134_567_890
    """FILETIME, UTC: 2024-03-11 05:20:13."""
    uptime: int = 3 * 3600 * 10_000_000 + 4_230_000_000
    """100 ns units since boot."""
    processes: int = 4
    """In the list of processes, System among them."""
    waiting_threads: int = 0
    """So many in each process. With any, all threads are in the lists of their processes."""
    sessions: bool = False
    """Sessions 0 and 1 have kernel memory that only their own processes see."""
    private_kernel_memory: bool = False
    """Each process has a PML4 slot of the kernel half for itself, as hyperspace was."""
    kva_shadow: bool = False
    """Each user process has a second root, which maps next to nothing of the kernel."""
    user_roots_in_registers: bool = False
    """Processors that came from user mode hold that second root in CR3; not the one that stopped."""
    transition_pages: int = 0
    """So many pages of the kernel, of each session and of each process are in memory, but not valid in the tables."""
    unmapped_pages: int = 0
    """So many more pages with data that no table leads to: the cache of files, what was freed."""
    large_user_page: bool = False
    """lab.exe has a 2 MiB page, where memory has one left."""
    pfn_database: PfnKind = "none"
    pfn_layout: PfnLayout = WINDOWS_10_PFN
    linked_images: bool = False
    """Images hold absolute pointers, relocations, and sections that are packed in their files."""
    patched_modules: int = 0
    """So many modules differ by a byte from their files, in memory that is not written to."""
    mismatched_images: int = 0
    """So many modules' files are those of another build."""
    more_modules: int = 0
    """So many drivers beside those that stacks are made of: a real machine has 150 to 250."""
    many_prints: bool = False
    """More was printed than the kernel's buffer holds."""
    call_chains: int | None = None
    """Every processor but the one that stopped stands in a random call chain, drawn from this seed."""


def as_layout(options: KernelOptions, layout: Layout) -> KernelOptions:
    """The same machine with all that this layout has."""
    if layout == "desktop":
        return options
    return replace(
        options,
        processes=12,
        waiting_threads=2,
        sessions=True,
        private_kernel_memory=True,
        kva_shadow=options.build > _WITHOUT_SHADOW,
        transition_pages=4,
        unmapped_pages=256,
        large_user_page=True,
        pfn_database="true",
        linked_images=True,
    )
