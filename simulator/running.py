"""A machine that goes on: the processor that stopped executes the code that the simulator makes its functions of.

It knows the instructions that `code` and `modules` write, and no others. At one that it does not know, at a wait, or
at the end of a thread the processor rests there, and the machine runs on without it. Breakpoints, single steps and
execution breakpoints in debug registers come out of this as they do on a real processor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.arch import AMD64
from protocol.ntstatus import STATUS_BREAKPOINT, STATUS_SINGLE_STEP

from .events import Stop
from .kernel import SimulatedKernel
from .machine import Machine

__all__ = ["executes"]

_MOST_INSTRUCTIONS = 2_000
"""A loop that a debugger writes into memory ends here: the machine runs, and nothing more is seen of it."""

_NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))
_VOLATILE = ("rax", "rcx", "rdx", "r8", "r9", "r10", "r11")
_RSP, _MASK = 4, (1 << 64) - 1
_ARITHMETIC = 0x8C5  # CF, PF, ZF, SF, OF
_NO_EVENT, _SINGLE_STEP = 0xFFFF0FF0, 0x4000  # DR6

_NEVER_CALLED = (
    "mydrv!GiveUp", "mydrv!AverageDepth", "mydrv!UnlinkEntry", "mydrv!TellOwner", "mydrv!StopOwner",
    "labflt!FlushWorkItem", "labflt!PassDown", "labflt!DispatchDeviceControl",
    "KeBugCheckEx", "KiBugCheckDispatch", "KiExceptionDispatch", "DbgBreakPointWithStatus",
)  # fmt: skip
"""The way into a crash or a break: the made code has no branch around it, so a call to one of these is not made."""

_WAITING = 6
"""Bytes of SwapContext's prolog. Behind it another thread runs."""

_TRAP_FRAME_TO_MACHINE_FRAME = 0x168
_TRAP_FRAME_VOLATILE = 0x30
"""KTRAP_FRAME: the handlers' code leaves out what a real one restores from there."""


def executes(kernel: SimulatedKernel) -> Callable[[Machine], Stop | None]:
    """The `step` of a target: lets the stopped processor run, and says where it stopped again, or None."""
    never = frozenset(kernel.symbols[name] for name in _NEVER_CALLED)
    # A machine that nobody broke into yet stands where the break-in will put it, and has not executed that int3.
    resting = frozenset({kernel.symbols["SwapContext"] + _WAITING, kernel.symbols["DbgBreakPointWithStatus"]})

    def step(machine: Machine) -> Stop | None:
        return _Run(machine, never, resting).run()

    return step


class _RestError(Exception):
    """The processor does not get past this instruction."""


@dataclass(slots=True)
class _Place:
    """An operand: a register, or memory."""

    size: int
    register: int | None = None
    address: int = 0


