"""Random call chains: an image of random functions, and processors that stand in them, called and interrupted.

One seed gives the same chains ever again. What is on the stacks is what the functions' own code put there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from protocol.address import PAGE_SHIFT, PAGE_SIZE

from .code import NONVOLATILE
from .errors import SimulationError
from .pe import ImageSpec
from .processes import SimulatedThread
from .routines import LEAST_ROOM, Routine, build_leaf, build_routine
from .situations import Standing, ThreadKind
from .space import KernelSpace
from .stacks import CallChain, LoadedImages, StackFrame, context_frame

__all__ = ["IMAGE_NAME", "ChainPlan", "Link", "chains_image", "plan_chain", "stand_in_chain"]

IMAGE_NAME = "chains"
"""Name of the image, as symbols have it."""

_ELSEWHERE = "SomewhereElse"
"""A leaf: whoever makes a tail call calls it, and it stands for every language's exception handler."""

_STACK, _HUGE_STACK = 6, 0x90
"""Pages."""
_HUGE_FRAME = 0x80000
"""From 512 KiB - 8 on only one form of unwind code can say it."""
_KERNEL_CS, _KERNEL_SS, _USER_CS, _USER_SS = 0x10, 0x18, 0x33, 0x2B
_FLAGS = 0x246
_HIGH_LEVEL = 15


@dataclass(frozen=True, slots=True)
class Link:
    """One function of a chain. `stack` is the number of the stack it is entered on."""

    routine: Routine
    stack: int
    interrupts: bool
    """The processor entered it: an interrupt or a system call."""


@dataclass(frozen=True, slots=True)
class ChainPlan:
    """The functions of a chain, outermost first, and the sizes of its stacks in pages; the first is the thread's."""

    links: tuple[Link, ...]
    from_user: bool
    stacks: tuple[int, ...]


@lru_cache(maxsize=64)
def plan_chain(seed: int, number: int) -> ChainPlan:
    """The chain with this number. Its functions are made once: an image and a processor both need them."""
    rng = random.Random(f"call chain {seed} {number}")
    from_user = rng.random() < 0.3
    stacks = [_STACK]
    links: list[Link] = []
    room = (_STACK << PAGE_SHIFT) - 0x100
    length, interrupts = rng.randrange(3, 13), 0
    entered, stack, huge = from_user, 0, False
    while True:
        name = f"chain{number}_{len(links)}"
        last = len(links) >= length - 1 or room < 2 * LEAST_ROOM
        by_interrupt = not last and interrupts < 3 and rng.random() < 0.25
        if (last or by_interrupt) and not entered and rng.random() < 0.3:
            routine = build_leaf(rng, name)
        else:
            routine = build_routine(
                rng,
                name,
                leave="stop" if last or by_interrupt else "call",
                callee=f"chain{number}_{len(links) + 1}",
                elsewhere=_ELSEWHERE,
                room=min(room, 0x1800),
                handler=entered,
                error_code=entered and rng.random() < 0.5,
                size=_HUGE_FRAME + 8 * rng.randrange(0x400) if huge else 0,
            )
        links.append(Link(routine, stack, entered))
        room -= _used(routine)
        if last:
            return ChainPlan(tuple(links), from_user, tuple(stacks))
        entered, huge = by_interrupt, False
        interrupts += by_interrupt
        if by_interrupt and rng.random() < 0.6:
            huge = number % 8 == 3 and _HUGE_STACK not in stacks
            stacks.append(_HUGE_STACK if huge else _STACK)
            stack = len(stacks) - 1
            room = (_STACK << PAGE_SHIFT) - 0x100


def chains_image(seed: int, count: int) -> ImageSpec:
    """The image that holds the functions of the chains 0 to count - 1."""
    leaf = build_leaf(random.Random(f"call chains {seed}"), _ELSEWHERE).function
    chains = [plan_chain(seed, number) for number in range(count)]
    return ImageSpec(
        name=IMAGE_NAME,
        file_name=f"{IMAGE_NAME}.sys",
        path=rf"\SystemRoot\System32\drivers\{IMAGE_NAME}.sys",
        functions=(leaf, *(link.routine.function for chain in chains for link in chain.links)),
        entry=_ELSEWHERE,
        pdb_name=f"{IMAGE_NAME}.pdb",
        time_date_stamp=0x5F000000 + seed % 0x1000000,
        check_sum=0x12345,
    )


