"""The folder on disk: memory.raw (sparse; frame n at n x 4096), coverage, target.json, console.txt, requests.log.

Where the target tells no frames there is virtual.raw beside them: pieces of memory by their virtual addresses.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from kdbridge.errors import SnapshotError, TargetRefusedError
from kdbridge.memory.blocks import BlockMemory
from kdbridge.memory.layered import LayeredMemory
from kdbridge.memory.pages import PageMemory
from kdbridge.memory.virtual import PagedVirtualMemory
from kdbridge.plan import Stage
from kdbridge.source import StopEvent, VirtualMemory
from kdbridge.target import Target
from kdbridge.target_json import target_from_json, target_to_json
from protocol.address import PageRun, PageRuns
from protocol.arch import architecture_of
from protocol.layouts.version import GetVersion64
from protocol.structure import Structure

from .coverage import Coverage, PageState
from .folder import (
    CONSOLE,
    COVERAGE,
    MEMORY,
    PIECES,
    REACHED,
    REQUESTS,
    TARGET,
    check_length,
    close_all,
    lock_or_refuse,
    not_written,
    parsed,
)
from .pages import PageFile
from .pieces import VirtualPieces
from .whole import write_whole

__all__ = ["Snapshot"]


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
        self._pages = PageFile(memory)
        self._coverage = coverage
        self._console = self._requests = -1
        self._physical = PageMemory(self)
        self.read_once = PageRuns()
        """Frames that this process read once, and did not compare with a second reading."""
        self._pieces = VirtualPieces(path / PIECES)
        self._marked: dict[PageState, PageRuns] = {}

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
            for name, more in ((MEMORY, 0), (COVERAGE, 0), (CONSOLE, os.O_APPEND), (REQUESTS, os.O_APPEND)):
                opened.append(os.open(path / name, flags | more, 0o600))
            memory, coverage, console, requests = opened
            lock_or_refuse(coverage, path)
            snapshot = cls(path, target, memory, coverage, Coverage.create(coverage), writable=True)
        except OSError as error:
            close_all(opened)
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
            for name, more in ((COVERAGE, 0), (MEMORY, 0), (CONSOLE, os.O_APPEND), (REQUESTS, os.O_APPEND)):
                if writable or name in (COVERAGE, MEMORY):
                    opened.append(os.open(path / name, flags | more))
            coverage, memory = opened[:2]
            if writable:
                lock_or_refuse(coverage, path)
            # Coverage is read before anything that it speaks of: what it says was there before it said so.
            states = Coverage.load(coverage, str(path / COVERAGE))
            target = target_from_json(parsed((path / TARGET).read_bytes(), path / TARGET))
            check_length(os.fstat(memory).st_size, states, path / MEMORY)
        except OSError as error:
            close_all(opened)
            why = f"{error.strerror or error} ({error.filename})"
            if writable and cls.is_snapshot(path):
                raise SnapshotError(f"{path} cannot be gone on with: {why}") from None
            raise SnapshotError(f"{path} is not a Snapshot: {why}") from None
        except BaseException:
            close_all(opened)
            raise
        snapshot = cls(path, target, memory, coverage, states, writable=writable)
        if writable:
            snapshot._console, snapshot._requests = opened[2:]
        return snapshot

    @staticmethod
    def is_snapshot(path: Path) -> bool:
        """Whether this folder looks like one."""
        return (path / TARGET).is_file() and (path / COVERAGE).is_file()

    def close(self) -> None:
        """Give the files back; what was added is made durable before."""
        if self._pages.closed:
            return
        try:
            if self.writable:
                self.checkpoint()
        finally:
            self._pages.close()
            self._pieces.close()
            for fd in (self._coverage, self._console, self._requests):
                if fd >= 0:
                    os.close(fd)
            self._coverage = self._console = self._requests = -1

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
        try:
            if self.coverage.state_of(pfn) is PageState.INFERRED_IMAGE:
                self._pages.replace(pfn, data)
            else:
                self._pages.put(pfn, data)
        except OSError as error:
            raise not_written(self.path, error) from None
        self.coverage.add(pfn, state)

    def infer_zeros(self, pages: PageRuns) -> None:
        """Take frames that are not known yet for zero pages, without having read them; marked so for good."""
        self.coverage.add_missing(pages, PageState.INFERRED_ZERO)

    def infer(self, pfn: int, data: bytes) -> None:
        """Take this for the content of a frame, from the file of an image, without having read it; marked so."""
        if self.coverage.state_of(pfn) is not PageState.READ:
            self._put(pfn, data, PageState.INFERRED_IMAGE)

    def put_virtual(self, address: int, data: bytes) -> None:
        """Keep a piece of virtual memory. Durable at the next checkpoint."""
        try:
            self._pieces.add(address, data)
        except OSError as error:
            raise not_written(self.path, error) from None

    def correct(self, pfn: int, data: bytes | memoryview) -> None:
        """Put a page right that is kept, zeros too: what was read of it before was wrong."""
        try:
            self._pages.replace(pfn, data)
        except OSError as error:
            raise not_written(self.path, error) from None

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
            write_whole(self.path / TARGET, json.dumps(target_to_json(self.target), indent=1).encode())
        except OSError as error:
            raise not_written(self.path, error) from None

    def checkpoint_soon(self) -> None:
        """As `checkpoint`, without waiting for the disk: `settle` does the rest."""
        if self._pages.syncing:
            return
        try:
            self._pages.begin_sync()
        except OSError as error:
            raise not_written(self.path, error) from None
        self._marked = self.coverage.added()

    def settle(self) -> None:
        """Save the coverage of what `checkpoint_soon` made durable, as soon as it is."""
        if not self._pages.syncing:
            return
        try:
            self._pages.settle()
            self._pieces.sync()
            self.coverage.save(self._marked)
            os.fsync(self._coverage)
        except OSError as error:
            raise not_written(self.path, error) from None

    def checkpoint(self) -> None:
        """Make all that was put so far durable: the memory first, then the coverage that speaks of it."""
        self.settle()
        problem: SnapshotError | None = None
        try:
            self._pages.write_out()
        except OSError as error:
            # What did not fit is lost. What came before it is in the file, and stays ours.
            problem = not_written(self.path, error)
            self.coverage.forget(self._pages.give_up())
        try:
            self._pieces.sync()
            self._pages.sync()
            self.coverage.save()
            os.fsync(self._coverage)
        except OSError as error:
            raise not_written(self.path, error) from None
        if problem is not None:
            raise problem

    def _append(self, fd: int, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(fd, data) :]
        except OSError as error:
            raise not_written(self.path, error) from None

    # ---- reading -------------------------------------------------------------------------------------------

    def page(self, pfn: int) -> bytes | None:
        """A page as it was read from the target, or inferred; None where it is neither."""
        state = self.coverage.state_of(pfn)
        if state is not PageState.READ and not state.inferred:
            return None
        try:
            return self._pages.page(pfn)
        except OSError as error:
            raise self._unreadable_file(error) from None

    def read_run(self, run: PageRun) -> bytes:
        """Consecutive pages of which the caller knows that they are held."""
        try:
            return self._pages.run(run)
        except OSError as error:
            raise self._unreadable_file(error) from None

    def _unreadable_file(self, error: OSError) -> SnapshotError:
        return SnapshotError(f"{self.path / MEMORY} cannot be read: {error.strerror or error}")

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
            return Stage[(self.path / REACHED).read_text("ascii").strip()]
        except (OSError, ValueError, KeyError):
            return None

    def reach(self, stage: Stage) -> None:
        """Note that everything of this stage was read or cannot be."""
        if (before := self.reached) is None or before < stage:
            try:
                write_whole(self.path / REACHED, stage.name.encode("ascii"))
            except OSError as error:
                raise not_written(self.path, error) from None

    @property
    def log_text(self) -> bytes:
        """What was asked, found and decided."""
        try:
            return (self.path / REQUESTS).read_bytes()
        except OSError:
            return b""

    @property
    def console_text(self) -> bytes:
        """What the target printed while we were there."""
        try:
            return (self.path / CONSOLE).read_bytes()
        except OSError:
            return b""

    # ---- as a Source ---------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.path)

    @property
    def physical(self) -> PageMemory | None:
        """The pages that were read; None where memory was read by virtual address alone."""
        return None if len(self._pieces) and self.coverage.empty else self._physical

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
        """What was read by virtual address; else through the page tables of the system, as far as they were read."""
        if self.physical is None:
            return self.blocks
        architecture = architecture_of(self.target.version.machine_type)
        root = self.target.directory_table_base
        if architecture is None or root is None:
            raise SnapshotError(f"{self.path} holds no directory table base: virtual addresses cannot be read")
        paged = PagedVirtualMemory(self._physical, architecture.paging, root)
        return LayeredMemory(self.blocks, paged) if len(self._pieces) else paged

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
