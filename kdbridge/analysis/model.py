"""What an analysis comes to: plain values, filled by the parts of this package, written out by its reports.

Addresses are virtual unless they say otherwise, sizes are bytes, times are FILETIMEs (100 ns since 1601, UTC).
Nothing here was guessed in silence: what is a guess says so (`Trust`, `Certainty`), what is missing is a `Missing`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from kdbridge.target import Module, Target, UnloadedModule
from protocol.address import PageRuns, format_address
from protocol.structure import Structure

__all__ = [
    "Analysis",
    "BugCheckFact",
    "Certainty",
    "CrashContext",
    "ExceptionFact",
    "Frame",
    "Held",
    "ImageFact",
    "Instruction",
    "MemoryOperand",
    "Missing",
    "ParameterFact",
    "Place",
    "ProcessFact",
    "Stack",
    "Suspect",
    "System",
    "ThreadFact",
    "Times",
    "Trust",
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address lies. `symbol` with `displacement` where a name is known, by `known_by` (export, pdb)."""

    address: int
    module: str = ""
    """The image's name without its extension, as debuggers name it ("nt", "mydrv"); empty: in no image."""
    offset: int = 0
    """From the image's base."""
    symbol: str = ""
    displacement: int = 0
    known_by: str = ""

    def __str__(self) -> str:
        if self.symbol:
            return f"{self.module}!{self.symbol}" + (f"+{self.displacement:#x}" if self.displacement else "")
        if self.module:
            return f"{self.module}+{self.offset:#x}"
        return format_address(self.address)


class Trust(enum.Enum):
    """How a frame of a stack was found; the value completes "this frame …"."""

    REGISTERS = "is where the registers stand"
    UNWOUND = "was unwound by the image's unwind data"
    LEAF = "was unwound as a leaf function's: its image has no unwind data for it"
    MACHINE_FRAME = "was interrupted: the processor itself saved where"
    FRAME_POINTER = "was found by the chain of frame pointers"
    SCANNED = "is a guess: its address was found on the stack behind a call"

    @property
    def guessed(self) -> bool:
        """Whether nothing proves it."""
        return self in (Trust.SCANNED, Trust.FRAME_POINTER)


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a stack, as WinDbg's `k` has it: Child-SP, RetAddr, Call Site."""

    instruction: int
    """Where it stands: of all frames but the innermost, the instruction that its call returns to."""
    stack_pointer: int
    return_address: int
    """0 where there is none, or it could not be read."""
    place: Place
    trust: Trust
    note: str = ""
    """What else is to be known: "trap frame at …", "on another stack"."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The calls that led to where a thread stands, innermost first."""

    frames: tuple[Frame, ...]
    ended: str
    """Why it ends where it does, in words."""
    whole: bool
    """Whether it is known to come to the thread's first call, or to user mode: through no guess."""
    processor: int | None = None
    thread: int | None = None


@dataclass(frozen=True, slots=True)
class ParameterFact:
    """One parameter of a bug check, with what it points to."""

    number: int
    value: int
    words: str
    """What the parameter means, its value first (as `protocol.bugcheck.describe`)."""
    kind: str
    """The kind, as ParameterKind's value: "address", "IRQL", "NTSTATUS" …"""
    place: Place | None = None
    """Where it points to, if it lies in an image."""
    region: str = ""
    """What else the address is, in words: "the stack of processor 0's thread", "user memory", "not mapped"."""


@dataclass(frozen=True, slots=True)
class BugCheckFact:
    """The bug check in words."""

    code: int
    name: str
    meaning: str
    parameters: tuple[ParameterFact, ...]


@dataclass(frozen=True, slots=True)
class MemoryOperand:
    """Memory that an instruction touches."""

    expression: str
    """As disassembled: "[rax+0x10]"."""
    address: int
    access: str
    """"read", "write" or "read and write"."""
    size: int
    content: bytes | None
    """What lies there; None where it cannot be read."""
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Instruction:
    """One disassembled instruction."""

    address: int
    data: bytes
    text: str
    operands: tuple[MemoryOperand, ...] = ()


@dataclass(frozen=True, slots=True)
class ExceptionFact:
    """An EXCEPTION_RECORD in words."""

    code: int
    words: str
    """"STATUS_ACCESS_VIOLATION: it read ffffa70f`00000010, which it must not"."""
    place: Place
    parameters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CrashContext:
    """The registers of the moment that counts: of the fault, where that can be found, else of the break."""

    origin: str
    """Where they come from, in words: "CONTEXT that parameter 4 points to", "trap frame …"."""
    better_than_break: bool
    processor: int
    context: Structure
    known: frozenset[str]
    """Names of the registers that the origin holds; a trap frame has no non-volatile ones."""
    place: Place
    instructions: tuple[Instruction, ...] = ()
    """From the faulting one on."""
    exception: ExceptionFact | None = None
    passed_over: tuple[str, ...] = ()
    """Better origins that were looked at and could not be used, and why."""


