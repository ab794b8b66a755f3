"""Opening a target: from its address to a machine that was taken over, and back without a trace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from protocol.arch import Architecture
from protocol.connection import KdConnection
from protocol.conversation import KdEvent, Printed
from protocol.kdcom import KdcomLink
from protocol.layouts.version import GetVersion64
from protocol.link import Role
from protocol.manipulate import Manipulate, api_name
from protocol.structure import Structure

from .acquire import Acquired, Inference, acquire
from .budget import Budget
from .capture.record import Recorder
from .discovery import discover
from .double_reading import DoubleReading, ReadTwice
from .engine import Engine
from .errors import MemoryFault, TargetRefusedError
from .live import LiveTarget
from .memory.mapped import MappedPhysicalMemory
from .plan import Plan, small_plan
from .progress import ProgressSink
from .rereading import PatientMemory
from .session import LISTEN, Session
from .silent_errors import LineRecord
from .snapshot import Snapshot
from .source import PhysicalMemory, StopEvent, VirtualMemory
from .target import Finding, Target
from .transports import DatagramTransport, RecordedTransport, Transport, open_transport
from .transports.tap import tapped

__all__ = ["OpenTarget", "open_target"]


@dataclass(slots=True)
class OpenTarget:
    """A machine that was taken over: a Source, and what a user does with it. Made by `open_target`."""

    session: Session
    live: LiveTarget
    console: bytearray = field(default_factory=bytearray)
    """What it printed since we came, the last MiB of it."""
    _target: Target | None = None
    _mapped: MappedPhysicalMemory | None = None
    _snapshot: Snapshot | None = None

    # ---- as a Source ---------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its URL."""
        return self.live.name

    @property
    def physical(self) -> PhysicalMemory | None:
        """Physical memory, by whatever way there is; None where there is none (or none was found yet)."""
        return self.live.physical or self._mapped

    @property
    def virtual(self) -> VirtualMemory:
        """Memory as the stopped processor sees it."""
        return self.live.virtual

    @property
    def stop(self) -> StopEvent | None:
        """Why it stopped."""
        return self.live.stop

    async def version(self) -> GetVersion64:
        """The version packet."""
        return await self.live.version()

    async def context(self, processor: int) -> Structure:
        """A processor's CONTEXT."""
        return await self.live.context(processor)

    async def special_registers(self, processor: int) -> Structure:
        """A processor's KSPECIAL_REGISTERS."""
        return await self.live.special_registers(processor)

    # ---- what a user does ----------------------------------------------------------------------------------

    async def architecture(self) -> Architecture:
        """Its architecture. TargetRefusedError where this program does not know it."""
        return await self.session.architecture()

    async def discover(self, report: Callable[[Finding], None] | None = None) -> Target:
        """All that is to be found out, found out once. Changes nothing on the target."""
        if self._target is None:
            await self.live.probe_physical()
            self._target = await discover(self.live, report)
        return self._target

    async def adopt(self, target: Target) -> None:
        """Take what was found out about this machine in this stop before: it is not looked for again."""
        await self.live.probe_physical()
        self._target = target

    def forget(self) -> None:
        """What was found out does not hold any more."""
        self._target = None

    async def snapshot(self, path: Path, plan: Plan, progress: ProgressSink | None = None) -> Snapshot:
        """Bring home what the plan says, into a new Snapshot at `path`, which the caller closes.

        Cancelled or failed, the Snapshot keeps all that came. Raises SnapshotError, TargetLostError,
        TargetRefusedError when the plan is impossible with this target.
        """
        target = await self.discover()
        snapshot = Snapshot.create(path, target)
        try:
            await self.fill(snapshot, plan, progress)
        except BaseException:
            snapshot.close()
            raise
        return snapshot

    async def fill(
        self,
        snapshot: Snapshot,
        plan: Plan,
        progress: ProgressSink | None = None,
        *,
        twice: ReadTwice | None = None,
        report: Callable[[str], None] | None = None,
        budget: Budget | None = None,
        inference: Inference | None = None,
    ) -> Acquired:
        """Bring home what the plan says and this Snapshot lacks, as far as the budget goes.

        `twice`: how much is read twice and compared; unless it says otherwise, all of it once the line is so bad that
        KD's checksum may let an error through. `report` is told when that begins, and what it finds.
        """
        target = await self.discover()
        # The pieces of a small dump can be read by their addresses: no need to find out which frame lies where.
        by_address = plan is small_plan and self.physical is None
        if self.physical is None and not by_address:
            self._mapped = await self._map(target)
        physical = self.physical
        if physical is None and not by_address:
            raise TargetRefusedError(
                "the target refuses physical reads, and its page tables do not map themselves where they should; "
                "--kind small needs neither",
                api="ReadPhysicalMemory",
                status=0,
            )
        snapshot.console(bytes(self.console))
        self._snapshot = snapshot
        self.session.request_log = _Log(snapshot)
        try:
            if physical is None:
                return await acquire(self, None, snapshot, plan, progress, budget, inference)
            memory = PatientMemory(physical, self.session)
            sure = DoubleReading(memory, twice or ReadTwice(), self._line_record(), report, once=snapshot.read_once)
            try:
                acquired = await acquire(self, sure, snapshot, plan, progress, budget, inference)
            finally:
                snapshot.read_once = sure.once
            return replace(acquired, compared=_compared(sure))
        finally:
            self._snapshot = None
            self.session.request_log = None

    def _line_record(self) -> Callable[[], LineRecord]:
        engine = self.session.engine
        received, damaged = engine.bytes_received, engine.damaged
        return lambda: LineRecord(
            engine.bytes_received - received, engine.damaged - damaged, self.session.largest_transfer
        )

    async def _map(self, target: Target) -> MappedPhysicalMemory | None:
        architecture = await self.architecture()
        base = target.kdbg.block["pte_base"] if target.kdbg is not None else 0
        # Virtual addresses are read through the tables of the processor that stopped, so those are walked.
        register = architecture.directory_table_base
        roots = [p.special_registers[register] for p in target.processors if p.special_registers and register]
        for root in dict.fromkeys([*roots, target.directory_table_base or 0]):
            with suppress(MemoryFault):
                return await MappedPhysicalMemory.build(
                    self.live.virtual, architecture.paging, root, base or architecture.fixed_pte_base, target.runs
                )
        return None

    def printed(self, text: bytes) -> None:
        """Keep what the target printed."""
        self.console += text
        if len(self.console) > 1 << 20:
            del self.console[: 1 << 19]
        if self._snapshot is not None:
            self._snapshot.console(text)


