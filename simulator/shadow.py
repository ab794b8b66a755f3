"""KVA shadow: the roots that user mode runs on, with the user half as it is and hardly any of the kernel's."""

from __future__ import annotations

from collections.abc import Iterable

from protocol.address import PAGE_SHIFT, PAGE_SIZE

from .errors import SimulationError
from .paging import KERNEL_SLOTS, USER_SLOTS, PageTables, PteFlag
from .processes import SimulatedProcess
from .processors import SimulatedProcessor
from .space import KernelSpace

__all__ = ["ShadowTables"]

_ENTRY_CODE = ("KiSystemCall64", "KiPageFault", "KiBreakpointTrap", "KiIpiInterrupt")
"""What must be there when the processor comes from user mode."""


class ShadowTables:
    """The second roots. Their tables are kernel memory as any other, mapped one behind the other in System PTEs."""

    def __init__(self, space: KernelSpace, address: int) -> None:
        """`address` is where the tables can be seen, from there on."""
        self._space = space
        self._next = address
        self._kernel_half: PageTables | None = None
        self._roots: dict[int, PageTables] = {}

    def new_root(self) -> int:
        """A second root for a process: its physical address. It is filled by `fill`."""
        tables = PageTables(self._space.image, self._allocate)
        self._roots[tables.root] = tables
        return tables.root

    def fill(
        self,
        processes: Iterable[SimulatedProcess],
        processors: Iterable[SimulatedProcessor],
        symbols: dict[str, int],
    ) -> None:
        """When all else is mapped: each second root gets its process's user half, and one kernel half for all."""
        space = self._space
        half = PageTables(space.image, self._allocate)
        for address, flags in _visible(processors, symbols):
            physical = space.tables.translate(address)
            if physical is None:
                raise SimulationError(f"{address:#x} is not mapped, and cannot be in the shadow")
            half.map(address, physical, PAGE_SIZE, flags | PteFlag.GLOBAL)
        for process in processes:
            if process.user_directory_table_base:
                user = self._roots[process.user_directory_table_base]
                process.tables.share(user, USER_SLOTS)
                half.share(user, KERNEL_SLOTS)

    def _allocate(self) -> int:
        frame = self._space.map_fresh(self._next) >> PAGE_SHIFT
        self._next += PAGE_SIZE
        return frame


def _visible(processors: Iterable[SimulatedProcessor], symbols: dict[str, int]) -> Iterable[tuple[int, PteFlag]]:
    """The pages of the kernel that user mode's root maps."""
    code = {symbols[name] & -PAGE_SIZE for name in _ENTRY_CODE}
    data: set[int] = set()
    for processor in processors:
        data.update(
            address & -PAGE_SIZE
            for address in (processor.pcr, processor.gdt, processor.idt, processor.tss, processor.stack_base - 8)
        )
    yield from ((address, PteFlag(0)) for address in sorted(code))
    yield from ((address, PteFlag.WRITE | PteFlag.NO_EXECUTE) for address in sorted(data - code))