def stand_in_chain(
    plan: ChainPlan,
    space: KernelSpace,
    images: LoadedImages,
    rng: random.Random,
    new_thread: Callable[[ThreadKind], SimulatedThread],
) -> Standing:
    """Carry the chain on, function by function, and leave the processor where its last one stops."""
    thread = new_thread("user" if plan.from_user else "system")
    tops = [(thread.stack_base, thread.stack_limit)]
    tops += [space.allocate_stack(pages) for pages in plan.stacks[1:]]
    processor = _Processor(rng, tops)
    processor.run(plan, images, (thread.process.image_base + PAGE_SIZE + 10, thread.process.user_stack))
    for base, limit in tops[1:]:
        for page in range(limit, base, PAGE_SIZE):
            space.write(page, processor.page(page))
    chain = CallChain(images, thread.stack_base, thread.stack_limit, rng)
    own = range(thread.stack_limit, thread.stack_base, PAGE_SIZE)
    chain.memory = bytearray(b"".join(processor.page(address) for address in own))
    chain.frames = processor.frames[::-1]
    chain.stack_pointer = processor.registers["rsp"]
    context = {**context_frame(), **processor.registers, "rip": processor.frames[-1].instruction, "e_flags": _FLAGS}
    stale = {**context_frame(), "rip": images.address("nt!SwapContext"), "rsp": thread.stack_base - 0x400}
    return Standing(thread, chain, context, stale, _HIGH_LEVEL, from_user=plan.from_user and len(plan.links) == 1)


@dataclass(slots=True)
class _Processor:
    """It carries on what functions do to rsp, to non-volatile registers and to stacks (base, limit)."""

    rng: random.Random
    stacks: list[tuple[int, int]]
    registers: dict[str, int] = field(default_factory=dict)
    pages: dict[int, bytearray] = field(default_factory=dict)
    frames: list[StackFrame] = field(default_factory=list)
    """Outermost first."""

    def run(self, plan: ChainPlan, images: LoadedImages, user: tuple[int, int]) -> None:
        """The whole chain. `user` is where user code made its system call: instruction and stack pointer."""
        self.registers = {name: self.rng.randrange(1 << 32) for name in NONVOLATILE}
        base, _ = self.stacks[0]
        self.registers["rsp"] = base - (0 if plan.from_user else 0x50)
        site = user[0] if plan.from_user else 0
        for number, link in enumerate(plan.links):
            if not link.interrupts:
                self.push(site)
            elif number == 0:
                self._interrupt(link.routine, user[0], (_USER_CS, _USER_SS), user[1], base)
            else:
                pointer = self.registers["rsp"]
                top = pointer if link.stack == plan.links[number - 1].stack else self.stacks[link.stack][0]
                self._interrupt(link.routine, site, (_KERNEL_CS, _KERNEL_SS), pointer, top)
            symbol = f"{IMAGE_NAME}!{link.routine.function.name}"
            for instruction in link.routine.instructions:
                if instruction.runs and instruction.act and instruction.offset < link.routine.leaves_at:
                    self._carry_out(*instruction.act)
            self._check(link.stack, symbol)
            at = images.address(symbol) + link.routine.leaves_at
            self.frames.append(StackFrame(symbol, at, self.registers["rsp"], site))
            site = at

    def page(self, address: int) -> bytes:
        """A page of a stack."""
        return bytes(self.pages.get(address, bytes(PAGE_SIZE)))

    def push(self, value: int) -> None:
        """Onto the stack."""
        self.registers["rsp"] -= 8
        self._put(self.registers["rsp"], value)

    def _interrupt(self, routine: Routine, site: int, selectors: tuple[int, int], pointer: int, top: int) -> None:
        """What the processor pushes."""
        self.registers["rsp"] = top & ~15
        for value in (selectors[1], pointer, _FLAGS, selectors[0], site):
            self.push(value)
        if routine.error_code:
            self.push(self.rng.randrange(16))

    def _carry_out(self, verb: str, register: str, number: int) -> None:
        registers = self.registers
        match verb:
            case "push":
                self.push(registers[register])
            case "pop":
                registers[register] = self._get(registers["rsp"])
                registers["rsp"] += 8
            case "move":
                registers["rsp"] += number
            case "frame":
                registers[register] = registers["rsp"] + number
            case "leave":
                registers["rsp"] = registers[register] + number
            case "save":
                self._put(registers["rsp"] + number, registers[register])
            case "load":
                name, _, base = register.partition(" ")
                registers[name] = self._get(registers[base] + number)
            case "set":
                registers[register] = number
            case _:
                raise SimulationError(f"no processor knows how to {verb}")

    def _check(self, stack: int, symbol: str) -> None:
        base, limit = self.stacks[stack]
        if not limit + 0x100 <= self.registers["rsp"] <= base:
            raise SimulationError(f"the stack is too small for {symbol}")

    def _put(self, address: int, value: int) -> None:
        page = self.pages.setdefault(address & -PAGE_SIZE, bytearray(PAGE_SIZE))
        at = address % PAGE_SIZE
        page[at : at + 8] = value.to_bytes(8, "little")

    def _get(self, address: int) -> int:
        at = address % PAGE_SIZE
        return int.from_bytes(self.pages.get(address & -PAGE_SIZE, bytearray(PAGE_SIZE))[at : at + 8], "little")


def _used(routine: Routine) -> int:
    """Bytes of stack that a function takes while it runs to where it is left, and what is pushed to enter it."""
    taken = 0x40
    for instruction in routine.instructions:
        if instruction.runs and instruction.act and instruction.offset < routine.leaves_at:
            verb, _, number = instruction.act
            taken += 8 if verb == "push" else -number if verb == "move" and number < 0 else 0
    return taken if taken < _HUGE_FRAME else taken - _HUGE_FRAME