def _compared(sure: DoubleReading) -> tuple[str, ...]:
    """What reading twice came to."""
    lines: list[str] = []
    if sure.verified:
        differed = len(sure.differed) - len(sure.unsettled)
        lines.append(
            f"{sure.verified} pages were read twice and compared"
            + (
                f": {differed} came wrong at first, and were read until two readings agreed"
                if differed
                else ": all alike"
            )
        )
    if sure.unsettled:
        shown = ", ".join(f"{pfn:#x}" for pfn in sure.unsettled[:8])
        lines.append(f"{len(sure.unsettled)} pages change while they are read: frames {shown}")
    return tuple(lines)


class _Log:
    """Counts requests into the Snapshot's log: a line for each kind and status, not one for each of a million."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._seen: dict[tuple[int, int | None], int] = {}

    def __call__(self, request: Manipulate, reply: Manipulate | None) -> None:
        """One request was answered, or not."""
        key = (request.api, None if reply is None else reply.status)
        count = self._seen.get(key, 0) + 1
        self._seen[key] = count
        if count & count - 1 == 0:
            status = "no reply" if key[1] is None else f"status {key[1]:#010x}"
            self._snapshot.log(f"request: {api_name(request.api)}, {status}, {count} so far")


@asynccontextmanager
async def open_target(
    address: str,
    *,
    wait: float = 30.0,
    break_in: bool = False,
    pass_module_loads: bool = False,
    listen: float = LISTEN,
    report: Callable[[str], None] | None = None,
    on_event: Callable[[KdEvent], None] | None = None,
    transport: Transport | None = None,
    record: Path | str | None = None,
) -> AsyncIterator[OpenTarget]:
    """Take over the target at `address`, in whatever state it is, and leave it as it was.

    Nothing is written to it, it is not continued and, unless `break_in` says so, not stopped. `wait` is in seconds,
    and so is `listen`: after it a silent target is asked to repeat why it stopped, which a running one does not notice.
    `report` is told in words what happens, `on_event` gets every event of the conversation. What goes over the line
    is recorded into the new file `record` (pcapng); it never holds a key.
    Raises UsageError, TransportOpenError, NoContactError, TransportLostError, TargetLostError.
    """
    way = await open_transport(address) if transport is None else transport
    recorder: Recorder | None = None
    opened: list[OpenTarget] = []

    def sink(event: KdEvent) -> None:
        if isinstance(event, Printed) and opened:
            opened[0].printed(event.text)
        if on_event is not None:
            on_event(event)

    try:
        if record is not None:
            recorder = Recorder(Path(record), name=way.url, tell=report)
            way = tapped(way, recorder.tap)
        if report is not None:
            for note in way.notes:
                report(note)
        engine = Engine(way, _conversation(way, report), sink)
        session = Session(engine, report=report)
        target = OpenTarget(session, LiveTarget(session))
        opened.append(target)
        await session.attach(wait=wait, break_in=break_in, pass_module_loads=pass_module_loads, listen=listen)
        yield target
        # The last acknowledge may still wait to be written: without it the target would repeat its last answer.
        with trio.move_on_after(1.0):
            await engine.flush()
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(2.0):
            await way.aclose()
        if recorder is not None:
            recorder.close()


def _conversation(way: Transport, report: Callable[[str], None] | None) -> KdConnection:
    """A datagram transport brings its own link, on which a restart is a new life of the machine."""
    if report is not None and isinstance(way, (DatagramTransport, RecordedTransport)):
        way.tell = report
    if not isinstance(way, DatagramTransport):
        return KdConnection(KdcomLink(Role.HOST))
    return KdConnection(way.link, restart_is_new_life=True)
