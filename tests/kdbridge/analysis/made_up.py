"""Memory made up for a test, as a Source: bytes at addresses, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from kdbridge.errors import MemoryFault, TargetRefusedError
from kdbridge.source import StopEvent
from kdbridge.target import Module, Target
from protocol.address import VirtualAddress
from protocol.layouts.version import GetVersion64
from protocol.structure import Structure
from tests.small_machine import version_of_19041

__all__ = ["KERNEL", "MadeUp", "module", "target_of"]

KERNEL = version_of_19041().kern_base


class MadeUp:
    """Blocks of memory by their addresses."""

    name = "made up"
    physical = None
    stop: StopEvent | None = None

    def __init__(self, blocks: Mapping[int, bytes]) -> None:
        self._blocks = {start: bytes(data) for start, data in blocks.items()}

    @property
    def virtual(self) -> MadeUp:
        return self

    async def read(self, address: VirtualAddress, size: int) -> bytes:
        for start, data in self._blocks.items():
            if start <= address and address + size <= start + len(data):
                return data[address - start : address - start + size]
        inside = [start + len(data) - address for start, data in self._blocks.items() if start <= address]
        done = max([0, *inside])
        raise MemoryFault("nothing is there", address=address + done, size=size, done=done, virtual=True)

    async def version(self) -> GetVersion64:
        return version_of_19041()

    async def context(self, processor: int) -> Structure:
        raise TargetRefusedError("none", api="GetContext", status=0xC0000001)

    async def special_registers(self, processor: int) -> Structure:
        raise TargetRefusedError("none", api="ReadControlSpace", status=0xC0000001)


def module(name: str, base: int, size: int = 0x10000, path: str | None = None) -> Module:
    path = f"\\SystemRoot\\System32\\drivers\\{name}" if path is None else path
    return Module(name, path, base, size, 0, 0, 0, 0)


def target_of(
    *modules: Module, bug_check: int | None = None, parameters: tuple[int, int, int, int] = (0, 0, 0, 0)
) -> Target:
    """A machine of which next to nothing is known."""
    return Target(
        version=version_of_19041(),
        stop=None,
        kdbg=None,
        processors=(),
        directory_table_base=None,
        runs=None,
        bug_check_code=bug_check,
        bug_check_parameters=parameters,
        modules=modules,
        unloaded_modules=(),
        shared_data=None,
        build_lab="",
        break_status=None,
        findings=(),
    )
