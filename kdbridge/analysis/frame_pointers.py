"""Stacks of x86 and ARM64 by their chains of frame pointers: what is there without unwind data.

Nothing proves what such a chain leads to, so a stack by it is never known to be whole.
"""

from __future__ import annotations

from kdbridge.discovery.notes import try_read, try_read_pointer
from kdbridge.source import Source
from protocol.address import format_address
from protocol.structure import Structure
from protocol.unwind.code import direct_target, is_behind_call

from .model import Frame, Trust
from .names import Names

__all__ = ["Walked", "walk_arm64", "walk_x86"]

Walked = tuple[tuple[Frame, ...], str, bool]
"""Frames, why they end, and whether they are known to be all."""

_TRAP_MARK = 0xBADB0D00
"""KTRAP_FRAME.DbgArgMark (x86): before it lie the ebp and eip of what was interrupted, as in any frame."""
_FURTHEST_START = 0x1000
"""A direct call so little before where a function stands may well be the call of it."""
_NO_CALLER = "its frame pointers lead to a return address of 0: the thread's first call, or an overwritten stack"
_KERNEL_X86 = 0x80000000
_CANONICAL = 48


async def walk_x86(source: Source, names: Names, context: Structure, known: frozenset[str] | None, most: int) -> Walked:
    """By ebp. As in WinDbg, what stands in the place of a stack pointer is the frame pointer (ChildEBP)."""
    address, frame = context["eip"], context["ebp"]
    if address < _KERNEL_X86 and context["esp"] < _KERNEL_X86:
        only = Frame(address, context["esp"], 0, await names.place(address), Trust.REGISTERS)
        return (only,), f"user mode at {address:08x}", True
    if known is not None and "ebp" not in known:
        place = await names.place(address)
        only = Frame(address, context["esp"], 0, place, Trust.REGISTERS)
        return (only,), "ebp is not known, and x86 stacks are found by it", False
    frames: list[Frame] = []
    trust, note = Trust.REGISTERS, ""
    top = await try_read_pointer(source, context["esp"], 4)
    if top is not None and await _called_just_now(source, names, top, address):
        # The innermost function has no frame of its own yet.
        frames.append(Frame(address, context["esp"], top, await names.place(address), trust))
        address, trust = top, Trust.FRAME_POINTER
    seen: set[int] = set()
    while True:
        data = await try_read(source, frame, 12) if frame + 12 <= 1 << 32 else None
        returns = int.from_bytes(data[4:8], "little") if data is not None else 0
        frames.append(Frame(address, frame, returns, await names.place(address), trust, note))
        if data is None:
            return tuple(frames), f"the frame at {frame:08x} cannot be read", False
        seen.add(frame)
        above = int.from_bytes(data[:4], "little")
        trapped = int.from_bytes(data[8:12], "little") == _TRAP_MARK
        if trapped and 0 < returns < _KERNEL_X86:
            return tuple(frames), f"its frame pointers lead to user mode at {returns:08x}", False
        if not returns:
            return tuple(frames), _NO_CALLER, False
        if not above or above in seen or len(frames) >= most:
            return tuple(frames), _why(above, above in seen, most, 8), False
        trust = Trust.MACHINE_FRAME if trapped else Trust.FRAME_POINTER
        note = f"trap frame at {frame:08x}" if trapped else ""
        address, frame = returns, above


async def walk_arm64(
    source: Source, names: Names, context: Structure, known: frozenset[str] | None, most: int
) -> Walked:
    """By x29: at it lie the caller's x29 and the return address, which may be signed.

    Of all but the innermost frames, x29 stands in the place of the stack pointer, which only unwind data would tell.
    """
    address, pointer = context["pc"], context["sp"]
    if not address >> _CANONICAL and not pointer >> _CANONICAL:
        only = Frame(address, pointer, 0, await names.place(address), Trust.REGISTERS)
        return (only,), f"user mode at {format_address(address)}", True
    frame_name, link_name = ("fp" if context.has("fp") else "x29"), ("lr" if context.has("lr") else "x30")
    if known is not None and frame_name not in known:
        only = Frame(address, pointer, 0, await names.place(address), Trust.REGISTERS)
        return (only,), f"{frame_name} is not known, and ARM64 stacks are found by it", False
    frame = context[frame_name]
    link = _plain(context[link_name]) if known is None or link_name in known else 0
    frames: list[Frame] = []
    trust = Trust.REGISTERS
    saved = await try_read(source, frame + 8, 8) if frame else None
    is_saved = saved is not None and _plain(int.from_bytes(saved, "little")) == link
    if link and not is_saved and await _calls_here(source, names, link, address):
        # The innermost function has saved neither: lr still is its return address.
        frames.append(Frame(address, pointer, link, await names.place(address), trust))
        address, pointer, trust = link, frame or pointer, Trust.LEAF
    seen: set[int] = set()
    while True:
        data = await try_read(source, frame, 16)
        returns = _plain(int.from_bytes(data[8:16], "little")) if data is not None else 0
        frames.append(Frame(address, pointer, returns, await names.place(address), trust))
        if data is None:
            if frame:
                return tuple(frames), f"the frame at {format_address(frame)} cannot be read", False
            ended = "the chain of frame pointers ends" if trust is Trust.FRAME_POINTER else "there is no frame pointer"
            return tuple(frames), ended, False
        seen.add(frame)
        above = int.from_bytes(data[:8], "little")
        if not returns:
            return tuple(frames), _NO_CALLER, False
        if returns >> _CANONICAL == 0:
            return tuple(frames), f"its frame pointers lead to user mode at {format_address(returns)}", False
        if above in seen or len(frames) >= most:
            return tuple(frames), _why(above, above in seen, most, 16), False
        address, pointer, frame, trust = returns, above or frame + 16, above, Trust.FRAME_POINTER


def _why(above: int, again: bool, most: int, digits: int) -> str:
    if not above:
        return "the chain of frame pointers ends"
    if again:
        return f"it comes back to the frame at {above:0{digits}x}"
    return f"more than {most} frames were not asked for"


async def _called_just_now(source: Source, names: Names, returns: int, address: int) -> bool:
    """x86: whether the word on top of the stack is what a call of the function at `address` left there."""
    code = await try_read(source, returns - 7, 7) if names.image_of(returns) is not None else None
    if code is None or not is_behind_call(code):
        return False
    target = direct_target(code, returns)
    return target is not None and 0 <= address - (target & 0xFFFFFFFF) < _FURTHEST_START


async def _calls_here(source: Source, names: Names, returns: int, address: int) -> bool:
    """ARM64: whether the call before `returns` can have been one of the function at `address`."""
    image = names.image_of(returns)
    if image is None or returns & 3:
        return False
    word = await try_read_pointer(source, returns - 4, 4)
    if word is None:  # two functions that are far apart: lr is not a return into this one
        here = names.image_of(address)
        return here is None or here.base != image.base or abs(returns - address) > _FURTHEST_START
    if word & 0xFC000000 == 0x94000000:  # BL
        distance = word & 0x03FFFFFF
        distance -= 1 << 26 if distance & 0x02000000 else 0
        return 0 <= address - (returns - 4 + 4 * distance) < _FURTHEST_START
    # BLR, BLRAA …: it may have gone anywhere, so it is believed where it can hardly be the function's own call.
    return word & 0xFEFFF000 == 0xD63F0000 and abs(returns - address) > _FURTHEST_START


def _plain(address: int) -> int:
    """Without its pointer authentication code: bits above the 48th are those of bit 55."""
    low = address & (1 << _CANONICAL) - 1
    return low | 0xFFFF << _CANONICAL if address >> 55 & 1 else low
