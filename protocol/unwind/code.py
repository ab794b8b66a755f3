"""x64 instructions that matter to an unwinder: epilogs by the rule that they must follow, and calls from behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .caller import RSP, CallerPlaces

__all__ = ["LONGEST_CALL", "LONGEST_EPILOG", "Epilog", "direct_target", "is_behind_call", "read_epilog"]

LONGEST_EPILOG = 7 + 16 * 2 + 6
"""Bytes: an add or lea, sixteen pops, a return or jump."""
LONGEST_CALL = 7
"""Bytes: call [rax+rcx*8+12345678h]; a REX prefix before it makes no difference."""

_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Epilog:
    """What is left of an epilog, from its next instruction on."""

    adds: int
    """Bytes that it takes off the stack first; counted from the frame register where `from_frame`."""
    from_frame: bool
    pops: tuple[int, ...]
    """Register numbers."""
    jumps_to: int | None
    """Where it jumps in the place of returning, if it says where. In the function itself: then it is no epilog."""

    def places(self, registers: Sequence[int | None], frame_register: int) -> CallerPlaces | None:
        """Where it will find what the caller had. None where the frame register is needed and not known."""
        start = registers[frame_register] if self.from_frame else registers[RSP]
        if start is None:
            return None
        places = CallerPlaces(start + self.adds & _MASK)
        for register in self.pops:
            places.saved[register] = places.return_slot
            places.return_slot = places.return_slot + 8 & _MASK
        places.saved.pop(RSP, None)
        return places


def read_epilog(code: bytes, address: int, frame_register: int) -> Epilog | None:
    """The epilog that these bytes (at `address`) are, or the rest of one. None: something else.

    An add to rsp, or a lea from the frame register (0: there is none); then pops; then a return or a jump.
    """
    at, adds, from_frame = _release(code, frame_register)
    pops: list[int] = []
    while len(pops) < 16:
        if code[at : at + 1] and code[at] & 0xF8 == 0x58:
            pops.append(code[at] & 7)
            at += 1
        elif len(code) > at + 1 and code[at] & 0xF0 == 0x40 and code[at + 1] & 0xF8 == 0x58:
            pops.append((code[at] & 1) << 3 | code[at + 1] & 7)
            at += 2
        else:
            break
    rest = code[at : at + 6]
    if rest[:1] in (b"\xc3", b"\xc2") or rest[:2] == b"\xf3\xc3":
        return Epilog(adds, from_frame, tuple(pops), None)
    if rest[:1] == b"\xeb" and len(rest) > 1:
        return Epilog(adds, from_frame, tuple(pops), address + at + 2 + _signed(rest[1:2]) & _MASK)
    if rest[:1] == b"\xe9" and len(rest) > 4:
        return Epilog(adds, from_frame, tuple(pops), address + at + 5 + _signed(rest[1:5]) & _MASK)
    if _jumps_through_memory(rest):
        return Epilog(adds, from_frame, tuple(pops), None)
    return None


def _release(code: bytes, frame_register: int) -> tuple[int, int, bool]:
    """The first instruction, if it takes the frame off the stack: its size, the bytes, whether from the frame."""
    if code[:3] == b"\x48\x83\xc4" and len(code) > 3:
        return 4, _signed(code[3:4]), False
    if code[:3] == b"\x48\x81\xc4" and len(code) > 6:
        return 7, _signed(code[3:7]), False
    if len(code) > 3 and code[0] & 0xFE == 0x48 and code[1] == 0x8D and code[2] & 0x38 == RSP << 3:
        register, mode = (code[0] & 1) << 3 | code[2] & 7, code[2] >> 6
        if frame_register and register == frame_register and code[2] & 7 != RSP:
            if mode == 1:
                return 4, _signed(code[3:4]), True
            if mode == 2 and len(code) > 6:
                return 7, _signed(code[3:7]), True
    return 0, 0, False


def _jumps_through_memory(code: bytes) -> bool:
    """jmp [memory] without displacement, or a jump marked as a tail call by REX.W."""
    if code[:1] and code[0] & 0xF8 == 0x48:
        return len(code) > 2 and code[1] == 0xFF and code[2] & 0x38 == 0x20
    return len(code) > 1 and code[0] == 0xFF and code[1] & 0xF8 == 0x20


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def is_behind_call(code: bytes) -> bool:
    """Whether these bytes end with a call: E8, or FF /2."""
    direct = len(code) >= 5 and code[-5] == 0xE8
    return direct or any(len(code) >= size and _is_indirect_call(code[-size:]) for size in (2, 3, 4, 6, 7))


def direct_target(code: bytes, address: int) -> int | None:
    """Where a direct call goes that ends at `address`, if that is how these bytes before it end."""
    return address + _signed(code[-4:]) & _MASK if len(code) >= 5 and code[-5] == 0xE8 else None


def _is_indirect_call(code: bytes) -> bool:
    """FF /2, of exactly this many bytes."""
    if code[0] != 0xFF or code[1] >> 3 & 7 != 2:
        return False
    mode, memory = code[1] >> 6, code[1] & 7
    if mode == 3:
        return len(code) == 2
    size = 2 + (memory == 4) + (0, 1, 4)[mode]
    if mode == 0 and (memory == 5 or (memory == 4 and len(code) > 2 and code[2] & 7 == 5)):
        size += 4
    return len(code) == size
