"""The folder on disk: memory.raw (sparse; frame n at n x 4096), coverage, target.json, console.txt, requests.log.

Where the target tells no frames there is virtual.raw beside them: pieces of memory by their virtual addresses.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from kdbridge.errors import DiskFullError, MemoryFault, SnapshotError, TargetRefusedError
from kdbridge.memory.blocks import BlockMemory
from kdbridge.memory.virtual import PagedVirtualMemory
from kdbridge.plan import Stage
from kdbridge.positioned import read_at, write_at
from kdbridge.source import PageRead, StopEvent, VirtualMemory
from kdbridge.target import Target
from kdbridge.target_json import target_from_json, target_to_json
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns, PhysicalAddress
from protocol.arch import architecture_of
from protocol.layouts.version import GetVersion64
from protocol.structure import Structure

from .coverage import Coverage, PageState
from .lock import lock
from .pieces import VirtualPieces
from .whole import write_whole

__all__ = ["Snapshot", "SnapshotMemory"]

_MEMORY, _PIECES, _COVERAGE, _TARGET, _CONSOLE, _REQUESTS = (
    "memory.raw",
    "virtual.raw",
    "coverage",
    "target.json",
    "console.txt",
    "requests.log",
)
_REACHED = "stage"
_ZEROS = bytes(PAGE_SIZE)


class SnapshotMemory:
    """The pages of a Snapshot as physical memory. What was not read is a fault, never zeros."""

    __slots__ = ("_snapshot",)

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    async def read(self, address: PhysicalAddress, size: int) -> bytes:
        """Exactly `size` bytes. MemoryFault names the first byte that was not read from the target."""
        parts: list[bytes] = []
        done = 0
        while done < size:
            at = address + done
            length = min(size - done, PAGE_SIZE - (at & PAGE_SIZE - 1))
            page = self._snapshot.page(at >> PAGE_SHIFT)
            if page is None:
                raise MemoryFault(
                    f"the Snapshot does not hold physical address {at:#x}",
                    address=at,
                    size=size,
                    done=done,
                    virtual=False,
                )
            parts.append(page[at & PAGE_SIZE - 1 :][:length])
            done += length
        return b"".join(parts)

    async def read_pages(self, runs: Iterable[PageRun]) -> AsyncIterator[PageRead]:
        """Every page of these runs; those that are missing with the reason."""
        for run in runs:
            for pfn in range(run.base_page, run.end_page):
                page = self._snapshot.page(pfn)
                yield PageRead(pfn, page, "" if page is not None else "the Snapshot does not hold it")


class Snapshot:
    """One capture of one machine. A Source; and while it is captured, where the pages go.

    Made by `create`, opened again by `open`. Close it when done (it is a context manager).
    """

    def __init__(
        self, path: Path, target: Target, memory: int, coverage: int, states: Coverage, *, writable: bool
    ) -> None:
        self.path = path
        self.target = target
        self.coverage = states
        self.writable = writable
        self._memory = memory
        self._coverage = coverage
        self._console = self._requests = -1
        self._physical = SnapshotMemory(self)
        self._buffer = bytearray()
        self._buffer_pfn = 0
        self._pieces = VirtualPieces(path / _PIECES)

    # ---- making and opening --------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path, target: Target) -> Snapshot:
        """A new folder. Raises SnapshotError when there is something at this path already."""
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise SnapshotError(f"{path} exists already; nothing in it was changed. Name another folder.") from None
        except OSError as error:
            raise SnapshotError(f"{path} cannot be made: {error.strerror or error}") from None
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        opened: list[int] = []
        try:
            for name, more in ((_MEMORY, 0), (_COVERAGE, 0), (_CONSOLE, os.O_APPEND), (_REQUESTS, os.O_APPEND)):
                opened.append(os.open(path / name, flags | more, 0o600))
            memory, coverage, console, requests = opened
            _lock(coverage, path)
            snapshot = cls(path, target, memory, coverage, Coverage.create(coverage), writable=True)
        except OSError as error:
            _close(opened)
            raise SnapshotError(f"{path} cannot be made: {error.strerror or error}") from None
        snapshot._console, snapshot._requests = console, requests
        try:
            snapshot.save_target()
        except SnapshotError:
            snapshot.close()
            raise
        return snapshot

    @classmethod
    def open(cls, path: Path, *, writable: bool = False) -> Snapshot:
        """A Snapshot that is there: for reading, also while another process fills it; or, `writable`, to go on with it.

        Raises SnapshotError when it is none, is damaged, cannot be written, or has a writer already.
        """
        opened: list[int] = []
        flags = (os.O_RDWR if writable else os.O_RDONLY) | getattr(os, "O_BINARY", 0)
        try:
            for name, more in ((_COVERAGE, 0), (_MEMORY, 0), (_CONSOLE, os.O_APPEND), (_REQUESTS, os.O_APPEND)):
                if writable or name in (_COVERAGE, _MEMORY):
                    opened.append(os.open(path / name, flags | more))
            coverage, memory = opened[:2]
            if writable:
                _lock(coverage, path)
            # Coverage is read before anything that it speaks of: what it says was there before it said so.
            states = Coverage.load(coverage, str(path / _COVERAGE))
            target = target_from_json(_parsed((path / _TARGET).read_bytes(), path / _TARGET))
            _check_length(os.fstat(memory).st_size, states, path / _MEMORY)
        except OSError as error:
            _close(opened)
            why = f"{error.strerror or error} ({error.filename})"
            if writable and cls.is_snapshot(path):
                raise SnapshotError(f"{path} cannot be gone on with: {why}") from None
            raise SnapshotError(f"{path} is not a Snapshot: {why}") from None
        except BaseException:
            _close(opened)
            raise
        snapshot = cls(path, target, memory, coverage, states, writable=writable)
        if writable:
            snapshot._console, snapshot._requests = opened[2:]
        return snapshot

    @staticmethod
    def is_snapshot(path: Path) -> bool:
        """Whether this folder looks like one."""
        return (path / _TARGET).is_file() and (path / _COVERAGE).is_file()

    def close(self) -> None:
        """Give the files back; what was added is made durable before."""
        if self._memory < 0:
            return
        try:
            if self.writable:
                self.checkpoint()
        finally:
            self._pieces.close()
            for fd in (self._memory, self._coverage, self._console, self._requests):
                if fd >= 0:
                    os.close(fd)
            self._memory = self._coverage = self._console = self._requests = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- writing -------------------------------------------------------------------------------------------

    def put(self, pfn: int, data: bytes | memoryview | None) -> None:
        """Keep a page, or that it cannot be read (None). Durable at the next checkpoint."""
        if data is None:
            self.coverage.add(pfn, PageState.UNREADABLE)
            return
        self._put(pfn, data, PageState.READ)

    def _put(self, pfn: int, data: bytes | memoryview, state: PageState) -> None:
        if self._buffer and (pfn << PAGE_SHIFT) != self._buffer_pfn * PAGE_SIZE + len(self._buffer):
            self._write_out()
        if not self._buffer:
            self._buffer_pfn = pfn
        self._buffer += data
        self.coverage.add(pfn, state)
        if len(self._buffer) >= 1 << 18:
            self._write_out()

    def infer_zeros(self, pages: PageRuns) -> None:
        """Take frames that are not known yet for zero pages, without having read them; marked so for good."""
        for run in pages:
            self.coverage.add_run(run, PageState.INFERRED_ZERO)

    def infer(self, pfn: int, data: bytes) -> None:
        """Take this for the content of a frame, from the file of an image, without having read it; marked so."""
        if self.coverage.state_of(pfn) is not PageState.READ:
            self._put(pfn, data, PageState.INFERRED_IMAGE)

    def put_virtual(self, address: int, data: bytes) -> None:
        """Keep a piece of virtual memory. Durable at the next checkpoint."""
        try:
            self._pieces.add(address, data)
        except OSError as error:
            raise self._failed(error) from None

    def console(self, text: bytes) -> None:
        """Keep what the target printed."""
        if self._console >= 0:
            self._append(self._console, text)

    def log(self, line: str) -> None:
        """Keep a line of what was asked, found and decided."""
        if self._requests >= 0:
            self._append(self._requests, (line + "\n").encode("utf-8", "replace"))

    def save_target(self) -> None:
        """Write target.json anew, whole or not at all."""
        try:
            # It holds registers and addresses: as little for others to read as the memory beside it.
            write_whole(self.path / _TARGET, json.dumps(target_to_json(self.target), indent=1).encode())
        except OSError as error:
            raise self._failed(error) from None

    def checkpoint(self) -> None:
        """Make all that was put so far durable: the memory first, then the coverage that speaks of it."""
        problem: SnapshotError | None = None
        try:
            self._write_out()
        except SnapshotError as error:
            # What did not fit is lost. What came before it is in the file, and stays ours.
            problem = error
            pages = -(-len(self._buffer) // PAGE_SIZE)
            self.coverage.forget(PageRun(self._buffer_pfn, pages))
            self._buffer.clear()
        try:
            self._pieces.sync()
            os.fsync(self._memory)
            self.coverage.save()
            os.fsync(self._coverage)
        except OSError as error:
            raise self._failed(error) from None
        if problem is not None:
            raise problem

    def _write_out(self) -> None:
        """Put the buffered pages in their place. Runs of zeros stay holes."""
        base = self._buffer_pfn * PAGE_SIZE
        data = bytes(self._buffer)
        start = 0
        try:
            for at in range(0, len(data) + 1, PAGE_SIZE):
                if at == len(data) or data[at : at + PAGE_SIZE] == _ZEROS:
                    write_at(self._memory, data[start:at], base + start)
                    start = at + PAGE_SIZE
            size = base + len(data)
            if os.fstat(self._memory).st_size < size:
                os.ftruncate(self._memory, size)
        except OSError as error:
            # The buffer stays: only a checkpoint may decide that these pages are lost.
            raise self._failed(error) from None
        self._buffer.clear()

    def _append(self, fd: int, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(fd, data) :]
        except OSError as error:
            raise self._failed(error) from None

    def _read(self, size: int, offset: int) -> bytes:
        try:
            return read_at(self._memory, size, offset).ljust(size, b"\0")
        except OSError as error:
            raise SnapshotError(f"{self.path / _MEMORY} cannot be read: {error.strerror or error}") from None

    def _failed(self, error: OSError) -> SnapshotError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return DiskFullError(f"{self.path} cannot be written: {error.strerror or error}. What is in it stays")
        return SnapshotError(
            f"{self.path} cannot be written: {error.strerror or error}. See what became of that folder."
        )

    # ---- reading -------------------------------------------------------------------------------------------

    def page(self, pfn: int) -> bytes | None:
        """A page as it was read from the target, or inferred; None where it is neither."""
        state = self.coverage.state_of(pfn)
        if state is not PageState.READ and not state.inferred:
            return None
        at = pfn - self._buffer_pfn << PAGE_SHIFT
        if 0 <= at < len(self._buffer):
            return bytes(self._buffer[at : at + PAGE_SIZE])
        return self._read(PAGE_SIZE, pfn << PAGE_SHIFT)

    def read_run(self, run: PageRun) -> bytes:
        """Consecutive pages of which the caller knows that they are held."""
        if self._buffer:
            self._write_out()
        return self._read(run.page_count << PAGE_SHIFT, run.base_page << PAGE_SHIFT)

    @property
    def held(self) -> PageRuns:
        """Frames that were read, or whose content was inferred."""
        return self.coverage.runs(PageState.READ) | self.inferred

    @property
    def inferred(self) -> PageRuns:
        """Frames whose content was concluded, not read."""
        return PageRuns(run for state in PageState if state.inferred for run in self.coverage.runs(state))

    @property
    def unreadable(self) -> PageRuns:
        """Frames that the target refused."""
        return self.coverage.runs(PageState.UNREADABLE)

    @property
    def reached(self) -> Stage | None:
        """The last stage that was read to its end; None: not even the first, or nobody noted it."""
        try:
            return Stage[(self.path / _REACHED).read_text("ascii").strip()]
        except (OSError, ValueError, KeyError):
            return None

    def reach(self, stage: Stage) -> None:
        """Note that everything of this stage was read or cannot be."""
        if (before := self.reached) is None or before < stage:
            try:
                write_whole(self.path / _REACHED, stage.name.encode("ascii"))
            except OSError as error:
                raise self._failed(error) from None

    @property
    def log_text(self) -> bytes:
        """What was asked, found and decided."""
        try:
            return (self.path / _REQUESTS).read_bytes()
        except OSError:
            return b""

    @property
    def console_text(self) -> bytes:
        """What the target printed while we were there."""
        try:
            return (self.path / _CONSOLE).read_bytes()
        except OSError:
            return b""

    # ---- as a Source ---------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.path)

    @property
    def physical(self) -> SnapshotMemory | None:
        """The pages that were read; None where memory was read by virtual address."""
        return None if len(self._pieces) else self._physical

    @property
    def pieces(self) -> tuple[int, int]:
        """How many pieces were read by virtual address, and their bytes."""
        return len(self._pieces), self._pieces.size

    @property
    def blocks(self) -> BlockMemory:
        """Pieces that were read by virtual address."""
        return self._pieces.memory

    @property
    def virtual(self) -> VirtualMemory:
        """Through the page tables of the system, as far as they were read; or what was read by virtual address."""
        if len(self._pieces):
            return self.blocks
        architecture = architecture_of(self.target.version.machine_type)
        root = self.target.directory_table_base
        if architecture is None or root is None:
            raise SnapshotError(f"{self.path} holds no directory table base: virtual addresses cannot be read")
        return PagedVirtualMemory(self._physical, architecture.paging, root)

    @property
    def stop(self) -> StopEvent | None:
        """Why the machine stood still."""
        return self.target.stop

    async def version(self) -> GetVersion64:
        """The version packet."""
        return self.target.version

    async def context(self, processor: int) -> Structure:
        """The processor's CONTEXT as the target's debugger gave it."""
        return self._registers(processor, "context")

    async def special_registers(self, processor: int) -> Structure:
        """The processor's KSPECIAL_REGISTERS."""
        return self._registers(processor, "special_registers")

    def _registers(self, number: int, what: str) -> Structure:
        for processor in self.target.processors:
            if processor.number == number:
                found = processor.context if what == "context" else processor.special_registers
                if found is not None:
                    return found
        raise TargetRefusedError(f"the Snapshot holds no {what} of processor {number}", api=what, status=0)


def _close(opened: Iterable[int]) -> None:
    for fd in opened:
        os.close(fd)


def _lock(fd: int, path: Path) -> None:
    if not lock(fd):
        raise SnapshotError(
            f"{path} is being written by another kdbridge; let it end, or stop it (Ctrl-C keeps all that it read). "
            "`kdbridge convert --partial` makes a dump of it even now"
        )


def _check_length(size: int, states: Coverage, path: Path) -> None:
    """What coverage calls read must be in the file: a copy that stopped half way must not pass for zeros."""
    end = states.runs(PageState.READ).end_page << PAGE_SHIFT
    if size < end:
        raise SnapshotError(f"{path} has {size} bytes, and pages up to {end} were read: the Snapshot is damaged")


def _parsed(text: bytes, path: Path) -> Mapping[str, object]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise SnapshotError(f"{path} is not valid JSON: the Snapshot is damaged") from None
    if not isinstance(document, dict):
        raise SnapshotError(f"{path} is not a description of a target")
    return document
