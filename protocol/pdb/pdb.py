"""One symbol file: whose it is, names by address, offsets by structure and field."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from protocol.errors import PdbFormatError

from .dbi import Dbi, read_dbi
from .msf import Msf, ReadFile
from .sections import read_sections
from .symbols import Symbols
from .types import Types

__all__ = ["Pdb", "PdbIdentity"]

_INFO_STREAM = 1
_INFO = struct.Struct("<III16s")  # version, signature, age, GUID
_VC70 = 20000404
"""The first version that has a GUID."""


@dataclass(frozen=True, slots=True)
class PdbIdentity:
    """What an image and its symbol file have in common: no other file's symbols are its own."""

    guid: str
    """32 hexadecimal digits, upper case, as in the name of a symbol store's folder."""
    age: int

    @property
    def key(self) -> str:
        """The name of the folder that a symbol store has it in: the GUID, and the age in hexadecimal."""
        return f"{self.guid}{self.age:X}"


class Pdb:
    """A symbol file that is read as far as it is asked."""

    def __init__(self, read: ReadFile, size: int) -> None:
        """`read(offset, size)` gives bytes of the file, `size` is its size. Raises PdbFormatError where it is none."""
        self._msf = Msf(read, size)
        stream = self._msf.stream(_INFO_STREAM, "PDB information stream")
        data = stream.read(0, _INFO.size)
        if len(data) < _INFO.size:
            raise PdbFormatError(stream.name, "it ends before its GUID")
        version, _, _, guid = _INFO.unpack(data)
        if version < _VC70:
            raise PdbFormatError(stream.name, f"it is of version {version}, which has no GUID yet")
        self._dbi: Dbi = read_dbi(self._msf)
        self._symbols: Symbols | None = None
        self._types: Types | None = None
        # The image repeats the age of the DBI stream; that of the information stream counts every later writer too.
        self.identity = PdbIdentity(uuid.UUID(bytes_le=guid).hex.upper(), self._dbi.age)

    @property
    def shortcomings(self) -> tuple[str, ...]:
        """What was left out of what was looked through so far, and why."""
        return self._symbols.shortcomings if self._symbols is not None else ()

    def nearest(self, rva: int) -> tuple[str, int] | None:
        """The symbol that begins at or before an offset from the image's base, in the same section, and its own offset.

        None where there is none. The first call looks through all symbols. Raises PdbFormatError.
        """
        return self._all_symbols().nearest(rva)

    def symbols(self) -> Iterator[tuple[int, str]]:
        """Every place that has a name, ascending: its offset from the image's base, and the name."""
        return iter(self._all_symbols())

    def field_offset(self, type_name: str, field: str) -> int | None:
        """Where a field begins in a structure, union or class, in bytes. None: no such type, or no such field in it.

        Raises PdbFormatError.
        """
        if self._types is None:
            self._types = Types(self._msf)
        return self._types.field_offset(type_name, field)

    def _all_symbols(self) -> Symbols:
        if self._symbols is None:
            self._symbols = Symbols(self._msf, self._dbi, read_sections(self._msf, self._dbi))
        return self._symbols
