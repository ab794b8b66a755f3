"""Microsoft's x64 unwinding as their documentation tells it, over memory alone: PE headers, .pdata, UNWIND_INFO.

It shares nothing with what made the images, so that a stack it walks is one that a debugger walks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["Frame", "Unwinder"]

_REGISTERS = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    rip: int
    rsp: int
    registers: dict[str, int]


class Unwinder:
    def __init__(self, read: Callable[[int, int], bytes | None], images: Iterable[tuple[int, int]]) -> None:
        """`images` are (base, size) of what is loaded."""
        self._read = read
        self._images = list(images)

    def walk(self, registers: dict[str, int]) -> list[Frame]:
        """From the innermost frame to the first one outside all images: user mode, or a null return address."""
        frames = [Frame(registers["rip"], registers["rsp"], dict(registers))]
        while any(base <= frames[-1].rip < base + size for base, size in self._images):
            assert len(frames) < 100, "it never ends"
            frames.append(self._caller(frames[-1]))
        return frames

    def _qword(self, address: int) -> int:
        data = self._read(address, 8)
        assert data is not None, f"{address:#x} cannot be read"
        return int.from_bytes(data, "little")

    def _bytes(self, address: int, size: int) -> bytes:
        data = self._read(address, size)
        assert data is not None, f"{address:#x} cannot be read"
        return data

    def _function(self, base: int, rva: int) -> tuple[int, int, int] | None:
        header = base + struct.unpack("<I", self._bytes(base + 0x3C, 4))[0]
        assert self._bytes(header, 4) == b"PE\0\0"
        # IMAGE_DIRECTORY_ENTRY_EXCEPTION is entry 3 of the data directory, at 0x70 of the optional header.
        table, size = struct.unpack("<II", self._bytes(header + 24 + 0x70 + 3 * 8, 8))
        for begin, end, unwind in struct.iter_unpack("<III", self._bytes(base + table, size)):
            if begin <= rva < end:
                return begin, end, unwind
        return None

    def _caller(self, frame: Frame) -> Frame:
        base = next(base for base, size in self._images if base <= frame.rip < base + size)
        registers, rsp = dict(frame.registers), frame.rsp
        function = self._function(base, frame.rip - base)
        if function is None:  # a leaf: the return address is on top
            return self._made(registers, self._qword(rsp), rsp + 8)
        begin, _, unwind = function
        head, prolog, count, frame_byte = self._bytes(base + unwind, 4)
        assert (head & 7, head >> 3) == (1, 0), "version 1, no handlers, not chained"
        codes = struct.unpack(f"<{count}H", self._bytes(base + unwind + 4, 2 * count))
        inside = frame.rip - base - begin
        fixed, at = rsp, 0
        if frame_byte & 15 and inside >= prolog:
            fixed = registers[_REGISTERS[frame_byte & 15]] - (frame_byte >> 4) * 16
            rsp = fixed
        while at < count:
            offset, operation, info = codes[at] & 0xFF, codes[at] >> 8 & 15, codes[at] >> 12
            slots = {1: 3 if info else 2, 4: 2, 5: 3, 8: 2, 9: 3}.get(operation, 1)
            extra = codes[at + 1 : at + slots]
            at += slots
            if offset > inside:
                continue
            if operation == 0:  # UWOP_PUSH_NONVOL
                registers[_REGISTERS[info]] = self._qword(rsp)
                rsp += 8
            elif operation == 1:  # UWOP_ALLOC_LARGE
                rsp += extra[0] * 8 if not info else extra[0] | extra[1] << 16
            elif operation == 2:  # UWOP_ALLOC_SMALL
                rsp += info * 8 + 8
            elif operation == 3:  # UWOP_SET_FPREG: done above
                pass
            elif operation == 4:  # UWOP_SAVE_NONVOL
                registers[_REGISTERS[info]] = self._qword(fixed + extra[0] * 8)
            elif operation == 10:  # UWOP_PUSH_MACHFRAME
                place = rsp + 8 * info
                return self._made(registers, self._qword(place), self._qword(place + 24))
            else:
                raise AssertionError(f"unwind operation {operation}")
        return self._made(registers, self._qword(rsp), rsp + 8)

    @staticmethod
    def _made(registers: dict[str, int], rip: int, rsp: int) -> Frame:
        return Frame(rip, rsp, {**registers, "rip": rip, "rsp": rsp})
