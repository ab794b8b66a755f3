"""Rows of .pdata and the unwind data they lead to, while an image is laid out."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["LaidRow", "UnwindRow", "lay_unwind_data", "unwind_table"]


@dataclass(frozen=True, slots=True)
class UnwindRow:
    """A RUNTIME_FUNCTION of a function that has several, or whose unwind data has more than codes.

    `begin` and `end` are offsets in the function's code. Without `unwind` it is an indirect row: in the place of
    unwind data it leads to the row that it is `part_of`. With both it is chained to that row, which stands before it.
    """

    begin: int
    end: int
    unwind: bytes
    """UNWIND_INFO to the end of its codes, their number made even."""
    part_of: int | None = None
    handler: str = ""
    """The function whose RVA follows the codes."""
    data: bytes = b""
    """What the handler finds behind it."""


@dataclass(frozen=True, slots=True)
class LaidRow:
    """A row in RVAs; of an indirect one `unwind` is None, and `part_of` names the beginning of the row it leads to."""

    begin: int
    end: int
    unwind: int | None
    part_of: int = 0


def lay_unwind_data(
    place: Callable[[bytes, int], int], functions: Mapping[str, Sequence[UnwindRow]], rvas: Mapping[str, int]
) -> list[LaidRow]:
    """Place all unwind data, in the order of the functions; `place(data, align)` gives an RVA."""
    laid: list[LaidRow] = []
    for name, rows in functions.items():
        own: list[LaidRow] = []
        for row in rows:
            begin, end = rvas[name] + row.begin, rvas[name] + row.end
            part_of = own[row.part_of] if row.part_of is not None else None
            if not row.unwind:
                own.append(LaidRow(begin, end, None, part_of.begin if part_of is not None else 0))
                continue
            tail = b""
            if part_of is not None:
                tail = struct.pack("<III", part_of.begin, part_of.end, part_of.unwind)
            elif row.handler:
                tail = struct.pack("<I", rvas[row.handler]) + row.data
            own.append(LaidRow(begin, end, place(row.unwind + tail, 4)))
        laid += own
    return laid


def unwind_table(rows: Sequence[LaidRow], start: int) -> bytes:
    """.pdata at this RVA, its rows in the order of their functions' addresses."""
    ordered = sorted(rows, key=lambda row: row.begin)
    places = {row.begin: start + 12 * number for number, row in enumerate(ordered)}
    return b"".join(
        struct.pack("<III", row.begin, row.end, places[row.part_of] | 1 if row.unwind is None else row.unwind)
        for row in ordered
    )
