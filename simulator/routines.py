"""Random functions that use every kind of x64 unwind data, each with code that the data really describe.

A function is built as a list of instructions, with what each does to rsp and to non-volatile registers, so that a
simulated processor can carry it on to the instruction at which it is left: by a call, an interrupt, or a stop.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from typing import Literal

from . import encoding as x64
from .code import NONVOLATILE, Fixup, Function, MadeCode
from .unwind_rows import UnwindRow

__all__ = ["LEAST_ROOM", "Instruction", "Leave", "Routine", "build_leaf", "build_routine"]

Leave = Literal["call", "stop"]
"""By a call of the next function, or wherever an interrupt or a stop finds it."""

LEAST_ROOM = 0x800
"""Bytes of stack without which none is built."""

_CHAININFO = 4
_PLACES = ("body", "body", "prolog", "epilog", "early", "part")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; `act` is what it does, `runs` whether it is carried out on the way to where it is left."""

    offset: int
    code: bytes
    act: x64.Act
    runs: bool


@dataclass(frozen=True, slots=True)
class Routine:
    """A function, and the instruction at which it is left (the one behind the call, if by a call)."""

    function: Function
    instructions: tuple[Instruction, ...]
    leaves_at: int
    uses: frozenset[str]
    """What it shows: names of unwind operations, "chained", "indirect", "version 2", "stop in epilog" …"""
    is_handler: bool = False
    error_code: bool = False


@dataclass(slots=True)
class _Frame:
    """What a function does with its stack."""

    pushes: list[str]
    homes: list[str]
    """Saved where the caller left room for parameters."""
    saves: list[tuple[str, int]]
    vectors: list[tuple[int, int]]
    size: int
    register: str | None
    offset: int
    spare: tuple[str, int] | None
    """A register and a place for it that only a part of the function needs."""
    dynamic: int = 0

    @property
    def clobbered(self) -> list[str]:
        """Registers that the body may use; not the one that holds the frame."""
        used = [*self.pushes, *self.homes, *(name for name, _ in self.saves)]
        return [name for name in used if name != self.register]

    def home(self, number: int) -> int:
        """Offset from rsp behind the prolog."""
        return self.size + 8 * len(self.pushes) + 8 + 8 * number


