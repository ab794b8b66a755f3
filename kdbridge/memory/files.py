"""Dump files and raw images as sources: random access, no index in memory that grows with the file."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kdbridge.errors import DumpError, FileError, MemoryFault, TargetRefusedError
from kdbridge.log_blob import LOG_BLOB, inferred_of, parse_log
from kdbridge.positioned import read_at
from kdbridge.source import StopEvent, VirtualMemory, require_architecture
from kdbridge.target import Module, SharedData, UnloadedModule
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns
from protocol.arch import Architecture
from protocol.dumpfile.complete import UNREADABLE_PAGE
from protocol.dumpfile.exception import ExceptionRecord
from protocol.dumpfile.header import DumpType
from protocol.dumpfile.layout import DumpLayout, parse_layout
from protocol.errors import DumpFormatError, LayoutError
from protocol.layouts.version import GetVersion64
from protocol.structure import Structure

from .pages import PageMemory
from .triage import SmallDump
from .virtual import PagedVirtualMemory

__all__ = ["DumpFile", "RawImage"]

_LARGEST_POINTERS = 2048


class _File:
    """An open file and its size."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            self.size = os.fstat(self.fd).st_size
        except OSError as error:
            raise FileError(f"{path} cannot be read: {error.strerror or error}") from None

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file; fewer only at its end."""
        try:
            return read_at(self.fd, size, offset)
        except OSError as error:
            raise FileError(f"{self.path} cannot be read at offset {offset:#x}: {error.strerror or error}") from None

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class DumpFile:
    """A kernel dump of any type, as a Source. Close it when done. A small dump has no pages, but pieces."""

    def __init__(self, path: Path) -> None:
        """Raises FileError when it cannot be read, DumpError when it is no dump that pages can be found in."""
        self.path = path
        self._file = _File(path)
        try:
            self.layout: DumpLayout = parse_layout(self._file.read, self._file.size)
            header, size = self.layout.header, self._file.size
            self.small = SmallDump(self._file.read, header, size) if self.layout.is_triage else None
        except DumpFormatError as error:
            self._file.close()
            raise DumpError(f"{path} is not a dump that can be read: {error}") from None
        self._physical = PageMemory(self)
        self._held: PageRuns | None = None

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- pages ---------------------------------------------------------------------------------------------

    def page(self, pfn: int) -> bytes | None:
        """One page; None where the file does not hold it, or marks it as unreadable."""
        offset = self.layout.pages.offset_of(pfn)
        if offset is None:
            return None
        data = self._file.read(offset, PAGE_SIZE)
        if len(data) < PAGE_SIZE or (self.layout.kind is DumpType.FULL and data == UNREADABLE_PAGE):
            return None
        return data

    @property
    def stored(self) -> PageRuns:
        """Frames that have a place in the file, marked as unreadable or not."""
        return PageRuns(self.layout.pages.runs())

    @property
    def held(self) -> PageRuns:
        """Frames whose content the file holds."""
        self._look()
        return self.stored if self._held is None else self._held

    @property
    def unreadable(self) -> PageRuns:
        """Frames that a complete dump marks as unreadable."""
        self._look()
        return PageRuns() if self._held is None else self.stored - self._held

    @cached_property
    def log(self) -> dict[str, Any]:
        """How the dump came about, if this program wrote it and had something to tell; else empty."""
        blob = next((one for one in self.layout.secondary if one.guid == LOG_BLOB), None)
        return {} if blob is None else parse_log(self._file.read(blob.file_offset, blob.size))

    @property
    def inferred(self) -> PageRuns:
        """Frames whose content was not read from the target, as the dump's log says."""
        return inferred_of(self.log) & self.stored

    def _look(self) -> None:
        """A complete dump tells what could not be read only page by page."""
        if self._held is not None or self.layout.kind is not DumpType.FULL:
            return
        marked: list[int] = []
        for run in self.layout.pages.runs():  # not `stored`: runs that touch may lie apart in the file
            for at in range(0, run.page_count, 256):
                count = min(256, run.page_count - at)
                offset = self.layout.pages.offset_of(run.base_page + at)
                data = self._file.read(offset or 0, count * PAGE_SIZE)
                if UNREADABLE_PAGE[:16] in data:
                    marked += [
                        run.base_page + at + index
                        for index in range(count)
                        if data[index * PAGE_SIZE : (index + 1) * PAGE_SIZE] == UNREADABLE_PAGE
                    ]
        self._held = self.stored - PageRuns.from_pages(marked)

    def read_run(self, run: PageRun) -> bytes:
        """Pages of a run of which every frame is held."""
        parts: list[bytes] = []
        at = run.base_page
        while at < run.end_page:
            extent = self.layout.pages.extent_of(at)
            if extent is None:
                raise DumpError(f"{self.path} does not hold frame {at:#x}")
            count = min(extent.page_count, run.end_page - at)
            parts.append(self._file.read(extent.file_offset, count * PAGE_SIZE))
            at += count
        return b"".join(parts)

    # ---- as a Source ---------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def physical(self) -> PageMemory | None:
        """Its pages; None in a small dump."""
        return None if self.small is not None else self._physical

    @property
    def architecture(self) -> Architecture:
        """Of the machine it came from. TargetRefusedError where this version does not know it."""
        return require_architecture(self.layout.header.machine_image_type, self.name)

    @cached_property
    def virtual(self) -> VirtualMemory:
        """Through the page tables that its header names; in a small dump, its pieces."""
        if self.small is not None:
            return self.small.memory
        return PagedVirtualMemory(self._physical, self.architecture.paging, self.layout.header.directory_table_base)

    @property
    def listed(self) -> tuple[tuple[Module, ...], tuple[UnloadedModule, ...]] | None:
        """Loaded and unloaded images, where the file has lists of its own; None where they are in memory."""
        return None if self.small is None else (self.small.modules, self.small.unloaded_modules)

    @property
    def header_bug_check(self) -> tuple[int, int, int, int, int]:
        """Code and parameters as the header has them; all 0 where there was none."""
        return (self.layout.header.bug_check_code, *self.layout.header.bug_check_parameters)

    @property
    def header_shared_data(self) -> SharedData | None:
        """What the header repeats of KUSER_SHARED_DATA; Windows' version and folder are not in it."""
        header = self.layout.header
        if header.system_time is None:
            return None
        return SharedData(
            header.system_time, header.system_up_time or 0, 0, 0, header.minor_version & 0xFFFF,
            header.product_type or 0, header.suite_mask or 0, "", header.number_processors,
        )  # fmt: skip

    @property
    def stop(self) -> StopEvent | None:
        """What the header says of the exception; a small dump also tells whose it was."""
        header = self.layout.header
        try:
            record = ExceptionRecord.decode(header.exception, header.bits)
        except DumpFormatError:
            return None
        return StopEvent(
            0 if self.small is None else self.small.processor, record.code, record.address, 0,
            first_chance=False, number_processors=header.number_processors,
        )  # fmt: skip

    async def version(self) -> GetVersion64:
        """What the header says: the kernel's base comes from its module list."""
        header = self.layout.header
        base = 0
        if header.kd_debugger_data_block:
            try:
                data = await self.virtual.read(header.kd_debugger_data_block + 0x18, 8)  # type: ignore[arg-type]
                base = int.from_bytes(data, "little")
            except MemoryFault:
                pass
        return GetVersion64(
            header.major_version & 0xFFFF, header.minor_version & 0xFFFF, 6, 2, 0, header.machine_image_type & 0xFFFF,
            0, 0, 0, 0, base, header.ps_loaded_module_list, header.kd_debugger_data_block,
        )  # fmt: skip

    async def context(self, processor: int) -> Structure:
        """The CONTEXT that a debugger finds in the dump's memory; where there is none, the header's for the first."""
        layout = self.architecture.context
        prcb, block = await self._prcb(processor)
        try:
            if prcb and block["offset_prcb_context"] and block["size"] > 0x33A:
                pointer = await self.virtual.read(prcb + block["offset_prcb_context"], 8)  # type: ignore[arg-type]
                data = await self.virtual.read(int.from_bytes(pointer, "little"), layout.size)  # type: ignore[arg-type]
                return layout.decode(data)
            if prcb and block["offset_prcb_proc_state_context"]:
                place = prcb + block["offset_prcb_proc_state_context"]
                return layout.decode(await self.virtual.read(place, layout.size))  # type: ignore[arg-type]
        except (MemoryFault, LayoutError):
            pass
        header = self.layout.header
        if processor == 0 and len(header.context_record) >= layout.size and any(header.context_record[: layout.size]):
            return layout.decode(header.context_record)
        raise TargetRefusedError(f"{self.path} holds no registers of processor {processor}", api="CONTEXT", status=0)

    async def special_registers(self, processor: int) -> Structure:
        """KSPECIAL_REGISTERS from the processor's KPRCB."""
        architecture = self.architecture
        layout = architecture.special_registers
        prcb, block = await self._prcb(processor)
        if prcb and block["offset_prcb_proc_state_special_reg"]:
            place = prcb + block["offset_prcb_proc_state_special_reg"]
            try:
                data = await self.virtual.read(place, layout.size)  # type: ignore[arg-type]
                return layout.decode(data, least=architecture.special_registers_least)
            except (MemoryFault, LayoutError):
                pass
        raise TargetRefusedError(
            f"{self.path} holds no special registers of processor {processor}", api="KSPECIAL_REGISTERS", status=0
        )

    async def _prcb(self, processor: int) -> tuple[int, Structure]:
        from kdbridge.discovery.kdbg import block_at

        found = await block_at(self, self.layout.header.kd_debugger_data_block)
        if found is None or not 0 <= processor < _LARGEST_POINTERS:
            raise TargetRefusedError(f"{self.path} holds no readable KDBG", api="KDBG", status=0)
        block = found.block
        try:
            data = await self.virtual.read(block["ki_processor_block"] + 8 * processor, 8)  # type: ignore[arg-type]
        except MemoryFault:
            return 0, block
        return int.from_bytes(data, "little"), block


class RawImage:
    """A raw image of physical memory: frame n lies at n x 4096. Only memory: nobody knows whose it is."""

    def __init__(self, path: Path) -> None:
        """Raises FileError when it cannot be read."""
        self.path = path
        self._file = _File(path)
        self.physical = PageMemory(self)

    @property
    def name(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def held(self) -> PageRuns:
        """Every page of the file."""
        return PageRuns([PageRun(0, self._file.size >> PAGE_SHIFT)])

    def page(self, pfn: int) -> bytes | None:
        """One page; None beyond the end."""
        data = self._file.read(pfn << PAGE_SHIFT, PAGE_SIZE) if 0 <= pfn < self._file.size >> PAGE_SHIFT else b""
        return data if len(data) == PAGE_SIZE else None

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
