"""What a target was asked for, by the simulated machine's own account: which virtual memory, how often."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

from protocol.manipulate import ApiNumber, Manipulate
from simulator.machine import Machine

__all__ = ["Reads", "watched"]


@dataclass
class Reads:
    """Virtual memory that was read, in the order in which it was."""

    pieces: list[tuple[int, int]] = field(default_factory=list)
    """(address, bytes that came)."""

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.pieces)

    @property
    def twice(self) -> list[tuple[int, int]]:
        """Pieces of which something had been read before."""
        found: list[tuple[int, int]] = []
        end = 0
        for address, size in sorted(self.pieces):
            if address < end:
                found.append((address, min(size, end - address)))
            end = max(end, address + size)
        return found


@contextmanager
def watched() -> Iterator[Reads]:
    """While this lasts, what any simulated machine of this process is asked for is noted."""
    reads = Reads()
    answer = Machine.answer

    def noted(machine: Machine, request: Manipulate) -> object:
        answered = answer(machine, request)
        if request.api == ApiNumber.READ_VIRTUAL_MEMORY and answered.reply is not None and answered.reply.data:
            reads.pieces.append((int.from_bytes(request.union[:8], "little"), len(answered.reply.data)))
        return answered

    with mock.patch.object(Machine, "answer", noted):
        yield reads
