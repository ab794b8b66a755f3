"""Call chains laid on a stack: return addresses, saved registers, trap frames, and the list of frames that is true."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from protocol.arch import AMD64

from .code import NONVOLATILE, Function
from .errors import SimulationError
from .pe import ImagePlan

__all__ = ["CallChain", "LoadedImages", "StackFrame", "context_frame"]

_KERNEL_CS, _KERNEL_SS, _USER_CS, _USER_DS, _USER_TEB = 0x10, 0x18, 0x33, 0x2B, 0x53
_VOLATILE = ("rax", "rcx", "rdx", "r8", "r9", "r10", "r11")


@dataclass(frozen=True, slots=True)
class StackFrame:
    """One line of WinDbg's `k`: Child-SP, RetAddr, and the instruction that its call site names."""

    function: str
    instruction: int
    stack_pointer: int
    return_address: int


class LoadedImages:
    """Every image with its base; addresses by "module!name"."""

    __slots__ = ("_images",)

    def __init__(self, images: Mapping[str, tuple[ImagePlan, int]]) -> None:
        self._images = images

    def address(self, symbol: str) -> int:
        """Where a function or variable lies."""
        plan, base, name = self._find(symbol)
        return base + plan.rvas[name]

    def range_of(self, module: str) -> tuple[int, int]:
        """Where an image begins, and its size in bytes."""
        plan, base = self._images[module]
        return base, plan.size

    def function(self, symbol: str) -> Function:
        """How a function is built."""
        plan, _, name = self._find(symbol)
        return plan.functions[name].function

    def event_site(self, symbol: str) -> int:
        """The instruction at which a function stops; its first one where it has none."""
        plan, base, name = self._find(symbol)
        return base + (plan.rvas[name] if plan.functions[name].event_offset is None else plan.event_site(name))

    def return_site(self, caller: str, callee: str) -> int:
        """The instruction behind the call in `caller`."""
        plan, base, name = self._find(caller)
        module, _, target = callee.partition("!")
        return base + plan.return_site(name, target if caller.startswith(f"{module}!") else callee)

    def symbols(self) -> dict[str, int]:
        """Every name: the kernel's plain, the others' with their module."""
        return {
            name if module == "nt" else f"{module}!{name}": base + rva
            for module, (plan, base) in self._images.items()
            for name, rva in plan.rvas.items()
        }

    def addresses(self) -> dict[str, int]:
        """Every name as "module!name"."""
        return {
            f"{module}!{name}": base + rva
            for module, (plan, base) in self._images.items()
            for name, rva in plan.rvas.items()
        }

    def _find(self, symbol: str) -> tuple[ImagePlan, int, str]:
        module, _, name = symbol.partition("!")
        if module not in self._images or name not in self._images[module][0].rvas:
            raise SimulationError(f"there is no {symbol}")
        plan, base = self._images[module]
        return plan, base, name


