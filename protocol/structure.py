"""One decoder for every structure that Microsoft fixed: declared with construct, checked against published offsets.

A layout may be longer than what a target has (structures grow at their end, and targets are old or new):
a field exists only if its last byte was there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import construct as cs

from .errors import LayoutError

__all__ = ["Structure", "StructureLayout"]


@dataclass(frozen=True, slots=True)
class Structure:
    """A structure as it was read: each field by name as an unsigned integer of its full width, and the bytes."""

    name: str
    values: Mapping[str, int]
    raw: bytes

    def __getitem__(self, field: str) -> int:
        """The field's value; 0 where the structure was too short to have it (`has` tells)."""
        return self.values.get(field, 0)

    def has(self, field: str) -> bool:
        """Whether the structure was long enough to hold this field."""
        return field in self.values


class StructureLayout:
    """Names, offsets and sizes of a structure's fields, with decoding and encoding over them."""

    __slots__ = ("_fields", "name", "size")

    def __init__(self, name: str, struct: cs.Struct, published: Mapping[str, int], size: int) -> None:
        """`published` are offsets from the reference, `size` its size: the declaration is held against both."""
        self.name = name
        self.size = size
        self._fields: dict[str, tuple[int, int]] = {}
        at = 0
        for part in struct.subcons:
            length: int = part.sizeof()
            if part.name:
                self._fields[part.name] = (at, length)
            at += length
        assert at == size, f"{name}: declared size {at:#x}, published {size:#x}"
        for field, offset in published.items():
            declared = self._fields[field][0]
            assert declared == offset, f"{name}.{field}: declared at {declared:#x}, published {offset:#x}"

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of all fields, in the order in which they lie in memory."""
        return tuple(self._fields)

    def offset_of(self, field: str) -> int:
        """Byte offset of a field from the start of the structure."""
        return self._fields[field][0]

    def size_of(self, field: str) -> int:
        """Size of a field in bytes."""
        return self._fields[field][1]

    def decode(self, data: bytes | memoryview, *, least: int | None = None, address: int | None = None) -> Structure:
        """Decode as many fields as the data holds; what lies behind the structure is cut off.

        `least` is the number of bytes without which it is worth nothing (default: the whole structure).
        Raises LayoutError, naming `address`, when there is less.
        """
        needed = self.size if least is None else least
        if len(data) < needed:
            raise LayoutError(self.name, f"only {len(data):#x} of {needed:#x} bytes are there", address)
        raw = bytes(data[: self.size])
        values = {
            field: int.from_bytes(raw[at : at + length], "little")
            for field, (at, length) in self._fields.items()
            if at + length <= len(raw)
        }
        return Structure(self.name, values, raw)

    def encode(self, values: Mapping[str, int], base: bytes = b"", size: int | None = None) -> bytes:
        """Lay these fields over `base` (zeros where it ends), cut to `size` bytes.

        Values wider than their field keep their low bytes; fields that are not named keep what base has.
        """
        raw = bytearray(base[: self.size].ljust(self.size, b"\0"))
        for field, value in values.items():
            at, length = self._fields[field]
            raw[at : at + length] = (value & (1 << 8 * length) - 1).to_bytes(length, "little")
        return bytes(raw[:size])
