"""One step up an x64 stack: from where a function stands to where its caller does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdbridge.discovery.notes import try_read, try_read_pointer
from kdbridge.errors import MemoryFault
from kdbridge.plan.bug_check_data import is_kernel_address
from kdbridge.source import Source
from kdbridge.target import Module
from protocol.address import PAGE_SIZE, format_address
from protocol.errors import KdError, LayoutError
from protocol.unwind.caller import RSP, CallerPlaces, finish_epilog, undo_prolog
from protocol.unwind.code import LONGEST_EPILOG, read_epilog
from protocol.unwind.info import REGISTERS, RuntimeFunction, UnwindFlag

from .model import Trust
from .names import Names
from .scan import Scanner
from .unwind_data import Part, UnwindTables

__all__ = ["CannotUnwindError", "Registers", "StackUnreadableError", "Step", "Unwinder"]

_TRAP_FRAME_RIP = 0x168
"""KTRAP_FRAME.Rip (x64, all versions)."""
_MACHINE_FRAME_SIZE = 0x28
_TOGETHER = 0x80
"""Words on the stack that lie at most so far apart are read at once."""
_USER = 3
"""The privilege level of user mode, in the lowest bits of cs."""
_FAR = 0x100000
"""A caller that stands further up the stack than this stands on another one."""
_MASK = (1 << 64) - 1
_NO_CODE = "the code below could not be read: it is taken not to stand in its epilog"


class CannotUnwindError(KdError):
    """There is no way up by unwind data, and why; `leaf`: a function that has none, though it called something."""

    def __init__(self, why: str, *, leaf: bool = False) -> None:
        self.leaf = leaf
        super().__init__(why)


class StackUnreadableError(KdError):
    """The word on the stack that is needed to go on cannot be read."""


@dataclass(frozen=True, slots=True)
class Registers:
    """Where a frame stands. `values` are the sixteen registers by number, None where not known; rsp always is."""

    rip: int
    values: tuple[int | None, ...]

    @property
    def rsp(self) -> int:
        """The stack pointer."""
        return self.values[RSP] or 0

    @classmethod
    def at(cls, rip: int, rsp: int) -> Registers:
        """Nothing else is known."""
        return cls(rip, tuple(rsp if number == RSP else None for number in range(16)))


@dataclass(frozen=True, slots=True)
class Step:
    """The caller, how it was found, and what else is to be said of its frame."""

    registers: Registers
    trust: Trust
    note: str = ""
    exact: bool = False
    """It stands at an instruction that comes next, not behind a call that it made."""
    user_mode: bool = False
    """It stands there in user mode: so the code segment says that the processor saved."""


class Unwinder:
    """Goes up by the images' unwind data alone. Raises CannotUnwindError and StackUnreadableError, nothing else."""

    def __init__(self, source: Source, names: Names, tables: UnwindTables, scanner: Scanner) -> None:
        self._source = source
        self._names = names
        self._tables = tables
        self._scanner = scanner

    async def step(self, frame: Registers, *, exact: bool) -> Step:
        """`exact` as in Step."""
        # A call may be the last instruction of a function: then the next one's unwind data are not its own.
        address = frame.rip if exact else frame.rip - 1
        image = self._names.image_of(address)
        if image is None:
            raise CannotUnwindError(f"{format_address(frame.rip)} is in no image that is loaded")
        image = await self._names.named(image)
        try:
            function = await self._tables.function(image, address)
            parts = await self._tables.parts(image, function) if function is not None else []
        except MemoryFault:
            raise CannotUnwindError(f"the unwind data of {image.name} cannot be read") from None
        except LayoutError as problem:
            raise CannotUnwindError(f"the unwind data of {image.name} cannot be used: {problem}") from None
        if function is None:
            if not exact:
                raise CannotUnwindError(f"{image.name} has no unwind data for {format_address(frame.rip)}", leaf=True)
            return await self.leaf(frame)
        code = await self._code(image, function, frame) if exact and parts[0][1].version == 1 else b""
        places = await self._places(image, function, parts, frame, exact=exact, code=code or b"")
        if places is None:
            return await self._assuming(parts, frame)
        step = await self._caller(frame, places, Trust.UNWOUND)
        if code is None:
            step = replace(step, note=f"{step.note}; {_NO_CODE}" if step.note else _NO_CODE)
        return step

    async def leaf(self, frame: Registers) -> Step:
        """The caller of a function that left the stack as it was."""
        return await self._caller(frame, CallerPlaces(frame.rsp), Trust.LEAF)

    async def _code(self, image: Module, function: RuntimeFunction, frame: Registers) -> bytes | None:
        """From where it stands on, as far as an epilog may go."""
        size = min(LONGEST_EPILOG, image.base + function.end - frame.rip)
        code = await try_read(self._source, frame.rip, size)
        return code or await try_read(self._source, frame.rip, min(size, PAGE_SIZE - frame.rip % PAGE_SIZE))

    async def _places(
        self,
        image: Module,
        function: RuntimeFunction,
        parts: Sequence[Part],
        frame: Registers,
        *,
        exact: bool,
        code: bytes,
    ) -> CallerPlaces | None:
        rva = frame.rip - image.base
        if exact:
            row, info = parts[0]
            if info.version == 2:
                for begin, size in info.epilogs(row):
                    if begin <= rva < begin + size:
                        return finish_epilog([one for _, one in parts], rva - begin, frame.rsp)
            else:
                places = await self._in_epilog(image, function, parts, frame, code)
                if places is not None:
                    return places
        insides = [rva - function.begin if row == function and not function.indirect else None for row, _ in parts]
        return undo_prolog([(info, inside) for (_, info), inside in zip(parts, insides, strict=True)], frame.values)

    async def _in_epilog(
        self, image: Module, function: RuntimeFunction, parts: Sequence[Part], frame: Registers, code: bytes
    ) -> CallerPlaces | None:
        frame_register = parts[0][1].frame_register
        epilog = read_epilog(code, frame.rip, frame_register)
        if epilog is None:
            return None
        if epilog.jumps_to is not None and await self._is_inside(image, function, parts, epilog.jumps_to):
            return None
        return epilog.places(frame.values, frame_register)

    async def _is_inside(self, image: Module, function: RuntimeFunction, parts: Sequence[Part], target: int) -> bool:
        """Whether a jump stays in its function, whatever part of it: then it is no tail call."""
        start, whole = parts[-1][0], parts[0][1].flags & UnwindFlag.CHAININFO or function.indirect
        rva = target - image.base
        if function.begin <= rva < function.end:
            return rva != start.begin or bool(whole)
        if rva == start.begin:
            return False
        try:
            other = await self._tables.function(image, target)
            if other is None:
                return False
            return (await self._tables.parts(image, other))[-1][0].begin == start.begin
        except (MemoryFault, LayoutError):
            return False

    async def _assuming(self, parts: Sequence[Part], frame: Registers) -> Step:
        """Without its frame register: as if the function had allocated nothing but what its prolog did."""
        info = next((info for _, info in parts if info.frame_register), parts[0][1])
        name = REGISTERS[info.frame_register]
        values = list(frame.values)
        values[info.frame_register] = frame.rsp + info.frame_offset & _MASK
        places = undo_prolog([(info, None) for _, info in parts], values)
        unknown = f"{name} is not known, and the function's frame is found by it"
        if places is None:
            raise CannotUnwindError(unknown)
        step = await self._caller(frame, places, Trust.SCANNED)
        if places.machine_frame:
            right = await self._scanner.machine_frame(places.return_slot) is not None
        else:
            right = await self._scanner.may_return_to(step.registers.rip)
        if not right:
            raise CannotUnwindError(unknown)
        note = f"{name} was not known and taken to be where the prolog set it"
        return replace(step, trust=Trust.SCANNED, note=f"{note}; {step.note}" if step.note else note)

    async def _caller(self, frame: Registers, places: CallerPlaces, trust: Trust) -> Step:
        """Read what lies at these places."""
        slot = places.return_slot
        wanted = {*places.saved.values(), slot}
        if places.machine_frame:
            wanted |= {slot + 8, slot + 24}
        words = await self._words(wanted)
        rip = words.get(slot)
        rsp = words.get(slot + 24) if places.machine_frame else slot + 8
        if rip is None or rsp is None:
            raise StackUnreadableError(
                f"{format_address(slot if rip is None else slot + 24)} on the stack cannot be read"
            )
        values = list(frame.values)
        for register, place in places.saved.items():
            values[register] = words.get(place)
        values[RSP] = rsp & _MASK
        registers = Registers(rip, tuple(values))
        if not places.machine_frame:
            moved = not frame.rsp <= slot < frame.rsp + _FAR
            return Step(registers, trust, "on another stack" if moved else "")
        trap_frame = slot - _TRAP_FRAME_RIP
        note = f"{'trap' if frame.rsp <= trap_frame else 'machine'} frame at "
        note += format_address(trap_frame if frame.rsp <= trap_frame else slot)
        same = 0 <= rsp - slot - _MACHINE_FRAME_SIZE < 16
        note = note if same else f"{note}, on another stack"
        user_mode = (words.get(slot + 8) or 0) & _USER == _USER and not is_kernel_address(rip)
        return Step(registers, Trust.MACHINE_FRAME, note, exact=True, user_mode=user_mode)

    async def _words(self, addresses: set[int]) -> dict[int, int | None]:
        """64-bit words at these addresses, those that lie near each other in one read."""
        words: dict[int, int | None] = {}
        group: list[int] = []
        for address in [*sorted(addresses), None]:
            if group and (address is None or address - group[0] > _TOGETHER * 8 or address - group[-1] > _TOGETHER):
                data = await try_read(self._source, group[0], group[-1] + 8 - group[0])
                for one in group:
                    if data is not None:
                        at = one - group[0]
                        words[one] = int.from_bytes(data[at : at + 8], "little")
                    else:
                        words[one] = await try_read_pointer(self._source, one)
                group = []
            if address is not None:
                group.append(address)
        return words