class Certainty(enum.Enum):
    """How sure a suspicion is."""

    CERTAIN = "certain"
    LIKELY = "likely"
    GUESS = "guess"


@dataclass(frozen=True, slots=True)
class Suspect:
    """The driver to look at first, and by which of the stated rules."""

    module: str
    place: Place
    rule: str
    """Name of the rule (docs/analysis.md has them in their order): "faulting instruction" …"""
    why: str
    certainty: Certainty


@dataclass(frozen=True, slots=True)
class ImageFact:
    """A loaded image, with what its own headers say where their pages are there."""

    module: Module
    version: str = ""
    company: str = ""
    description: str = ""
    pdb_name: str = ""
    pdb_guid: str = ""
    """32 hex digits, upper case."""
    pdb_age: int = 0
    microsoft: bool | None = None
    """None: cannot be told."""
    because: str = ""
    """What says so: "its version resource: Microsoft Corporation"."""


@dataclass(frozen=True, slots=True)
class ThreadFact:
    """One thread."""

    address: int
    process_id: int | None
    thread_id: int | None
    state: str
    processor: int | None
    """Of a running one."""
    stack: Stack | None = None


@dataclass(frozen=True, slots=True)
class ProcessFact:
    """One process."""

    address: int
    process_id: int
    parent_id: int | None
    name: str
    """Empty where it could not be found without symbols."""
    directory_table_base: int
    current_on: tuple[int, ...] = ()
    """Processors that were running a thread of it."""
    threads: tuple[ThreadFact, ...] = ()


@dataclass(frozen=True, slots=True)
class Times:
    """FILETIMEs and 100 ns; None where the target's shared data could not be read."""

    crash: int | None
    boot: int | None
    up: int | None


@dataclass(frozen=True, slots=True)
class System:
    """What ran, and on what."""

    windows: str
    """"Windows 10.0 build 19041 free x64"."""
    build_lab: str
    product: str
    """"workstation", "server", "domain controller"."""
    system_root: str
    processors: int
    vendor: str
    """"GenuineIntel"; empty where not found."""
    megahertz: int | None
    memory: int | None
    """Bytes of RAM."""
    firmware: tuple[tuple[str, str], ...] = ()
    """Texts of SMBIOS, where the dump has them: ("manufacturer", …), ("product", …), ("BIOS version", …)."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that could not be determined, and which memory it lacked."""

    what: str
    why: str
    ranges: tuple[tuple[int, int], ...] = ()
    """(virtual address, size) that could not be read."""


@dataclass(frozen=True, slots=True)
class Held:
    """Which physical memory the source holds, for a map of it. Small dumps and live targets have none."""

    memory: PageRuns
    held: PageRuns
    unreadable: PageRuns
    inferred: PageRuns


@dataclass(frozen=True, slots=True)
class Analysis:
    """All of it."""

    source: str
    target: Target
    system: System
    times: Times
    bug_check: BugCheckFact | None
    crash: CrashContext | None
    stopped: int
    """The processor that stopped the machine."""
    stack: Stack | None
    """From the crash context, or from the break where there is none better."""
    stacks: tuple[Stack, ...]
    """Of every processor as it stands, in their order."""
    suspect: Suspect | None
    bucket: str
    """Stable name for the kind of crash: "D1_mydrv+1045"."""
    images: tuple[ImageFact, ...]
    unloaded: tuple[UnloadedModule, ...]
    processes: tuple[ProcessFact, ...]
    current: ThreadFact | None
    """The thread that stopped the machine."""
    console: str
    """What the target printed while we were there."""
    print_buffer: str | None
    """The kernel's own buffer of prints; None where it could not be read."""
    held: Held | None
    missing: tuple[Missing, ...]
    bytes_read: int
    """Memory that was read for this, each byte once."""
    pieces: tuple[tuple[str, int, bytes], ...] = field(default=())
    """(what, virtual address, bytes) worth a look in hexadecimal: code at the crash, its stack, touched memory."""
    first_screen: bool = False
    """Only what tells why it stopped was looked at: nothing else is known, and nothing of it is `missing`."""
