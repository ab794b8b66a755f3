"""EXCEPTION_RECORD32 and EXCEPTION_RECORD64, as they lie in a dump's header (dump-formats 1.4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from protocol.errors import DumpFormatError

from .header_layout import Bits

__all__ = ["MOST_PARAMETERS", "ExceptionRecord"]

MOST_PARAMETERS = 15

_LAYOUT64 = struct.Struct("<IIQQI4s")
_LAYOUT32 = struct.Struct("<IIIII0s")
_UNSET = b"PAGE"
assert _LAYOUT64.size + 8 * MOST_PARAMETERS == 0x98
assert _LAYOUT32.size + 4 * MOST_PARAMETERS == 0x50


@dataclass(frozen=True, slots=True)
class ExceptionRecord:
    """Why a processor stopped. A machine that was stopped for a dump says 0x80000003, a breakpoint."""

    code: int
    flags: int
    record: int
    address: int
    parameters: tuple[int, ...] = ()

    def encode(self, bits: Bits) -> bytes:
        """The record; Windows leaves PAGE in parameters that are not counted, and so does this.

        Raises DumpFormatError for more than 15 parameters, and for a code that has more than 32 bits.
        """
        if len(self.parameters) > MOST_PARAMETERS:
            raise DumpFormatError(f"an exception has {MOST_PARAMETERS} parameters at most, not {len(self.parameters)}")
        if not 0 <= self.code < 1 << 32 or not 0 <= self.flags < 1 << 32:
            raise DumpFormatError(f"an exception's code and flags have 32 bits: {self.code:#x}, {self.flags:#x}")
        layout, width = (_LAYOUT64, 8) if bits == 64 else (_LAYOUT32, 4)
        mask = (1 << 8 * width) - 1
        head = layout.pack(self.code, self.flags, self.record & mask, self.address & mask, len(self.parameters), _UNSET)
        body = b"".join((value & mask).to_bytes(width, "little") for value in self.parameters)
        return head + body + _UNSET * ((width * MOST_PARAMETERS - len(body)) // 4)

    @classmethod
    def decode(cls, data: bytes, bits: Bits) -> ExceptionRecord:
        """Raises DumpFormatError when it is cut short, or counts more parameters than there can be."""
        layout, width = (_LAYOUT64, 8) if bits == 64 else (_LAYOUT32, 4)
        if len(data) < layout.size + width * MOST_PARAMETERS:
            raise DumpFormatError(f"an exception record of {len(data):#x} bytes is cut short")
        code, flags, record, address, count, _ = layout.unpack_from(data)
        if count > MOST_PARAMETERS:
            raise DumpFormatError(f"an exception has {MOST_PARAMETERS} parameters at most, not {count:#x}")
        ends = range(layout.size, layout.size + width * count, width)
        return cls(code, flags, record, address, tuple(int.from_bytes(data[at : at + width], "little") for at in ends))
