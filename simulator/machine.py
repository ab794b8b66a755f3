"""Machine: processors and memory that answer one request at a time. Pure: no line, no clock.

It answers what a Windows kernel answers, garbage fields echoed and all (kd-protocol 3), keeps a log of what was
asked, and says what an answer means for the machine (it goes on, restarts, another processor takes over).
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from protocol.address import PAGE_SIZE
from protocol.arch import AMD64, ControlSpace
from protocol.layouts.version import GetVersion64
from protocol.manipulate import LARGEST_TRANSFER, ApiNumber, Manipulate
from protocol.ntstatus import (
    STATUS_DATATYPE_MISALIGNMENT,
    STATUS_INVALID_PARAMETER,
    STATUS_NO_SUCH_DEVICE,
    STATUS_NOT_FOUND,
    STATUS_SUCCESS,
    STATUS_UNSUCCESSFUL,
)

from .image import MemoryImage

__all__ = ["Answer", "Behaviour", "Effect", "LoggedRequest", "Machine", "Touch", "VirtualProcessor"]

_MOST_BREAKPOINTS = 32
_LARGEST_STAGED_CONTEXT = 0x3000
_LARGEST_SEARCH = 1 << 20
_WINDOW = 16
_PATTERN_PHYSICAL = 2


class Effect(enum.Enum):
    """What an answer means for the machine as a whole."""

    NONE = "stays stopped"
    CONTINUE = "goes on"
    REBOOT = "restarts"
    CRASH = "crashes by bug check E2"
    SWITCH = "another processor takes over"


class Touch(enum.Enum):
    """What a request does to a machine, for whoever must know that nothing was touched."""

    WRITE = "writes"
    CONTROL = "continues, switches or restarts"


_CONTROL = frozenset(
    {
        ApiNumber.CONTINUE,
        ApiNumber.CONTINUE2,
        ApiNumber.REBOOT,
        ApiNumber.CAUSE_BUG_CHECK,
        ApiNumber.SWITCH_PROCESSOR,
        ApiNumber.SWITCH_PARTITION,
        ApiNumber.PAGE_IN,
    }
)
_READS = frozenset(
    {
        ApiNumber.READ_VIRTUAL_MEMORY,
        ApiNumber.READ_PHYSICAL_MEMORY,
        ApiNumber.GET_CONTEXT,
        ApiNumber.GET_CONTEXT_EX,
        ApiNumber.READ_CONTROL_SPACE,
        ApiNumber.GET_VERSION,
        ApiNumber.READ_MACHINE_SPECIFIC_REGISTER,
        ApiNumber.SEARCH_MEMORY,
        ApiNumber.QUERY_MEMORY,
        ApiNumber.GET_BUS_DATA,
        ApiNumber.CHECK_LOW_MEMORY,
        ApiNumber.QUERY_SPECIAL_CALLS,
        ApiNumber.GET_INTERNAL_BREAK_POINT,
    }
)


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request as it was asked, and what it did."""

    request: Manipulate
    status: int | None
    touch: Touch


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Where real targets differ. The default is a current Windows kernel."""

    largest_transfer: int = LARGEST_TRANSFER
    refused: frozenset[int] = frozenset()
    """APIs answered with C0000001."""
    unanswered: frozenset[int] = frozenset()
    """APIs that are acknowledged and never answered."""
    refuse_page_zero: bool = True
    whole_control_space: bool = False
    """ReadControlSpace returns the whole structure whatever was asked (T42)."""
    longer_context: int = 0
    """Bytes of extended state behind a CONTEXT (T48)."""
    garbage_processor: bool = False
    """State changes say level 1284, processor 257."""
    echo_control_writes: bool = False
    """WriteControlSpace's reply carries the data back (T43)."""
    hand_back_after_switch: bool = True
    """After SwitchProcessor, a continue goes to the processor that stopped first (T29)."""


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

    def set(self, **registers: int) -> None:
        """Change registers of its CONTEXT."""
        self.context = AMD64.context.encode(registers, self.context)


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply (None: this request has none) and what it means for the machine."""

    reply: Manipulate | None
    effect: Effect = Effect.NONE


@dataclass(slots=True)
class _Breakpoint:
    address: int
    original: bytes | None
    """None: the page was not there; the breakpoint waits for it."""


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
    """How often each API was asked."""
    touched: deque[LoggedRequest] = field(default_factory=lambda: deque(maxlen=4096))
    """The latest requests that change a machine."""
    _breakpoints: dict[int, _Breakpoint] = field(default_factory=dict)
    _context_sent: bool = False
    _staged: bytearray = field(default_factory=bytearray)
    _msrs: dict[int, int] = field(default_factory=dict)
    _translated: dict[tuple[int, int], int | None] = field(default_factory=dict)

    # ---- what the target does with it ----------------------------------------------------------------------

    @property
    def stopped_processor(self) -> VirtualProcessor:
        """The one that holds the debugger."""
        return self.processors[self.current]

    def prepare_report(self) -> bytes:
        """Before a state change: breakpoints in the 16 bytes at PC are taken out for good (T20); those bytes."""
        pc = self.stopped_processor.program_counter
        for handle, breakpoint_ in list(self._breakpoints.items()):
            if pc <= breakpoint_.address < pc + _WINDOW:
                self._remove_breakpoint(handle)
        self._context_sent = False
        self._staged.clear()
        return self.read_virtual(pc, _WINDOW)

    def answer(self, request: Manipulate) -> Answer:
        """Carry out one request."""
        answer = self._carry_out(request)
        self.counts[request.name] += 1
        if request.api not in _READS:
            touch = Touch.CONTROL if request.api in _CONTROL else Touch.WRITE
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
        done = 0
        while done < len(data):
            length = min(len(data) - done, PAGE_SIZE - (address + done & PAGE_SIZE - 1))
            physical = self._physical(address + done)
            if physical is None or not self.memory.write(physical, data[done : done + length]):
                break
            done += length
        if done:
            self._translated.clear()
        return done

    # ---- inside --------------------------------------------------------------------------------------------

    def _physical(self, address: int) -> int | None:
        root = self.stopped_processor.directory_table_base
        key = (root, address >> 12)
        if key not in self._translated:
            if len(self._translated) > 1 << 16:
                self._translated.clear()
            self._translated[key] = self.translate(root, address & ~(PAGE_SIZE - 1))
        page = self._translated[key]
        return None if page is None else page | address & PAGE_SIZE - 1

    def _carry_out(self, request: Manipulate) -> Answer:
        if request.api in self.behaviour.unanswered:
            return Answer(None)
        handler = _HANDLERS.get(request.api)
        if handler is None or request.api in self.behaviour.refused:
            return Answer(request.reply(STATUS_UNSUCCESSFUL))
        return handler(self, request)

    def _get_version(self, request: Manipulate) -> Answer:
        return Answer(
            Manipulate(
                request.api,
                request.processor_level,
                request.processor,
                STATUS_SUCCESS,
                request.padding,
                self.version.encode(),
            )
        )

    def _read(self, request: Manipulate, read: Callable[[int, int], bytes]) -> Answer:
        fields = request.fields()
        count = min(fields["transfer_count"], self.behaviour.largest_transfer)
        data = read(fields["address"], count)
        status = STATUS_SUCCESS if len(data) == count else STATUS_UNSUCCESSFUL
        return Answer(request.reply(status, data=data, actual_bytes=len(data)))

    def _read_virtual(self, request: Manipulate) -> Answer:
        return self._read(request, self.read_virtual)

    def _read_physical(self, request: Manipulate) -> Answer:
        return self._read(request, self._physical_bytes)

    def _physical_bytes(self, address: int, count: int) -> bytes:
        if self.behaviour.refuse_page_zero and address < PAGE_SIZE:
            return b""
        return self.memory.read_some(address, count)

    def _write_virtual(self, request: Manipulate) -> Answer:
        done = self.write_virtual(request.fields()["address"], request.data)
        status = STATUS_SUCCESS if done == len(request.data) else STATUS_UNSUCCESSFUL
        return Answer(request.reply(status, actual_bytes=done))

    def _write_physical(self, request: Manipulate) -> Answer:
        fields = request.fields()
        data = request.data[: fields["transfer_count"]]
        good = self.memory.write(fields["address"], data)
        self._translated.clear()
        return Answer(
            request.reply(STATUS_SUCCESS if good else STATUS_UNSUCCESSFUL, actual_bytes=len(data) if good else 0)
        )

    def _processor_of(self, request: Manipulate) -> VirtualProcessor | None:
        return self.processors[request.processor] if request.processor < len(self.processors) else None

    def _get_context(self, request: Manipulate) -> Answer:
        processor = self._processor_of(request)
        if processor is None:
            return Answer(request.reply(STATUS_UNSUCCESSFUL))
        self._context_sent = True
        return Answer(request.reply(STATUS_SUCCESS, data=processor.context + bytes(self.behaviour.longer_context)))

    def _set_context(self, request: Manipulate) -> Answer:
        processor = self._processor_of(request)
        size = AMD64.context.size
        if processor is None or not self._context_sent or len(request.data) < size:
            return Answer(request.reply(STATUS_UNSUCCESSFUL))
        processor.context = request.data[:size]
        return Answer(request.reply(STATUS_SUCCESS))

    def _get_context_ex(self, request: Manipulate) -> Answer:
        processor = self._processor_of(request)
        fields = request.fields()
        if processor is None:
            return Answer(request.reply(STATUS_UNSUCCESSFUL))
        whole = processor.context + bytes(self.behaviour.longer_context)
        room = min(fields["byte_count"], self.behaviour.largest_transfer)
        data = whole[fields["offset"] : fields["offset"] + room]
        if not data:
            return Answer(request.reply(STATUS_UNSUCCESSFUL, bytes_copied=0))
        self._context_sent = True
        return Answer(request.reply(STATUS_SUCCESS, data=data, bytes_copied=len(data)))

    def _set_context_ex(self, request: Manipulate) -> Answer:
        """Chunks are staged in order; the one that completes the announced total commits them (T46)."""
        processor = self._processor_of(request)
        fields = request.fields()
        offset, total = fields["offset"], fields["bytes_copied"]
        fits = offset == len(self._staged) and offset + len(request.data) <= min(total, _LARGEST_STAGED_CONTEXT)
        if processor is None or not self._context_sent or not fits:
            self._staged.clear()
            return Answer(request.reply(STATUS_UNSUCCESSFUL, bytes_copied=0))
        self._staged += request.data
        if len(self._staged) == total and total >= AMD64.context.size:
            processor.context = bytes(self._staged[: AMD64.context.size])
            self._staged.clear()
        return Answer(request.reply(STATUS_SUCCESS, bytes_copied=len(request.data)))

    def _read_control_space(self, request: Manipulate) -> Answer:
        processor = self._processor_of(request)
        fields = request.fields()
        if processor is None:
            return Answer(request.reply(STATUS_UNSUCCESSFUL, actual_bytes=0))
        pointers = {
            ControlSpace.KPCR: processor.pcr,
            ControlSpace.KPRCB: processor.prcb,
            ControlSpace.KTHREAD: processor.thread,
        }
        if fields["address"] == ControlSpace.SPECIAL_REGISTERS:
            whole = processor.special_registers
        elif fields["address"] in pointers:
            whole = pointers[ControlSpace(fields["address"])].to_bytes(8, "little")
        else:
            return Answer(request.reply(STATUS_UNSUCCESSFUL, actual_bytes=0))
        data = whole if self.behaviour.whole_control_space else whole[: fields["transfer_count"]]
        return Answer(request.reply(STATUS_SUCCESS, data=data, actual_bytes=len(whole)))

    def _write_control_space(self, request: Manipulate) -> Answer:
        processor = self._processor_of(request)
        if processor is None or request.fields()["address"] != ControlSpace.SPECIAL_REGISTERS:
            return Answer(request.reply(STATUS_UNSUCCESSFUL, actual_bytes=0))
        size = len(processor.special_registers)
        processor.special_registers = request.data[:size] + processor.special_registers[len(request.data) :]
        self._translated.clear()
        echo = request.data if self.behaviour.echo_control_writes else b""
        return Answer(request.reply(STATUS_SUCCESS, data=echo, actual_bytes=min(size, len(request.data))))

    # ---- breakpoints ---------------------------------------------------------------------------------------

    def _insert_breakpoint(self, address: int) -> int:
        """A handle, or 0: the address has one already, or all 32 are in use (T21, T22)."""
        free = next((n for n in range(1, _MOST_BREAKPOINTS + 1) if n not in self._breakpoints), 0)
        if not free or any(entry.address == address for entry in self._breakpoints.values()):
            return 0
        original = self.read_virtual(address, 1) or None
        if original is not None:
            self.write_virtual(address, AMD64.break_instruction)
        self._breakpoints[free] = _Breakpoint(address, original)
        return free

    def _remove_breakpoint(self, handle: int) -> bool:
        entry = self._breakpoints.pop(handle, None)
        if entry is None:
            return False
        if entry.original is not None:
            self.write_virtual(entry.address, entry.original)
        return True

    def _write_break_point(self, request: Manipulate) -> Answer:
        handle = self._insert_breakpoint(request.fields()["address"])
        return Answer(request.reply(STATUS_SUCCESS if handle else STATUS_UNSUCCESSFUL, handle=handle))

    def _restore_break_point(self, request: Manipulate) -> Answer:
        good = self._remove_breakpoint(request.fields()["handle"])
        return Answer(request.reply(STATUS_SUCCESS if good else STATUS_UNSUCCESSFUL))

    def _write_break_point_ex(self, request: Manipulate) -> Answer:
        fields = request.fields()
        count = fields["count"]
        if count > _MOST_BREAKPOINTS or len(request.data) != count * 16:
            return Answer(request.reply(STATUS_UNSUCCESSFUL))
        table = bytearray(request.data)
        entries = [
            (int.from_bytes(table[at : at + 8], "little"), int.from_bytes(table[at + 8 : at + 12], "little"))
            for at in range(0, len(table), 16)
        ]
        for _, handle in entries:
            if handle:
                self._remove_breakpoint(handle)
        status = STATUS_SUCCESS
        for number, (address, _) in enumerate(entries):
            if address:
                handle = self._insert_breakpoint(address)
                table[number * 16 + 8 : number * 16 + 12] = handle.to_bytes(4, "little")
                status = status if handle else STATUS_UNSUCCESSFUL
        effect = Effect.CONTINUE if fields["continue_status"] else Effect.NONE
        return Answer(request.reply(status, data=bytes(table)), effect)

    def _restore_break_point_ex(self, request: Manipulate) -> Answer:
        count = request.fields()["count"]
        if count > _MOST_BREAKPOINTS or len(request.data) != count * 4:
            return Answer(request.reply(STATUS_UNSUCCESSFUL))
        handles = [int.from_bytes(request.data[at : at + 4], "little") for at in range(0, count * 4, 4)]
        removed = [self._remove_breakpoint(handle) for handle in handles]
        good = all(removed)
        return Answer(request.reply(STATUS_SUCCESS if good else STATUS_UNSUCCESSFUL, data=request.data))

    # ---- the rest ------------------------------------------------------------------------------------------

    def _io_space(self, request: Manipulate) -> Answer:
        fields = request.fields()
        size = fields["data_size"]
        if size not in (1, 2, 4):
            return Answer(request.reply(STATUS_INVALID_PARAMETER))
        if fields["io_address"] & size - 1:
            return Answer(request.reply(STATUS_DATATYPE_MISALIGNMENT))
        if request.api in (ApiNumber.READ_IO_SPACE, ApiNumber.READ_IO_SPACE_EXTENDED):
            # Nothing is decoded there: an empty bus reads as ones.
            return Answer(request.reply(STATUS_SUCCESS, data_value=(1 << 8 * size) - 1))
        return Answer(request.reply(STATUS_SUCCESS))

    def _io_space_extended(self, request: Manipulate) -> Answer:
        fields = request.fields()
        if (fields["interface_type"], fields["bus_number"], fields["address_space"]) != (1, 0, 1):
            return Answer(request.reply(STATUS_INVALID_PARAMETER))
        return self._io_space(request)

    def _read_msr(self, request: Manipulate) -> Answer:
        processor = self.stopped_processor
        special = AMD64.special_registers.decode(processor.special_registers, least=0xA8)
        values: Mapping[int, int] = {
            0xC000_0080: 0xD01,  # EFER: SCE, LME, LMA, NXE
            0xC000_0081: special["msr_star"],
            0xC000_0082: special["msr_l_star"],
            0xC000_0083: special["msr_c_star"],
            0xC000_0084: special["msr_syscall_mask"],
            0xC000_0101: processor.pcr,
            0xC000_0102: special["msr_gs_swap"],
            **self._msrs,
        }
        value = values.get(request.fields()["msr"])
        if value is None:
            return Answer(request.reply(STATUS_NO_SUCH_DEVICE))
        return Answer(request.reply(STATUS_SUCCESS, low=value & 0xFFFF_FFFF, high=value >> 32))

    def _write_msr(self, request: Manipulate) -> Answer:
        fields = request.fields()
        self._msrs[fields["msr"]] = fields["low"] | fields["high"] << 32
        return Answer(request.reply(STATUS_SUCCESS))

    def _search_memory(self, request: Manipulate) -> Answer:
        fields = request.fields()
        pattern = request.data[: fields["pattern_length"]]
        data = self.read_virtual(fields["address"], min(fields["search_length"], _LARGEST_SEARCH))
        at = data.find(pattern) if pattern else -1
        if at < 0:
            return Answer(request.reply(STATUS_NOT_FOUND))
        return Answer(request.reply(STATUS_SUCCESS, address=fields["address"] + at))

    def _fill_memory(self, request: Manipulate) -> Answer:
        fields = request.fields()
        pattern = request.data[: fields["pattern_length"]]
        length = fields["length"]
        if not pattern or length > _LARGEST_SEARCH:
            return Answer(request.reply(STATUS_INVALID_PARAMETER))
        data = (pattern * (length // len(pattern) + 1))[:length]
        if fields["flags"] == _PATTERN_PHYSICAL:
            done = length if self.memory.write(fields["address"], data) else 0
            self._translated.clear()
        else:
            done = self.write_virtual(fields["address"], data)
        return Answer(request.reply(STATUS_SUCCESS if done == length else STATUS_UNSUCCESSFUL, length=done))

    def _query_memory(self, request: Manipulate) -> Answer:
        fields = request.fields()
        if fields["address_space"]:
            return Answer(request.reply(STATUS_INVALID_PARAMETER))
        kernel = fields["address"] >> 47 != 0
        return Answer(request.reply(STATUS_SUCCESS, reserved=0, address_space=2 if kernel else 0, flags=7))

    def _query_special_calls(self, request: Manipulate) -> Answer:
        return Answer(request.reply(STATUS_SUCCESS, count=0))

    def _succeed(self, request: Manipulate) -> Answer:
        return Answer(request.reply(STATUS_SUCCESS))

    def _silent(self, request: Manipulate) -> Answer:
        return Answer(None)

    def _continue(self, request: Manipulate) -> Answer:
        return Answer(None, Effect.CONTINUE)

    def _continue2(self, request: Manipulate) -> Answer:
        fields = request.fields()
        if not fields["continue_status"] & 0x8000_0000:
            context = AMD64.context.decode(self.stopped_processor.context)
            flags = context["e_flags"] & ~AMD64.trace_flag
            if fields["trace_flag"]:
                flags |= AMD64.trace_flag
            self.stopped_processor.set(e_flags=flags)
            for processor in self.processors:
                size = len(processor.special_registers)
                registers = {"kernel_dr7": fields["dr7"], "kernel_dr6": 0}
                processor.special_registers = AMD64.special_registers.encode(
                    registers, processor.special_registers, size
                )
        return Answer(None, Effect.CONTINUE)

    def _reboot(self, request: Manipulate) -> Answer:
        return Answer(None, Effect.REBOOT)

    def _cause_bug_check(self, request: Manipulate) -> Answer:
        return Answer(None, Effect.CRASH)

    def _switch_processor(self, request: Manipulate) -> Answer:
        if request.processor < len(self.processors):
            self.current = request.processor
        return Answer(None, Effect.SWITCH)


_HANDLERS: Mapping[int, Callable[[Machine, Manipulate], Answer]] = {
    ApiNumber.GET_VERSION: Machine._get_version,
    ApiNumber.READ_VIRTUAL_MEMORY: Machine._read_virtual,
    ApiNumber.WRITE_VIRTUAL_MEMORY: Machine._write_virtual,
    ApiNumber.READ_PHYSICAL_MEMORY: Machine._read_physical,
    ApiNumber.WRITE_PHYSICAL_MEMORY: Machine._write_physical,
    ApiNumber.GET_CONTEXT: Machine._get_context,
    ApiNumber.SET_CONTEXT: Machine._set_context,
    ApiNumber.GET_CONTEXT_EX: Machine._get_context_ex,
    ApiNumber.SET_CONTEXT_EX: Machine._set_context_ex,
    ApiNumber.READ_CONTROL_SPACE: Machine._read_control_space,
    ApiNumber.WRITE_CONTROL_SPACE: Machine._write_control_space,
    ApiNumber.WRITE_BREAK_POINT: Machine._write_break_point,
    ApiNumber.RESTORE_BREAK_POINT: Machine._restore_break_point,
    ApiNumber.WRITE_BREAK_POINT_EX: Machine._write_break_point_ex,
    ApiNumber.RESTORE_BREAK_POINT_EX: Machine._restore_break_point_ex,
    ApiNumber.READ_IO_SPACE: Machine._io_space,
    ApiNumber.WRITE_IO_SPACE: Machine._io_space,
    ApiNumber.READ_IO_SPACE_EXTENDED: Machine._io_space_extended,
    ApiNumber.WRITE_IO_SPACE_EXTENDED: Machine._io_space_extended,
    ApiNumber.READ_MACHINE_SPECIFIC_REGISTER: Machine._read_msr,
    ApiNumber.WRITE_MACHINE_SPECIFIC_REGISTER: Machine._write_msr,
    ApiNumber.SEARCH_MEMORY: Machine._search_memory,
    ApiNumber.FILL_MEMORY: Machine._fill_memory,
    ApiNumber.QUERY_MEMORY: Machine._query_memory,
    ApiNumber.QUERY_SPECIAL_CALLS: Machine._query_special_calls,
    ApiNumber.CHECK_LOW_MEMORY: Machine._succeed,
    ApiNumber.SET_SPECIAL_CALL: Machine._silent,
    ApiNumber.CLEAR_SPECIAL_CALLS: Machine._silent,
    ApiNumber.SET_INTERNAL_BREAK_POINT: Machine._silent,
    ApiNumber.CLEAR_ALL_INTERNAL_BREAKPOINTS: Machine._silent,
    ApiNumber.CONTINUE: Machine._continue,
    ApiNumber.CONTINUE2: Machine._continue2,
    ApiNumber.REBOOT: Machine._reboot,
    ApiNumber.CAUSE_BUG_CHECK: Machine._cause_bug_check,
    ApiNumber.SWITCH_PROCESSOR: Machine._switch_processor,
}
"""What is not here is answered C0000001, with the 56 bytes echoed (kd-protocol 3.2)."""