@dataclass(slots=True)
class CallChain:
    """A stack while calls are made on it, from the outermost function inwards.

    `registers` are the non-volatile ones as the innermost function has them now: every prolog saves those it uses,
    then its body gives them new values, so that a reader who unwinds gets back what the caller had.
    """

    images: LoadedImages
    base: int
    limit: int
    rng: random.Random
    pointers: tuple[int, ...] = ()
    """Addresses that registers may hold; others get small numbers."""
    registers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NONVOLATILE, 0))
    memory: bytearray = field(default_factory=bytearray)
    current: str = ""
    stack_pointer: int = 0
    entry_stack_pointer: int = 0
    """rsp at the first instruction of the innermost function: where its return address lies."""
    saved_return: int = 0
    frames: list[StackFrame] = field(default_factory=list)
    _user: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self.memory = bytearray(self.base - self.limit)
        self.stack_pointer = self.base - 0x50

    def enter_kernel(self, instruction: int, stack_pointer: int) -> None:
        """The chain starts in user mode: a system call from there comes next."""
        self._user = (instruction, stack_pointer)
        self.stack_pointer = self.base

    def call(self, symbol: str, *parameters: int) -> None:
        """The current function calls this one; `parameters` are found in the four home slots (and beyond)."""
        site = self.images.return_site(self.current, symbol) if self.current else 0
        self._leave(site)
        self._push(site)
        self.entry_stack_pointer = self.stack_pointer
        for number, value in enumerate(parameters):
            self._put(self.entry_stack_pointer + 8 + 8 * number, value)
        self._enter(symbol, site)

    def trap(
        self,
        symbol: str,
        flags: int = 0x10246,
        error_code: int = 0,
        fault_address: int = 0,
        volatile: Mapping[str, int] | None = None,
    ) -> None:
        """The processor interrupts the current function at its event, or user mode, and enters this handler.

        `volatile` are values of registers that are known; the others hold anything.
        """
        if self._user is not None:
            site, interrupted = self._user
            cs, ss = _USER_CS, _USER_DS
        else:
            site, interrupted = self.images.event_site(self.current), self.stack_pointer
            cs, ss = _KERNEL_CS, _KERNEL_SS
            self._leave(site)
            self.stack_pointer = interrupted & ~0xF
        for value in (ss, interrupted, flags, cs, site, error_code):
            self._push(value)
        rbp = self.registers["rbp"]
        self.entry_stack_pointer = self.stack_pointer
        self._enter(symbol, site)
        frame = self.stack_pointer  # the KTRAP_FRAME
        self._put(frame + 0x28, 0 if self._user is None else 1)  # PreviousMode
        self._put(frame + 0x2C, 0x1F80, 4)
        for number, name in enumerate(_VOLATILE):
            value = self._value(name)
            self._put(frame + 0x30 + 8 * number, (volatile or {}).get(name, value))
        self._put(frame + 0xD0, fault_address)
        self._put(frame + 0x158, rbp)
        self._user = None

    def stop(self, instruction: int | None = None) -> None:
        """The innermost function stands at its event, or where it is told."""
        self._leave(self.images.event_site(self.current) if instruction is None else instruction)
        self.frames.reverse()

    def context(self, instruction: int, volatile: Mapping[str, int], flags: int = 0x246) -> dict[str, int]:
        """The registers of the processor that runs this chain, as values of a CONTEXT."""
        values = {name: self._value(name) for name in _VOLATILE}
        values.update(self.registers)
        values.update(volatile)
        return {
            **context_frame(),
            **values,
            "rip": instruction,
            "rsp": self.stack_pointer,
            "e_flags": flags,
        }

    def reserve(self, offset: int, data: bytes) -> int:
        """Put bytes among the innermost function's locals; returns their address."""
        address = self.stack_pointer + offset
        self.memory[address - self.limit : address - self.limit + len(data)] = data
        return address

    def _enter(self, symbol: str, site: int) -> None:
        function = self.images.function(symbol)
        self.current, self.saved_return = symbol, site
        if function.literal is not None:
            return  # a leaf without a frame: rsp stays at the return address
        for register in function.pushes:
            self._push(self.registers[register])
        self.stack_pointer -= function.locals
        if self.stack_pointer < self.limit + 0x100:
            raise SimulationError(f"the stack is too small for {symbol}")
        for register, offset in function.saves:
            self._put(self.stack_pointer + offset, self.registers[register])
        for register in (*function.pushes, *(name for name, _ in function.saves)):
            self.registers[register] = self._value(register)
        if function.frame_offset is not None:
            self.registers["rbp"] = self.stack_pointer + function.frame_offset

    def _leave(self, instruction: int) -> None:
        """Whatever comes now, the current function stands at this instruction."""
        if self.current:
            self.frames.append(StackFrame(self.current, instruction, self.stack_pointer, self.saved_return))

    def _push(self, value: int) -> None:
        self.stack_pointer -= 8
        self._put(self.stack_pointer, value)

    def _put(self, address: int, value: int, size: int = 8) -> None:
        at = address - self.limit
        self.memory[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def _value(self, register: str) -> int:
        if self.pointers and self.rng.randrange(3):
            return self.rng.choice(self.pointers) + self.rng.randrange(8) * 0x10
        return self.rng.choice((0, 0, 1, 2, 0x80, self.rng.randrange(1 << 20)))


def context_frame() -> dict[str, int]:
    """What every CONTEXT of a processor in the kernel holds: selectors, flags, clean floating point state."""
    return {
        "context_flags": AMD64.context_flags_all,
        "mx_csr": 0x1F80,
        "mx_csr2": 0x1F80,
        "mx_csr_mask": 0xFFFF,
        "control_word": 0x27F,
        "seg_cs": _KERNEL_CS,
        "seg_ss": _KERNEL_SS,
        "seg_ds": _USER_DS,
        "seg_es": _USER_DS,
        "seg_fs": _USER_TEB,
        "seg_gs": _USER_DS,
    }
