"""The simulated machine as a Source, without protocol or line: what a reader asks for comes from its memory image."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from kdbridge.errors import MemoryFault, TargetRefusedError
from kdbridge.source import PageRead, StopEvent
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PhysicalAddress, VirtualAddress
from protocol.arch import AMD64
from protocol.layouts.version import GetVersion64
from protocol.structure import Structure
from simulator.image import MemoryImage
from simulator.kernel import SimulatedKernel
from simulator.processors import SimulatedProcessor

__all__ = ["ImageMemory", "Meter", "SimulatedSource"]


@dataclass
class Meter:
    """What was asked for."""

    reads: int = 0
    read: int = 0
    """Bytes."""
    frames: set[int] = field(default_factory=set)
    """Frames of physical reads."""


@dataclass
class ImageMemory:
    """A memory image as PhysicalMemory."""

    image: MemoryImage
    meter: Meter = field(default_factory=Meter)

    async def read(self, address: PhysicalAddress, size: int) -> bytes:
        data = self.image.read_some(address, size)
        self.meter.reads += 1
        self.meter.read += size
        self.meter.frames.update(range(address >> PAGE_SHIFT, (address + size + PAGE_SIZE - 1) >> PAGE_SHIFT))
        if len(data) < size:
            done = len(data)
            raise MemoryFault("no", address=address + done, size=size, done=done, virtual=False)
        return data

    async def read_pages(self, runs: Iterable[PageRun]) -> AsyncIterator[PageRead]:
        for run in runs:
            for pfn in range(run.base_page, run.end_page):
                data = self.image.read_page(pfn)
                self.meter.read += PAGE_SIZE
                yield PageRead(pfn, data, "" if data is not None else "no")


@dataclass
class SimulatedVirtual:
    """Virtual memory as the stopped processor sees it."""

    kernel: SimulatedKernel
    meter: Meter

    async def read(self, address: VirtualAddress, size: int) -> bytes:
        root = self.kernel.processors[self.kernel.stopped_processor].special_values["cr3"]
        self.meter.reads += 1
        self.meter.read += size
        parts: list[bytes] = []
        done = 0
        while done < size:
            length = min(size - done, PAGE_SIZE - (address + done & PAGE_SIZE - 1))
            data = self.kernel.read_virtual(address + done, length, root)
            if data is None:
                raise MemoryFault("no", address=address + done, size=size, done=done, virtual=True)
            parts.append(data)
            done += length
        return b"".join(parts)


class SimulatedSource:
    """The machine as a Source. The switches make it a worse one."""

    def __init__(
        self,
        kernel: SimulatedKernel,
        *,
        version: GetVersion64 | None = None,
        physical: bool = True,
        contexts: bool = True,
        garbage_stop: bool = False,
    ) -> None:
        self.kernel = kernel
        self.meter = Meter()
        self._version = version or kernel.version
        self._physical = ImageMemory(kernel.image, self.meter) if physical else None
        self._virtual = SimulatedVirtual(kernel, self.meter)
        self._contexts = contexts
        self._garbage_stop = garbage_stop

    name = "simulated"

    @property
    def physical(self) -> ImageMemory | None:
        return self._physical

    @property
    def virtual(self) -> SimulatedVirtual:
        return self._virtual

    @property
    def stop(self) -> StopEvent | None:
        stopped = self.kernel.processors[self.kernel.stopped_processor]
        place = stopped.context_values["rip"]
        if self._garbage_stop:
            return StopEvent(257, 0x80000003, place, stopped.thread, True, 1284)
        return StopEvent(stopped.number, 0x80000003, place, stopped.thread, True, len(self.kernel.processors))

    async def version(self) -> GetVersion64:
        return self._version

    async def context(self, processor: int) -> Structure:
        data = self._processor(processor, "GetContext").context()
        self.meter.reads += 1
        self.meter.read += len(data)
        return AMD64.context.decode(data)

    async def special_registers(self, processor: int) -> Structure:
        size = self.kernel.profile.prcb.special_registers_size
        data = self._processor(processor, "ReadControlSpace").special_registers(size)
        self.meter.reads += 1
        self.meter.read += len(data)
        return AMD64.special_registers.decode(data, least=AMD64.special_registers_least)

    def _processor(self, number: int, api: str) -> SimulatedProcessor:
        if not self._contexts or not 0 <= number < len(self.kernel.processors):
            raise TargetRefusedError("no", api=api, status=0xC0000001)
        return self.kernel.processors[number]
