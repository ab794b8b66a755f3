"""One virtual memory of which parts lie in several places. What several of them have must be alike."""

from __future__ import annotations

from kdbridge.errors import MemoryFault
from kdbridge.source import VirtualMemory
from protocol.address import VirtualAddress

__all__ = ["LayeredMemory"]


class LayeredMemory:
    """Each stretch from the first that has its beginning, as far as that one goes."""

    __slots__ = ("_layers",)

    def __init__(self, *layers: VirtualMemory) -> None:
        self._layers = layers

    async def read(self, address: VirtualAddress, size: int) -> bytes:
        """Exactly `size` bytes. MemoryFault names the first byte that none of them has, and why the last has not."""
        parts: list[bytes] = []
        done = 0
        while done < size:
            fault: MemoryFault | None = None
            for layer in self._layers:
                at = VirtualAddress(address + done)
                try:
                    parts.append(await layer.read(at, size - done))
                except MemoryFault as problem:
                    fault = problem
                    if not problem.done:
                        continue
                    parts.append(await layer.read(at, problem.done))
                done += len(parts[-1])
                break
            else:
                raise MemoryFault(str(fault), address=address + done, size=size, done=done, virtual=True)
        return b"".join(parts)
