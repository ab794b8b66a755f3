"""Everything that can go wrong in protocol, and whose fault it is.

    KdError
    ├── LocalProtocolError    we broke a rule of the conversation: a mistake in this program
    ├── RemoteProtocolError   the other end sent what no peer may send
    ├── LayoutError           bytes of a structure in memory are not that structure
    ├── DumpFormatError       bytes of a dump file are not a dump file
    └── PdbFormatError        bytes of a symbol file are not a symbol file

Every message says who is to blame, where (address, offset, packet id) and what to do, if anything can be done.
"""

from __future__ import annotations

__all__ = ["DumpFormatError", "KdError", "LayoutError", "LocalProtocolError", "PdbFormatError", "RemoteProtocolError"]


class KdError(Exception):
    """Base of every error that this project raises on purpose."""


class LocalProtocolError(KdError):
    """We asked for something the conversation does not allow now, or does not know at all."""


class RemoteProtocolError(KdError):
    """The peer sent bytes that fit no rule of the protocol. What was received up to there stays valid."""


class LayoutError(KdError):
    """Bytes read from a target do not form the structure that should be there.

    `structure` is Microsoft's name for it, `address` where it was read (None: not from memory).
    """

    def __init__(self, structure: str, problem: str, address: int | None = None) -> None:
        self.structure = structure
        self.address = address
        self.problem = problem
        where = "" if address is None else f" at {address:#x}"
        super().__init__(f"{structure}{where}: {problem}")


class DumpFormatError(KdError):
    """A dump file breaks a rule of its format. `offset` is the place in the file (None: the whole file)."""

    def __init__(self, problem: str, offset: int | None = None) -> None:
        self.offset = offset
        self.problem = problem
        where = "" if offset is None else f"at file offset {offset:#x}: "
        super().__init__(f"{where}{problem}")


class PdbFormatError(KdError):
    """A symbol file (PDB) breaks a rule of its format. `part` names the stream or structure that does."""

    def __init__(self, part: str, problem: str) -> None:
        self.part = part
        self.problem = problem
        super().__init__(f"{part}: {problem}")
