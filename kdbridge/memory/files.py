"""Dump files and raw images as sources: random access, no index in memory that grows with the file."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kdbridge.discovery.notes import try_read, try_read_pointer
from kdbridge.errors import DumpError, FileError
from kdbridge.file_facts import FileFacts
from kdbridge.log_blob import LOG_BLOB, MOST_LOG, inferred_of, parse_log
from kdbridge.positioned import read_at
from kdbridge.progress import ProgressSink
from kdbridge.source import StopEvent, VirtualMemory, require_architecture
from kdbridge.target import SharedData
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns
from protocol.arch import X86, X86_WITHOUT_PAE, Architecture, MachineType, architecture_of
from protocol.dumpfile.complete import marks_unreadable
from protocol.dumpfile.exception import ExceptionRecord
from protocol.dumpfile.index import HIGHEST_PAGE
from protocol.dumpfile.layout import DumpLayout, parse_layout
from protocol.dumpfile.secondary import SecondaryBlob
from protocol.errors import DumpFormatError
from protocol.layouts.kernel import KERNEL_LAYOUTS
from protocol.layouts.version import GetVersion64
from protocol.structure import Structure

from .dump_registers import DumpRegisters, context_of_header
from .pages import PageMemory
from .stored import StoredPages
from .triage import SmallDump
from .virtual import NoMemory, PagedVirtualMemory, looks_like_pae

__all__ = ["DumpFile", "RawImage"]

_SEEK_DATA: int | None = getattr(os, "SEEK_DATA", None)


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

    def data_from(self, offset: int) -> int:
        """Where, from here on, something was written: before it the file system knows of a hole, which is zeros."""
        if _SEEK_DATA is None:
            return offset
        try:
            return os.lseek(self.fd, offset, _SEEK_DATA)
        except OSError as error:
            return self.size if error.errno == errno.ENXIO else offset

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
        self._places = StoredPages(path, self.layout, self._file.read, self._file.data_from)
        problems = tuple(problem for problem in (self._no_root(), self._no_log()) if problem)
        self.layout = replace(self.layout, shortcomings=self.layout.shortcomings + problems)
        self._version: GetVersion64 | None = None

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
        data = self._pages_at(offset, PageRun(pfn, 1))
        return None if marks_unreadable(self.layout.kind, data) else data

    def _pages_at(self, offset: int, run: PageRun) -> bytes:
        """Pages that lie there by what the file's tables and its size said when it was opened."""
        data = self._file.read(offset, run.page_count * PAGE_SIZE)
        if len(data) != run.page_count * PAGE_SIZE:
            gone = run.base_page + len(data) // PAGE_SIZE
            raise DumpError(f"{self.path} became shorter while it was read: frame {gone:#x} is not there any more")
        return data

    @property
    def stored(self) -> PageRuns:
        """Frames that have a place in the file, marked as unreadable or not. DumpError where they are too torn."""
        return self._places.all()

    @property
    def held(self) -> PageRuns:
        """Frames whose content the file holds. Of a complete dump this reads all of it: `among` can be waited for."""
        return self._places.sorted_out[0]

    @property
    def unreadable(self) -> PageRuns:
        """Frames that a complete dump marks as unreadable."""
        return self._places.sorted_out[1]

    async def among(self, wanted: PageRuns, progress: ProgressSink | None = None) -> tuple[PageRuns, PageRuns]:
        """Of these frames those whose content the file holds, and those that it marks as unreadable.

        Raises DumpError where they lie in more runs than are kept in memory.
        """
        return await self._places.among(wanted, progress)

    @cached_property
    def log(self) -> dict[str, Any]:
        """How the dump came about, if this program wrote it and had something to tell; else empty."""
        data = None if self._no_log() else self.secondary_data(LOG_BLOB, MOST_LOG)
        return {} if data is None else parse_log(data)

    def _no_log(self) -> str:
        """Why the log is not looked at; empty where it is, or where there is none."""
        blob = self._secondary(LOG_BLOB)
        if blob is None or blob.size <= MOST_LOG:
            return ""
        return (
            f"the log of how it came about has {blob.size:#x} bytes, more than {MOST_LOG:#x}, and was not looked at:"
            " which pages were inferred is not known"
        )

    def secondary_data(self, guid: str, most: int) -> bytes | None:
        """The first piece of secondary data with this GUID, at most so many bytes of it; None where there is none."""
        blob = self._secondary(guid)
        return None if blob is None else self._file.read(blob.file_offset, min(blob.size, most))

    def _secondary(self, guid: str) -> SecondaryBlob | None:
        return next((blob for blob in self.layout.secondary if blob.guid == guid), None)

    @cached_property
    def inferred(self) -> PageRuns:
        """Frames whose content was not read from the target, as the dump's log says; some may not be in the file."""
        return inferred_of(self.log)

    def read_run(self, run: PageRun) -> bytes:
        """Pages of a run of which every frame is held; DumpError where one is not."""
        parts: list[bytes] = []
        at = run.base_page
        while at < run.end_page:
            extent = self.layout.pages.extent_of(at)
            if extent is None:
                raise DumpError(f"{self.path} does not hold frame {at:#x}")
            count = min(extent.page_count, run.end_page - at)
            parts.append(self._pages_at(extent.file_offset, PageRun(at, count)))
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

    @cached_property
    def architecture(self) -> Architecture:
        """Of the machine it came from. TargetRefusedError where this version does not know it."""
        header = self.layout.header
        known = require_architecture(header.machine_image_type, self.name)
        if known.machine_type != MachineType.I386:
            return known
        pae = header.pae_enabled
        if pae is None and self.small is None:
            pae = looks_like_pae(self.page(header.directory_table_base >> PAGE_SHIFT), header.directory_table_base)
        return X86_WITHOUT_PAE if pae is False else X86

    @cached_property
    def virtual(self) -> VirtualMemory:
        """Through the page tables that its header names; in a small dump, its pieces."""
        if self.small is not None:
            return self.small.memory
        paging, root = self.architecture.paging, self.layout.header.directory_table_base
        if not root & paging.root_mask:
            return NoMemory(f"the header of {self.path} names no directory table base")
        return PagedVirtualMemory(self._physical, paging, root)

    def _no_root(self) -> str:
        """Why no virtual address can be read; empty where some may be."""
        header = self.layout.header
        known = architecture_of(header.machine_image_type)
        if self.small is not None or known is None:
            return ""
        root = header.directory_table_base & known.paging.root_mask
        if not root:
            return "the header names no directory table base: memory cannot be read by virtual address"
        if self.layout.pages.offset_of(root >> PAGE_SHIFT) is None:
            frame = root >> PAGE_SHIFT
            return f"the top page table, in frame {frame:#x}, is not there: memory cannot be read by virtual address"
        return ""

    @cached_property
    def file_facts(self) -> FileFacts:
        """What its header and its own lists tell."""
        header, small = self.layout.header, self.small
        known = architecture_of(header.machine_image_type)
        runs = header.physical_memory
        believable = runs and all(run.page_count > 0 and run.end_page <= HIGHEST_PAGE for run in runs)
        shared = SharedData(
            header.system_time, header.system_up_time or 0, 0, 0, header.minor_version & 0xFFFF,
            header.product_type or 0, header.suite_mask or 0, "", header.number_processors,
        ) if header.system_time is not None else None  # fmt: skip
        return FileFacts(
            bug_check=(header.bug_check_code, *header.bug_check_parameters),
            shared_data=shared,
            context=None if known is None else context_of_header(header.context_record, known),
            directory_table_base=header.directory_table_base,
            runs=PageRuns(runs) if believable else None,
            modules=None if small is None else small.modules,
            unloaded_modules=None if small is None else small.unloaded_modules,
            shortcomings=self.layout.shortcomings,
        )

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
        """What the header says: the kernel's base comes from its KDBG, or is that of a small dump's first image."""
        if self._version is None:
            header, base = self.layout.header, await self._kernel_base()
            self._version = GetVersion64(
                header.major_version & 0xFFFF, header.minor_version & 0xFFFF, 6, 2, 0,
                header.machine_image_type & 0xFFFF, 0, 0, 0, 0, base, header.ps_loaded_module_list,
                header.kd_debugger_data_block,
            )  # fmt: skip
        return self._version

    async def _kernel_base(self) -> int:
        """0 where nothing tells it: neither the KDBG nor the first of the images."""
        header = self.layout.header
        data = await try_read(self, header.kd_debugger_data_block, 0x20)
        if data is not None and data[0x10:0x14] == b"KDBG":
            return int.from_bytes(data[0x18 : 0x18 + header.bits // 8], "little")
        if self.small is not None and self.small.modules:
            return self.small.modules[0].base
        layouts = KERNEL_LAYOUTS[header.bits // 8]
        first = await try_read_pointer(self, header.ps_loaded_module_list, layouts.pointer_size)
        entry = await try_read(self, first or 0, layouts.module.size)
        return 0 if entry is None else layouts.module.decode(entry)["dll_base"]

    async def context(self, processor: int) -> Structure:
        """The CONTEXT that a debugger finds in the dump's memory; where there is none, the header's for the first."""
        return await self._registers.context(processor, self.architecture)

    async def special_registers(self, processor: int) -> Structure:
        """KSPECIAL_REGISTERS from the processor's KPRCB."""
        return await self._registers.special_registers(processor, self.architecture)

    @cached_property
    def _registers(self) -> DumpRegisters:
        return DumpRegisters(self, self.layout.header.kd_debugger_data_block, self.file_facts.context)


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
