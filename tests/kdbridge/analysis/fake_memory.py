"""Memory that a test lays down byte by byte, as a Source; reading beside it is a fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kdbridge.errors import MemoryFault, TargetRefusedError
from kdbridge.target import Module, Target
from protocol.address import VirtualAddress
from protocol.layouts.version import GetVersion64
from protocol.structure import Structure

__all__ = ["FakeSource", "fake_module", "fake_target"]

_PAGE = 0x1000


@dataclass
class FakeMemory:
    pages: dict[int, bytearray] = field(default_factory=dict)
    reads: int = 0

    def put(self, address: int, data: bytes) -> None:
        done = 0
        while done < len(data):
            at = address + done
            size = min(_PAGE - at % _PAGE, len(data) - done)
            self.pages.setdefault(at // _PAGE, bytearray(_PAGE))[at % _PAGE : at % _PAGE + size] = data[
                done : done + size
            ]
            done += size

    async def read(self, address: VirtualAddress, size: int) -> bytes:
        self.reads += 1
        assert self.reads < 100_000, "it reads without end"
        return self.get(address, size)

    def get(self, address: int, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            at = address + len(found)
            page = self.pages.get(at // _PAGE)
            if page is None:
                raise MemoryFault("no", address=at, size=size, done=len(found), virtual=True)
            found += page[at % _PAGE : at % _PAGE + size - len(found)]
        return bytes(found)


class FakeSource:
    name, physical, stop = "fake", None, None

    def __init__(self, memory: Mapping[int, bytes]) -> None:
        self.virtual = FakeMemory()
        for address, data in memory.items():
            self.virtual.put(address, data)

    async def version(self) -> GetVersion64:
        raise TargetRefusedError("no", api="GetVersion", status=0)

    async def context(self, processor: int) -> Structure:
        raise TargetRefusedError("no", api="GetContext", status=0)

    async def special_registers(self, processor: int) -> Structure:
        raise TargetRefusedError("no", api="ReadControlSpace", status=0)


def fake_module(name: str, base: int, size: int = 0x10000) -> Module:
    return Module(name, name, base, size, 0, 0, 0, 0)


def fake_target(machine: int, *modules: Module) -> Target:
    version = GetVersion64(
        major_version=15, minor_version=19041, protocol_version=6, kd_secondary_version=2, flags=7,
        machine_type=machine, max_packet_type=12, max_state_change=3, max_manipulate=0x2E, simulation=0,
        kern_base=modules[0].base, ps_loaded_module_list=0, debugger_data_list=0,
    )  # fmt: skip
    return Target(
        version=version, stop=None, kdbg=None, processors=(), directory_table_base=None, runs=None,
        bug_check_code=None, bug_check_parameters=(0, 0, 0, 0), modules=modules, unloaded_modules=(),
        shared_data=None, build_lab="", break_status=None, findings=(),
    )  # fmt: skip