@dataclass(slots=True)
class _Run:
    machine: Machine
    never: frozenset[int]
    resting: frozenset[int]
    rip: int = field(init=False)
    flags: int = field(init=False)
    registers: list[int] = field(init=False)
    _code: bytes = b""
    _at: int = 0
    _rex: int = 0

    def __post_init__(self) -> None:
        context = AMD64.context.decode(self.machine.stopped_processor.context)
        self.rip, self.flags = context["rip"], context["e_flags"]
        self.registers = [context[name] for name in _NAMES]

    def run(self) -> Stop | None:
        """Until something stops it (then the exception), or it rests (then None)."""
        special = AMD64.special_registers.decode(self.machine.stopped_processor.special_registers, least=0x48)
        control = special["kernel_dr7"]
        watched = {
            special[f"kernel_dr{number}"]: 1 << number
            for number in range(4)
            if control >> 2 * number & 3 and not control >> 16 + 4 * number & 3
        }
        tracing = bool(self.flags & AMD64.trace_flag)
        self.flags &= ~AMD64.trace_flag
        stop, event = None, 0
        for count in range(_MOST_INSTRUCTIONS):
            if count and self.rip in watched:
                stop, event = Stop(STATUS_SINGLE_STEP), watched[self.rip]
                break
            if count and tracing:
                stop, event = Stop(STATUS_SINGLE_STEP), _SINGLE_STEP
                break
            if self.rip in self.resting:
                break
            code = self.machine.read_virtual(self.rip, 15)
            if code[:1] == AMD64.break_instruction:
                stop = Stop(STATUS_BREAKPOINT)
                break
            try:
                self._execute(code)
            except _RestError:
                break
        self._keep(event)
        return stop

    def _keep(self, event: int) -> None:
        processor = self.machine.stopped_processor
        values = dict(zip(_NAMES, self.registers, strict=True))
        processor.set(rip=self.rip, e_flags=self.flags, dr6=_NO_EVENT | event if event else 0, **values)
        if event:
            processor.set_special(kernel_dr6=_NO_EVENT | event)

    # ---- one instruction -------------------------------------------------------------------------------------------

    def _execute(self, code: bytes) -> None:
        before = self.rip, self.flags, list(self.registers)
        self._code, self._at, self._rex = code, 0, 0
        try:
            self._carry_out()
        except _RestError:
            self.rip, self.flags, self.registers = before
            raise

    def _carry_out(self) -> None:
        opcode = self._fetch()
        if opcode == 0xF3:  # in front of a nop: pause
            opcode = self._fetch()
        if opcode & 0xF0 == 0x40:
            self._rex, opcode = opcode, self._fetch()
        wide = 8 if self._rex & 8 else 4
        if opcode == 0x0F:
            opcode = 0x0F00 | self._fetch()
        if opcode & 0xF8 == 0x50:
            self._push(self.registers[self._extended(opcode)])
        elif opcode & 0xF8 == 0x58:
            self.registers[self._extended(opcode)] = self._pop()
        elif opcode & 0xF8 == 0xB8:
            self._write(_Place(wide, self._extended(opcode)), self._immediate(4))
        elif opcode in (0x33, 0x8B, 0x8D, 0x0FB6):
            self._into_register(opcode, wide)
        elif opcode in (0x85, 0x89):
            number, place = self._operands(wide)
            if opcode == 0x85:
                self._set_flags(self._read(place) & self._read(_Place(wide, number)), wide)
            else:
                self._write(place, self._read(_Place(wide, number)))
        elif opcode in (0x81, 0x83):
            self._add_or_subtract(wide, self._operands(wide), 1 if opcode == 0x83 else 4)
        elif opcode in (0xE8, 0xFF):
            self._call(opcode)
            return
        elif opcode == 0xC3:
            target = self._pop()
            if not target:
                raise _RestError  # the outermost function of a thread
            self.rip = target
            return
        elif opcode == 0xCF:
            self._return_from_interrupt()
            return
        elif opcode == 0x74:
            offset = self._immediate(1)
            self._at += offset if self.flags & 0x40 else 0
        elif opcode == 0x0F01 and self._fetch() == 0xC8:
            pass  # monitor; its sister mwait is where an idle processor rests
        elif opcode != 0x90:
            raise _RestError
        self.rip = self.rip + self._at & _MASK

    def _into_register(self, opcode: int, wide: int) -> None:
        number, place = self._operands(wide)
        destination = _Place(wide, number)
        if opcode == 0x8D:
            if place.register is not None:
                raise _RestError
            self._write(destination, place.address)
        elif opcode == 0x0FB6:
            self._write(destination, self._read(place) & 0xFF)
        elif opcode == 0x8B:
            self._write(destination, self._read(place))
        else:
            result = self._read(destination) ^ self._read(place)
            self._set_flags(result, wide)
            self._write(destination, result)

    def _add_or_subtract(self, wide: int, operands: tuple[int, _Place], immediate_size: int) -> None:
        kind, place = operands
        if kind & 7 not in (0, 5):
            raise _RestError
        mask = (1 << 8 * wide) - 1
        old, value = self._read(place), self._immediate(immediate_size) & mask
        result = old + value if kind & 7 == 0 else old - value
        self._set_flags(result & mask, wide)
        if result != result & mask:
            self.flags |= 0x001
        other = value if kind & 7 == 0 else ~value
        if (old ^ result) & (other ^ result) & mask + 1 >> 1:
            self.flags |= 0x800
        self._write(place, result & mask)

    def _call(self, opcode: int) -> None:
        if opcode == 0xE8:
            offset = self._immediate(4)
            target = self.rip + self._at + offset & _MASK
        else:
            kind, place = self._operands(8)
            if kind & 7 != 2:
                raise _RestError
            target = self._read(place)
        back = self.rip + self._at & _MASK
        if target not in self.never:
            self._push(back)
            back = target
        self.rip = back

    def _return_from_interrupt(self) -> None:
        frame = self.registers[_RSP] - _TRAP_FRAME_TO_MACHINE_FRAME
        self.rip, _, self.flags = self._pop(), self._pop(), self._pop() & ~AMD64.trace_flag & 0xFFFF_FFFF
        self.registers[_RSP] = self._load(self.registers[_RSP], 8)
        for number, name in enumerate(_VOLATILE):
            self.registers[_NAMES.index(name)] = self._load(frame + _TRAP_FRAME_VOLATILE + 8 * number, 8)

    # ---- its parts -------------------------------------------------------------------------------------------------

    def _fetch(self) -> int:
        if self._at >= len(self._code):
            raise _RestError
        self._at += 1
        return self._code[self._at - 1]

    def _immediate(self, size: int) -> int:
        data = bytes(self._fetch() for _ in range(size))
        return int.from_bytes(data, "little", signed=True)

    def _extended(self, opcode: int) -> int:
        return opcode & 7 | (self._rex & 1) << 3

    def _operands(self, size: int) -> tuple[int, _Place]:
        """The register (or the kind of instruction) and the other operand of a ModRM byte."""
        byte = self._fetch()
        mode, number, base = byte >> 6, byte >> 3 & 7 | (self._rex & 4) << 1, byte & 7
        if mode == 3:
            return number, _Place(size, self._extended(base))
        if base == 4:
            sib = self._fetch()
            if sib >> 3 & 7 != 4 or self._rex & 2:
                raise _RestError
            base = sib & 7
        elif base == 5 and mode == 0:
            offset = self._immediate(4)
            return number, _Place(size, None, self.rip + self._at + offset & _MASK)
        offset = self._immediate((0, 1, 4)[mode])
        return number, _Place(size, None, self.registers[self._extended(base)] + offset & _MASK)

    def _read(self, place: _Place) -> int:
        if place.register is None:
            return self._load(place.address, place.size)
        return self.registers[place.register] & (1 << 8 * place.size) - 1

    def _write(self, place: _Place, value: int) -> None:
        value &= (1 << 8 * place.size) - 1
        if place.register is not None:
            self.registers[place.register] = value
        elif self.machine.write_virtual(place.address, value.to_bytes(place.size, "little")) < place.size:
            raise _RestError

    def _load(self, address: int, size: int) -> int:
        data = self.machine.read_virtual(address & _MASK, size)
        if len(data) < size:
            raise _RestError
        return int.from_bytes(data, "little")

    def _push(self, value: int) -> None:
        top = self.registers[_RSP] - 8 & _MASK
        self._write(_Place(8, None, top), value)
        self.registers[_RSP] = top

    def _pop(self) -> int:
        value = self._load(self.registers[_RSP], 8)
        self.registers[_RSP] = self.registers[_RSP] + 8 & _MASK
        return value

    def _set_flags(self, result: int, size: int) -> None:
        """As a logical instruction does: carry and overflow are clear."""
        self.flags &= ~_ARITHMETIC
        self.flags |= 0x04 if not (result & 0xFF).bit_count() % 2 else 0
        self.flags |= 0x40 if not result else 0
        self.flags |= 0x80 if result >> 8 * size - 1 & 1 else 0
