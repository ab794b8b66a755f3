"""LiveTarget: a stopped machine at the end of a line, as a Source. Reading it never changes it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PhysicalAddress, VirtualAddress
from protocol.layouts.version import GetVersion64
from protocol.manipulate import ApiNumber, Manipulate
from protocol.state_change import ExceptionChange
from protocol.structure import Structure

from .errors import MemoryFault, TargetRefusedError
from .session import CacheType, MemoryReply, Session
from .source import PageRead, StopEvent

__all__ = ["LivePhysicalMemory", "LiveTarget", "LiveVirtualMemory"]


class LiveVirtualMemory:
    """Virtual memory as the stopped processor sees it: translated by the target itself (T39)."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    async def read(self, address: VirtualAddress, size: int) -> bytes:
        """Exactly `size` bytes. MemoryFault names the first byte that cannot be had."""
        return await _read_exactly(self._session, ApiNumber.READ_VIRTUAL_MEMORY, address, size, virtual=True)


class LivePhysicalMemory:
    """Physical memory, read by the target for us."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    async def read(self, address: PhysicalAddress, size: int) -> bytes:
        """Exactly `size` bytes. MemoryFault names the first byte that cannot be had."""
        return await _read_exactly(self._session, ApiNumber.READ_PHYSICAL_MEMORY, address, size, virtual=False)

    async def read_pages(self, runs: Iterable[PageRun]) -> AsyncIterator[PageRead]:
        """Every page of the runs, in their order. The next request is on its way before a page is handed out.

        A page that fails in the middle of a long read is asked for again by itself, then once more uncached:
        what still fails is told as unreadable, never raised.
        """
        stream = _Stream(self._session, runs)
        try:
            async with aclosing(stream.pages()) as pages:
                async for page in pages:
                    yield page
        finally:
            stream.stop()


@dataclass(slots=True)
class _Question:
    request: Manipulate
    address: int
    size: int
    retry: int
    """0: as part of the stream; 1: this page alone; 2: this page alone, uncached."""


class _Stream:
    """Runs of pages, read with one request always under way, also from the end of one run to the next."""

    __slots__ = ("_at", "_buffer", "_current", "_later", "_open", "_prepared", "_session", "_start")

    def __init__(self, session: Session, runs: Iterable[PageRun]) -> None:
        self._session = session
        self._later = deque(run for run in runs if run.page_count)
        self._current = self._later.popleft() if self._later else PageRun(0, 0)
        self._start = self._at = self._current.base_page << PAGE_SHIFT
        self._buffer = bytearray()
        self._open: _Question | None = None
        self._prepared: _Question | None = None

    def stop(self) -> None:
        """Nobody wants the rest."""
        if self._open is not None:
            self._session.engine.connection.abandon()
            self._open = None

    async def pages(self) -> AsyncGenerator[PageRead, None]:
        """The pages, ascending. `_start` is the first byte that was not handed out, `_at` the next to ask for."""
        engine = self._session.engine
        self._ask(0)
        while (question := self._open) is not None:
            outcome = await engine.answer()
            self._open = None
            reply = self._session.memory_reply(self._session.settle(outcome), question.size)
            failed = self._take(question, reply)
            await engine.flush()
            self._prepare()
            if failed is not None:
                yield failed
            # The pages below were complete before the request that is now under way was sent.
            at = 0
            while len(self._buffer) - at >= PAGE_SIZE:
                page = bytes(self._buffer[at : at + PAGE_SIZE])
                yield PageRead(self._start + at >> PAGE_SHIFT, page)
                at += PAGE_SIZE
            if at:
                del self._buffer[:at]
                self._start += at

    def _take(self, question: _Question, reply: MemoryReply) -> PageRead | None:
        """Keep what came and ask for what is next; a page that failed for good is returned."""
        if not self._buffer:
            self._start = question.address
        if question.retry != 1 or reply.complete:
            self._buffer += reply.data
            self._at = question.address + len(reply.data)
        if reply.complete and reply.data:
            # Stay with one page until it is whole; then go on with the stream.
            self._ask(question.retry if question.retry and self._at % PAGE_SIZE else 0)
            return None
        page = self._at & ~(PAGE_SIZE - 1)
        whole = page - self._start
        del self._buffer[max(whole, 0) :]
        self._at = page
        if question.retry < 2:
            self._ask(question.retry + 1)
            return None
        self._at = page + PAGE_SIZE
        self._ask(0)
        return PageRead(page >> PAGE_SHIFT, None, f"the target refused it ({reply.status:#010x})")

    def _ask(self, retry: int) -> None:
        if self._at >= self._current.end_page << PAGE_SHIFT and self._later:
            self._current = self._later.popleft()
            self._at = self._current.base_page << PAGE_SHIFT
        prepared, self._prepared = self._prepared, None
        size = self._session.engine.read_size.ceiling
        if prepared is None or retry or prepared.address != self._at or prepared.size > size:
            prepared = self._question(self._at, self._current, retry)
        if prepared is not None:
            self._session.engine.ask(prepared.request, repeatable=True)
            self._open = prepared

    def _prepare(self) -> None:
        """While the target works on one request, make the one that will follow it if all goes well."""
        question = self._open
        if question is None or question.retry:
            return
        at, run = question.address + question.size, self._current
        if at >= run.end_page << PAGE_SHIFT and self._later:
            run = self._later[0]
            at = run.base_page << PAGE_SHIFT
        self._prepared = self._question(at, run, 0)

    def _question(self, at: int, run: PageRun, retry: int) -> _Question | None:
        end = run.end_page << PAGE_SHIFT
        if at >= end:
            return None
        if retry:
            end = min(end, (at & ~(PAGE_SIZE - 1)) + PAGE_SIZE)
        size = min(end - at, self._session.largest_transfer)
        cache = CacheType.UNCACHED if retry == 2 else CacheType.DEFAULT
        request = self._session.memory_request(ApiNumber.READ_PHYSICAL_MEMORY, at, size, cache)
        return _Question(request, at, size, retry)


async def _read_exactly(session: Session, api: ApiNumber, address: int, size: int, *, virtual: bool) -> bytes:
    parts: list[bytes] = []
    done = 0
    while done < size:
        reply = await session.read_some(api, address + done, size - done)
        parts.append(reply.data)
        done += len(reply.data)
        if not reply.complete and done < size:
            raise MemoryFault(
                f"the target cannot read {'virtual' if virtual else 'physical'} address {address + done:#x} "
                f"({reply.status:#010x}); {done:#x} of {size:#x} bytes came",
                address=address + done,
                size=size,
                done=done,
                virtual=virtual,
            )
    return b"".join(parts)


class LiveTarget:
    """A Source over a Session. Made by `kdbridge.open`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._virtual = LiveVirtualMemory(session)
        self._physical: LivePhysicalMemory | None = LivePhysicalMemory(session)

    async def probe_physical(self) -> bool:
        """Whether physical memory can be read at all: tried once, on the page that holds the top page table."""
        architecture = await self.session.architecture()
        if architecture.directory_table_base is None:
            return True
        try:
            registers = await self.special_registers(0)
        except TargetRefusedError:
            return True
        root = registers[architecture.directory_table_base] & architecture.paging.root_mask
        reply = await self.session.read_some(ApiNumber.READ_PHYSICAL_MEMORY, root, 8)
        if not reply.complete:
            self._physical = None
        return self._physical is not None

    @property
    def name(self) -> str:
        """The target's URL."""
        return self.session.engine.transport.url

    @property
    def physical(self) -> LivePhysicalMemory | None:
        """None once `probe_physical` has found that the target refuses."""
        return self._physical

    @property
    def virtual(self) -> LiveVirtualMemory:
        """Memory as the stopped processor sees it."""
        return self._virtual

    @property
    def stop(self) -> StopEvent | None:
        """Why it stands still. The exception code is 0 when it stopped to tell of a module; None before contact."""
        change = self.session.change
        if change is None:
            return None
        event = change.event
        return StopEvent(
            processor=change.processor,
            exception_code=event.code if isinstance(event, ExceptionChange) else 0,
            program_counter=change.program_counter,
            thread=change.thread,
            first_chance=isinstance(event, ExceptionChange) and event.first_chance,
            number_processors=change.number_processors,
        )

    async def version(self) -> GetVersion64:
        """The version packet."""
        return await self.session.version()

    async def context(self, processor: int) -> Structure:
        """The processor's true CONTEXT, from the target's debugger, not from its memory."""
        return await self.session.context(processor)

    async def special_registers(self, processor: int) -> Structure:
        """The processor's KSPECIAL_REGISTERS."""
        return await self.session.special_registers(processor)
