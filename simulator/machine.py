"""Machine: processors and memory that answer one request at a time. Pure: no line, no clock.

It answers what a Windows kernel answers, garbage fields echoed and all (kd-protocol 3), keeps a log of what was
asked, and says what an answer means for the machine (it goes on, restarts, another processor takes over).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.address import PAGE_SIZE
from protocol.arch import AMD64
from protocol.layouts.version import GetVersion64
from protocol.manipulate import UNIONS, Manipulate

from .behaviour import Answer, Behaviour, Effect, LoggedRequest, Touch, touch_of
from .breakpoints import Breakpoints
from .image import MemoryImage
from .requests import carry_out

__all__ = ["Answer", "Behaviour", "Effect", "LoggedRequest", "Machine", "Touch", "VirtualProcessor"]

_WINDOW = 16
"""Bytes of code that a state change shows."""

_DR6_AT_REST = 0xFFFF0FF0
_DR7_ALWAYS = 0x400


@dataclass(slots=True)
class VirtualProcessor:
    """One processor: registers as bytes of CONTEXT and KSPECIAL_REGISTERS, and where its structures lie."""

    number: int
    context: bytes
    special_registers: bytes
    pcr: int
    prcb: int
    thread: int
    level: int = 6

    @property
    def directory_table_base(self) -> int:
        """Its CR3."""
        return AMD64.special_registers.decode(self.special_registers, least=0x18)["cr3"]

    @property
    def program_counter(self) -> int:
        """Its RIP."""
        return AMD64.context.decode(self.context)["rip"]

    @property
    def debug_registers(self) -> tuple[int, int]:
        """DR6 and DR7 as the processor would show them: bits that are always set are set."""
        special = AMD64.special_registers.decode(self.special_registers, least=0x50)
        return special["kernel_dr6"] | _DR6_AT_REST, special["kernel_dr7"] | _DR7_ALWAYS

    def set(self, **registers: int) -> None:
        """Change registers of its CONTEXT."""
        self.context = AMD64.context.encode(registers, self.context)

    def set_special(self, **registers: int) -> None:
        """Change special registers; the structure keeps its size."""
        size = len(self.special_registers)
        self.special_registers = AMD64.special_registers.encode(registers, self.special_registers, size)


@dataclass(slots=True)
class Machine:
    """Processors over memory. `translate(root, address)` walks its page tables."""

    memory: MemoryImage
    translate: Callable[[int, int], int | None]
    version: GetVersion64
    processors: list[VirtualProcessor]
    behaviour: Behaviour = field(default_factory=Behaviour)
    current: int = 0
    """The processor that holds the debugger."""
    counts: Counter[str] = field(default_factory=Counter)
    """How often each API was asked; numbers that nobody assigned count as "unknown"."""
    touched: deque[LoggedRequest] = field(default_factory=lambda: deque(maxlen=4096))
    """The latest requests that change a machine."""
    breakpoints: Breakpoints = field(init=False)
    context_sent: bool = False
    """A CONTEXT was read since the machine stopped; without it none may be written (T45)."""
    staged_context: bytearray = field(default_factory=bytearray)
    """Chunks of SetContextEx that have come so far (T46)."""
    msrs: dict[int, int] = field(default_factory=dict)
    """Machine specific registers that were written, by number."""
    _translated: dict[tuple[int, int], int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.breakpoints = Breakpoints(self.read_virtual, self.write_virtual)

    @property
    def stopped_processor(self) -> VirtualProcessor:
        """The one that holds the debugger."""
        return self.processors[self.current]

    def prepare_report(self) -> bytes:
        """Before a state change: breakpoints in the 16 bytes at PC are taken out for good (T20); those bytes."""
        pc = self.stopped_processor.program_counter
        self.breakpoints.remove_window(pc, _WINDOW)
        self.context_sent = False
        self.staged_context.clear()
        return self.read_virtual(pc, _WINDOW)

    def answer(self, request: Manipulate) -> Answer:
        """Carry out one request."""
        answer = carry_out(self, request)
        self.counts[request.name if request.api in UNIONS else "unknown"] += 1
        touch = touch_of(request.api)
        if touch is not None:
            self.touched.append(LoggedRequest(request, answer.reply.status if answer.reply else None, touch))
        return answer

    def read_virtual(self, address: int, size: int) -> bytes:
        """As much as is there before the first hole, by the page tables of the stopped processor."""
        parts: list[bytes] = []
        while size > 0:
            length = min(size, PAGE_SIZE - (address & PAGE_SIZE - 1))
            physical = self._physical(address)
            if physical is None:
                break
            part = self.memory.read_some(physical, length)
            parts.append(part)
            if len(part) < length:
                break
            address, size = address + length, size - length
        return b"".join(parts)

    def write_virtual(self, address: int, data: bytes) -> int:
        """Bytes written before the first page that is not there."""
        return self._write(address, data, self._physical)

    def write_physical(self, address: int, data: bytes) -> int:
        """Bytes written before the first page that is no memory."""
        return self._write(address, data, lambda place: place)

    def forget_translations(self) -> None:
        """Page tables or roots may have changed."""
        self._translated.clear()

    def _write(self, address: int, data: bytes, translate: Callable[[int], int | None]) -> int:
        done = 0
        while done < len(data):
            length = min(len(data) - done, PAGE_SIZE - (address + done & PAGE_SIZE - 1))
            physical = translate(address + done)
            if physical is None or not self.memory.write(physical, data[done : done + length]):
                break
            done += length
        if done:
            self.forget_translations()
        return done

    def _physical(self, address: int) -> int | None:
        root = self.stopped_processor.directory_table_base
        key = (root, address >> 12)
        if key not in self._translated:
            if len(self._translated) > 1 << 16:
                self._translated.clear()
            self._translated[key] = self.translate(root, address & ~(PAGE_SIZE - 1))
        page = self._translated[key]
        return None if page is None else page | address & PAGE_SIZE - 1