@dataclass(slots=True)
class _Builder:
    rng: random.Random
    name: str
    frame: _Frame
    is_handler: bool
    error_code: bool
    version: int
    callee: str
    """Empty: it calls nobody."""
    elsewhere: str
    """A function that a tail call may go to, and that handles exceptions."""
    place: str
    code: bytearray = field(default_factory=bytearray)
    instructions: list[Instruction] = field(default_factory=list)
    fixups: list[Fixup] = field(default_factory=list)
    places: dict[str, list[int]] = field(default_factory=dict)
    codes: list[tuple[int, bytes]] = field(default_factory=list)
    """Unwind codes of the prolog, in its order, each with the offset of the instruction behind its own."""
    epilogs: list[tuple[int, int]] = field(default_factory=list)
    uses: set[str] = field(default_factory=set)
    returns_at: int | None = None
    prolog_size: int = 0

    def add(self, instruction: x64.Coded, where: str, *, target: str = "", runs: bool = True) -> None:
        """One instruction. With a target, its last four bytes become the distance to that function."""
        code, act = instruction
        if runs:
            self.places.setdefault(where, []).append(len(self.code))
        self.instructions.append(Instruction(len(self.code), code, act, runs))
        self.code += code
        if target:
            self.fixups.append(Fixup(len(self.code) - 4, target, imported=False))

    # ---- parts of a function -------------------------------------------------------------------------------

    def prolog(self) -> None:
        """Saves, pushes, the allocation, the frame register, in the order in which compilers make them."""
        frame = self.frame
        for number, name in enumerate(frame.homes):
            self.add(x64.save(name, 8 + 8 * number), "prolog")
        for name in frame.pushes:
            self._did(x64.push(name), x64.unwind_push(name))
        self._did(x64.move_stack(-frame.size), x64.unwind_alloc(frame.size, self.rng))
        if frame.register is not None:
            self._did(x64.set_frame(frame.register, frame.offset), x64.unwind_code(3))
        for name, offset in frame.saves:
            self._did(x64.save(name, offset), x64.unwind_save(name, offset, far=self.rng.random() < 0.3))
        for number, offset in frame.vectors:
            self._did(x64.save_vector(number, offset), x64.unwind_vector(number, offset, far=self.rng.random() < 0.3))
        for number, name in enumerate(frame.homes):  # told late: until here the register is as it was
            self.codes.append((len(self.code), x64.unwind_save(name, frame.home(number), far=False)))
        self.prolog_size = len(self.code)
        self.uses |= {x64.OPERATIONS[code[0] & 15] for _, code in self.codes}

    def _did(self, instruction: x64.Coded, code: bytes) -> None:
        self.add(instruction, "prolog")
        self.codes.append((len(self.code), code))

    def begin_body(self) -> None:
        """More stack, if it takes any, and other values for the registers that it saved."""
        frame = self.frame
        if frame.dynamic:
            self.add(x64.move_stack(-frame.dynamic), "body")
            self.uses.add("dynamic allocation")
        for name in frame.clobbered:
            self.add(x64.set_register(name, self.rng.randrange(1 << 31)), "body")
        self.fill("body")

    def fill(self, where: str, *, runs: bool = True) -> None:
        """A few instructions that do nothing of interest."""
        for _ in range(self.rng.randrange(1, 5)):
            self.add((self.rng.choice(x64.FILLERS), None), where, runs=runs)

    def middle(self, where: str) -> None:
        """The call, or where nothing but an interrupt would leave it."""
        self.fill(where)
        if self.callee and self.returns_at is None:
            register = self.rng.choice((None, None, "rax", "r10"))
            if register is None:
                self.add((b"\xe8" + bytes(4), None), where, target=self.callee)
            else:
                self.add((x64.address_of(register), None), where, target=self.callee)
                self.add((x64.call_register(register), None), where)
            self.returns_at = len(self.code)
        self.fill(where)

    def epilog(self, where: str, *, runs: bool, tail_call: bool = False) -> None:
        """Give everything back, and return."""
        frame = self.frame
        base = (frame.register, -frame.offset) if frame.dynamic and frame.register else ("rsp", 0)
        for name, offset in frame.saves:
            self.add(x64.load(name, base[0], base[1] + offset), "body", runs=runs)
        for number, name in enumerate(frame.homes):
            self.add(x64.load(name, base[0], base[1] + frame.home(number)), "body", runs=runs)
        for number, offset in frame.vectors:
            self.add(x64.load_vector(number, base[0], base[1] + offset), "body", runs=runs)
        if frame.register and (frame.dynamic or self.rng.random() < 0.5):
            self.add(x64.leave_frame(frame.register, frame.size - frame.offset), where, runs=runs)
        else:
            self.add(x64.move_stack(frame.size), where, runs=runs)
        start = len(self.code)
        for name in reversed(frame.pushes):
            self.add(x64.pop(name), where, runs=runs)
        if self.is_handler:
            if self.error_code:
                self.add(x64.move_stack(8), where, runs=runs)
            self.add((b"\x48\xcf", None), where, runs=runs)  # iretq
        elif tail_call:
            self.add((b"\xe9" + bytes(4), None), where, target=self.elsewhere, runs=runs)
        else:
            plain = self.version == 2 or self.rng.random() < 0.5
            self.add((b"\xc3" if plain else b"\xf3\xc3", None), where, runs=runs)
        self.epilogs.append((start, len(self.code) - start))

    def early_exit(self, *, entered: bool) -> None:
        """An epilog in the middle of the body, behind a conditional jump that falls through, or jumped over."""
        self.add((b"\x33\xc0", None), "body")  # xor eax,eax: equal
        jump = len(self.code)
        self.add(((b"\x0f\x85" if entered else b"\x90\xe9") + bytes(4), None), "body")  # jne; nop and jmp
        self.epilog("early", runs=entered)
        self.land(jump, len(self.code))

    def land(self, jump: int, target: int) -> None:
        """Let the jump whose last four bytes end an instruction go there."""
        number = next(at for at, one in enumerate(self.instructions) if one.offset == jump)
        old = self.instructions[number]
        end = jump + len(old.code)
        code = old.code[:-4] + struct.pack("<i", target - end)
        self.instructions[number] = Instruction(jump, code, old.act, old.runs)
        self.code[jump:end] = code

    # ---- unwind data ---------------------------------------------------------------------------------------

    def info(self, flags: int) -> bytes:
        """UNWIND_INFO of the function's beginning."""
        slots = b""
        if self.version == 2:
            self.uses |= {"version 2", "EPILOG"}
            *early, (_, size) = self.epilogs
            slots += bytes([size, 0x16])
            for start, _ in early:
                from_end = len(self.code) - start
                slots += bytes([from_end & 0xFF, 6 | from_end >> 8 << 4])
            # As compilers do: the number of these codes is even (WinDbg's engine counts on it).
            slots += b"\0\x06" * (len(slots) % 4 // 2)
        for end, code in sorted(self.codes, key=lambda one: -one[0]):
            slots += bytes([end]) + code
        if self.is_handler:
            self.uses.add("PUSH_MACHFRAME with error code" if self.error_code else "PUSH_MACHFRAME")
            slots += bytes([0, 10 | self.error_code << 4])
        return self._encoded(flags, self.prolog_size, slots)

    def _encoded(self, flags: int, prolog_size: int, slots: bytes) -> bytes:
        frame = self.frame
        byte = 0 if frame.register is None else x64.REGISTERS[frame.register] | frame.offset // 16 << 4
        head = bytes([self.version | flags << 3, prolog_size, len(slots) // 2, byte])
        return head + slots + bytes(-len(slots) % 4)

    def rows(self, first_end: int, splits: list[tuple[int, int, bytes]]) -> tuple[UnwindRow, ...]:
        """The row of the beginning, and one for each part: (begin, end, unwind codes with their offsets)."""
        flags = self.rng.choice((0, 0, 1, 2, 3)) if not self.is_handler else 0
        handler, data = (self.elsewhere, self.rng.randbytes(4)) if flags else ("", b"")
        if flags:
            self.uses.add("exception handler")
        made = [UnwindRow(0, first_end, self.info(flags), handler=handler, data=data)]
        for begin, stop, slots in splits:
            if not slots and self.rng.random() < 0.4:
                self.uses.add("indirect")
                made.append(UnwindRow(begin, stop, b"", part_of=0))
                continue
            self.uses.add("chained")
            # To the beginning, or to another part that adds nothing to it.
            plain = [number for number, row in enumerate(made) if number and row.unwind and not row.unwind[2]]
            info = self._encoded(_CHAININFO, slots[0] if slots else 0, slots)
            made.append(UnwindRow(begin, stop, info, part_of=self.rng.choice([0, *plain])))
        return tuple(made)


def build_leaf(rng: random.Random, name: str) -> Routine:
    """A function without unwind data. It is left anywhere, but not by a call."""
    code = bytearray()
    instructions: list[Instruction] = []
    for part in [*rng.choices(x64.FILLERS, k=rng.randrange(1, 6)), b"\xc3"]:
        instructions.append(Instruction(len(code), part, None, runs=True))
        code += part
    function = Function(name, exported=False, made=MadeCode(bytes(code)))
    return Routine(function, tuple(instructions), rng.choice(instructions).offset, frozenset({"leaf"}))


def build_routine(
    rng: random.Random,
    name: str,
    *,
    leave: Leave,
    callee: str,
    elsewhere: str,
    room: int,
    handler: bool = False,
    error_code: bool = False,
    size: int = 0,
) -> Routine:
    """A function with unwind data. `room` is how much stack it may use, `size` how much it must allocate at least."""
    frame = _draw_frame(rng, room - 0x200, handler=handler, misaligned=not error_code, size=size)
    place = rng.choice(_PLACES) if leave == "stop" else rng.choice(("body", "part"))
    if handler and place in ("epilog", "early"):
        place = "prolog"
    part = rng.choice(("contiguous", "shrunk", "cold")) if place == "part" or rng.random() < 0.15 else ""
    if part == "cold" and place in ("epilog", "early"):
        part = "contiguous"
    if part == "shrunk" and (frame.dynamic or frame.spare is None):
        part = "contiguous"
    version = 2 if not handler and not part and rng.random() < 0.35 else 1
    wants = callee if leave == "call" else ""
    builder = _Builder(rng, name, frame, handler, error_code, version, wants, elsewhere, place)
    first_end, splits = _build(builder, part)
    if leave == "call":
        leaves_at = builder.returns_at or 0
    else:
        leaves_at = rng.choice(builder.places.get(place) or builder.places["body"])
        builder.uses.add(f"left in {place}")
    made = MadeCode(bytes(builder.code), tuple(builder.fixups), builder.rows(first_end, splits))
    return Routine(
        Function(name, exported=False, made=made),
        tuple(builder.instructions),
        leaves_at,
        frozenset(builder.uses),
        handler,
        error_code,
    )


def _build(builder: _Builder, part: str) -> tuple[int, list[tuple[int, int, bytes]]]:
    """All of its code. Returns where its first part ends, and of the others begin, end, and unwind codes."""
    rng, frame = builder.rng, builder.frame
    builder.prolog()
    builder.begin_body()
    if builder.place == "early" or (rng.random() < 0.25 and not builder.is_handler):
        builder.early_exit(entered=builder.place == "early")
    in_part = "part" if builder.place == "part" else "body"
    splits: list[tuple[int, int, bytes]] = []
    if part == "contiguous":
        builder.fill("body")
        splits.append((len(builder.code), 0, b""))
        builder.middle(in_part)
        if rng.random() < 0.4:
            splits.append((len(builder.code), 0, b""))
            builder.fill(in_part)
    elif part == "shrunk" and frame.spare is not None:
        register, offset = frame.spare
        save = x64.save(register, offset)
        slots = bytes([len(save[0])]) + x64.unwind_save(register, offset, far=rng.random() < 0.3)
        splits.append((len(builder.code), 0, slots))
        builder.add(save, in_part)
        builder.add(x64.set_register(register, rng.randrange(1 << 31)), in_part)
        builder.middle(in_part)
        builder.add(x64.load(register, "rsp", offset), in_part)
        splits.append((len(builder.code), 0, b""))
        builder.uses.add("shrink-wrapped")
        builder.fill("body")
    elif part == "cold":
        jump = len(builder.code)
        builder.add((b"\xe9" + bytes(4), None), in_part)
        builder.epilog("epilog", runs=False)
        main_end = len(builder.code)
        builder.add((b"\xcc" * rng.randrange(1, 40), None), "gap", runs=False)
        cold = len(builder.code)
        builder.land(jump, cold)
        builder.middle(in_part)
        back = len(builder.code)
        builder.add((b"\xe9" + bytes(4), None), in_part)
        builder.land(back, jump + 5)
        builder.uses.add("cold part")
        return main_end, [(cold, len(builder.code), b"")]
    else:
        builder.middle("body")
    tail_call = builder.version == 1 and not builder.is_handler and rng.random() < 0.2
    builder.epilog("epilog", runs=True, tail_call=tail_call)
    ends = [*(begin for begin, _, _ in splits), len(builder.code)]
    return ends[0], [(begin, end, slots) for (begin, _, slots), end in zip(splits, ends[1:], strict=True)]


def _draw_frame(rng: random.Random, room: int, *, handler: bool, misaligned: bool, size: int) -> _Frame:
    """Which registers it saves where, and how large it is; calls from it find the stack aligned."""
    free = list(NONVOLATILE)
    rng.shuffle(free)
    pushes = [free.pop() for _ in range(rng.choice((0, 1, 1, 2, 3, 5, 7)))]
    homes = [free.pop() for _ in range(min(len(free), rng.choice((0, 0, 1, 2)))) if not handler]
    saves = [free.pop() for _ in range(min(len(free), rng.choice((0, 0, 1, 3))))]
    spare = free.pop() if free else None
    vectors = rng.sample(range(6, 16), rng.choice((0, 0, 1, 2)))
    places = iter(range(0x20, 0x200, 8))
    laid = [(name, next(places)) for name in saves]
    spare_place = (spare, next(places)) if spare is not None else None
    top = next(places)
    top += top % 16
    laid_vectors = [(number, top + 16 * at) for at, number in enumerate(vectors)]
    least = max(size, top + 16 * len(vectors))
    total = least + rng.choice((0, 0, 8 * rng.randrange(0x20), 8 * rng.randrange(0x100)))
    total = max(least, min(total, room - 0x100)) + 7 & ~7
    total += ((8 if misaligned else 0) + 8 * len(pushes) + total) % 16
    candidates = [name for name in pushes if name != "r12"]
    register = rng.choice(candidates) if candidates and rng.random() < 0.5 else None
    offset = 16 * rng.randrange(min(15, total // 16) + 1) if register else 0
    dynamic = 16 * rng.randrange(1, 16) if register and rng.random() < 0.5 else 0
    return _Frame(pushes, homes, laid, laid_vectors, total, register, offset, spare_place, dynamic)
