"""Session: taking over a target and asking it things. Every question of the protocol that we use is one method.

Attaching, reading and leaving never change the target. What does (continue, break in, reboot, crash, writes) is a
method of its own, named after it, and nothing here calls one that the caller did not ask for.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from protocol.arch import Architecture, ControlSpace
from protocol.conversation import (
    FileDeclined,
    OrphanReply,
    PromptAnswered,
    Replied,
    RequestFailed,
    StateChanged,
    Told,
)
from protocol.errors import LayoutError
from protocol.layouts.version import GetVersion64
from protocol.manipulate import ApiNumber, Manipulate, api_name
from protocol.ntstatus import DBG_CONTINUE
from protocol.state_change import ExceptionChange, LoadSymbols, StateChange
from protocol.structure import Structure

from .asking_twice import AskingTwice
from .engine import Engine
from .errors import NoContactError, TargetChangedError, TargetLostError, TargetRefusedError
from .silence import explain_silence, said
from .source import require_architecture
from .transfer import CacheType, MemoryReply, TransferSize, memory_reply

__all__ = ["LISTEN", "CacheType", "MemoryReply", "RequestLog", "Session"]

LISTEN = 1.5
"""Seconds to listen before saying anything. A target that has something to say repeats it about every second
(kd-protocol 1.13); and the RESET that follows does no harm to one that waits longer between two tries."""

_PROBE_PAUSE = 2.0
_EXPLAIN_PAUSE = 5.0
_ALIGN_TRIES = 3
_NEUTRAL_DR7 = 0x400
_KEEP_SYMBOLS = 1
_MOST_PROCESSORS = 2048


RequestLog = Callable[[Manipulate, Manipulate | None], None]
"""Is told of every request and its reply (None: it has none, or none came)."""


class Session:
    """One target, from first contact to leaving it. Made by `kdbridge.open`."""

    def __init__(
        self, engine: Engine, *, report: Callable[[str], None] | None = None, request_log: RequestLog | None = None
    ) -> None:
        self.engine = engine
        self.change: StateChange | None = None
        self.request_log = request_log
        self.twice = AskingTwice(engine, self.settle)
        self._report = report or (lambda text: None)
        self._version: GetVersion64 | None = None
        self._context_ex_refused = False
        self._size = TransferSize(lambda: engine.transfer_sizes)
        self._life: int | None = None
        self._explained, self._explained_at = "", float("-inf")

    # ---- taking over ---------------------------------------------------------------------------------------

    async def attach(
        self, *, wait: float, break_in: bool = False, pass_module_loads: bool = False, listen: float = LISTEN
    ) -> StateChange:
        """Take over the target in whatever situation it is (kd-protocol 7.3), within `wait` seconds.

        Listens first, for `listen` seconds; then asks a stopped target to repeat itself (RESET, which a running one
        does not notice); sends a break-in byte only when `break_in` says so. A module load is a stop like any other,
        unless `pass_module_loads` says to continue it. Raises NoContactError telling what was seen on the line.
        """
        self._explained_at = trio.current_time()
        with trio.move_on_after(wait):
            while True:
                change = await self._wait_for_stop(break_in=break_in, listen=listen)
                if isinstance(change.event, LoadSymbols) and pass_module_loads:
                    self._report(f"passing the load of {change.event.path or 'a module'}")
                    try:
                        await self._continue(change)
                    except TargetLostError:
                        # It restarted its side of the line meanwhile. If it still stands there, it says so again.
                        self.engine.connection.change = None
                    continue
                if await self._align():
                    return self._stopped()
        raise NoContactError(explain_silence(self.engine, wait=wait, break_in=break_in))

    async def _wait_for_stop(self, *, break_in: bool, listen: float) -> StateChange:
        connection = self.engine.connection
        probes = 0
        pause = listen
        if connection.change is not None and self.change is None:
            return connection.change
        while True:
            with trio.move_on_after(pause) as listening:
                while True:
                    event = await self.engine.next_event()
                    if isinstance(event, StateChanged):
                        connection.change = event.change
                        await self.engine.flush()
                        return event.change
                    if isinstance(event, (OrphanReply, PromptAnswered, FileDeclined)):
                        self._report(said(event))
                        if isinstance(event, OrphanReply):
                            # A former debugger's answer: it is acknowledged; now the target waits for a request.
                            connection.send_reset(trio.current_time())
            if not listening.cancelled_caught:
                continue
            if self._explain():
                pause = _PROBE_PAUSE
                continue
            # RESET first: it wakes a stopped target without a trace, and a running one throws it away.
            if break_in and probes % 2 == 1:
                self._report("no answer; sending a break-in")
                connection.send_break_in(trio.current_time())
            else:
                if not probes:
                    waited = "" if break_in else "; a running one is waited for (kdbridge break stops it)"
                    self._report(f"no state change so far: asking a stopped target to repeat it{waited}")
                connection.send_reset(trio.current_time())
            probes += 1
            pause = _PROBE_PAUSE

    def _explain(self) -> bool:
        """Whether there is nobody yet to talk to; the user is told why, again only when the reason changes."""
        text = self.engine.explain()
        now = trio.current_time()
        if text and text != self._explained and now - self._explained_at >= _EXPLAIN_PAUSE:
            self._explained, self._explained_at = text, now
            self._report(text)
        return text is not None

    async def _align(self) -> bool:
        """Make sure that both ends count alike, and that the target answers; False: it does not, begin anew."""
        connection = self.engine.connection
        for _ in range(_ALIGN_TRIES):
            if not connection.synchronized:
                connection.send_reset(trio.current_time())
                with trio.move_on_after(_PROBE_PAUSE):
                    while not isinstance(await self.engine.next_event(), StateChanged):
                        pass
                await self.engine.flush()
            outcome = await self.engine.request(Manipulate.request(ApiNumber.GET_VERSION), repeatable=True)
            if isinstance(outcome, Replied):
                self._log(outcome.request, outcome.reply)
                self._version = GetVersion64.decode(outcome.reply.union)
                return True
        return False

    def _stopped(self) -> StateChange:
        change = self.engine.connection.change
        if change is None:
            raise TargetLostError("the target answers requests but never said why it stopped; try again")
        self.change = change
        self._life = self.engine.connection.life
        return change

    # ---- asking --------------------------------------------------------------------------------------------

    @property
    def largest_transfer(self) -> int:
        """Bytes that one memory request asks for at most; set it to ask for less."""
        return self._size.now

    @largest_transfer.setter
    def largest_transfer(self, size: int) -> None:
        self._size.limit(size)

    async def ask(self, request: Manipulate, *, repeatable: bool = True) -> Manipulate:
        """Send a request that has a reply. Raises TargetLostError when none comes; refusals are returned."""

        return await self.twice.ask(request, repeatable=repeatable)

    def settle(self, outcome: Replied | Told | RequestFailed) -> Manipulate:
        """The reply of an outcome, or a TargetLostError that says what became of the request."""
        if isinstance(outcome, Replied):
            self._log(outcome.request, outcome.reply)
            self._check_still_here()
            self._size.came(len(outcome.reply.data))
            return outcome.reply
        self._log(outcome.request, None)
        self._check_same_life()
        name = api_name(outcome.request.api)
        if isinstance(outcome, Told):
            raise TargetLostError(f"{name} has no reply")
        if loss := self.engine.loss():
            raise TargetLostError(f"the target no longer answers: {name} was sent, but {outcome.reason.value}. {loss}")
        raise TargetLostError(
            f"the target no longer answers: {name} was sent, but {outcome.reason.value}. "
            "It may have been restarted, continued by another debugger, or the line is cut."
        )

    async def version(self) -> GetVersion64:
        """The version packet; asked once."""
        if self._version is None:
            reply = await self.ask(Manipulate.request(ApiNumber.GET_VERSION))
            self._version = GetVersion64.decode(reply.union)
        return self._version

    async def architecture(self) -> Architecture:
        """The target's architecture. TargetRefusedError where this program cannot talk to such a target."""
        return require_architecture((await self.version()).machine_type, live=True)

    async def read_some(
        self, api: ApiNumber, address: int, size: int, cache: CacheType = CacheType.DEFAULT
    ) -> MemoryReply:
        """One memory request (virtual, physical or control space): as many bytes as one packet brings."""
        return self.memory_reply(await self.ask(self.memory_request(api, address, size, cache)), size)

    def memory_request(
        self, api: ApiNumber, address: int, size: int, cache: CacheType = CacheType.DEFAULT
    ) -> Manipulate:
        """The request for at most `largest_transfer` bytes. For physical memory ActualBytes carries the cache type."""
        count = min(size, self.largest_transfer)
        return Manipulate.request(api, address=address, transfer_count=count, actual_bytes=int(cache))

    def memory_reply(self, reply: Manipulate, size: int) -> MemoryReply:
        """What a memory reply brought; a target that sends less than it was asked for is not asked for more again."""
        brought = memory_reply(reply, size)
        count = len(brought.data)
        if count < size and brought.complete and count < self.largest_transfer:
            self._size.came_short(count)
        return brought

    async def context(self, processor: int) -> Structure:
        """A processor's CONTEXT. TargetRefusedError when the target has none to give."""
        layout = (await self.architecture()).context
        if not self._context_ex_refused:
            data = bytearray()
            while len(data) < layout.size:
                wanted = min(layout.size - len(data), self._size.most)
                request = Manipulate.request(
                    ApiNumber.GET_CONTEXT_EX, processor=processor, offset=len(data), byte_count=wanted
                )
                reply = await self.ask(request)
                if reply.status & 0x8000_0000 or not reply.data:
                    break
                data += reply.data[:wanted]
            if len(data) >= layout.size:
                return layout.decode(bytes(data))
            self._context_ex_refused = True
        reply = await self.ask(Manipulate.request(ApiNumber.GET_CONTEXT, processor=processor))
        if reply.status & 0x8000_0000:
            raise TargetRefusedError(
                f"the target gives no registers of processor {processor}", api="GetContext", status=reply.status
            )
        return _decoded(lambda: layout.decode(reply.data), "GetContext", reply.status)

    async def special_registers(self, processor: int) -> Structure:
        """A processor's KSPECIAL_REGISTERS, as long as its system has them (T42, T44)."""
        architecture = await self.architecture()
        layout = architecture.special_registers
        request = Manipulate.request(
            ApiNumber.READ_CONTROL_SPACE,
            processor=processor,
            address=ControlSpace.SPECIAL_REGISTERS,
            transfer_count=layout.size,
        )
        reply = await self.ask(request)
        if reply.status & 0x8000_0000:
            raise TargetRefusedError(
                f"the target gives no special registers of processor {processor}",
                api="ReadControlSpace",
                status=reply.status,
            )
        least = architecture.special_registers_least
        return _decoded(lambda: layout.decode(reply.data, least=least), "ReadControlSpace", reply.status)

    # ---- what changes the target: each only when its name was said -----------------------------------------

    async def resume(self) -> bool:
        """Continue the target. Steps over a hard-coded int3 first, or it would stop there again (T24).

        Returns whether it was seen to stop again at once (the last break of a bug check does that for ever, T60).
        """
        change = self._stopped()
        await self._continue(change)
        with trio.move_on_after(1.0):
            while True:
                event = await self.engine.next_event()
                if isinstance(event, StateChanged):
                    self.engine.connection.change = self.change = event.change
                    await self.engine.flush()
                    return True
        return False

    async def _continue(self, change: StateChange) -> None:
        architecture = await self.architecture()
        if isinstance(change.event, ExceptionChange):
            code = await self.read_some(
                ApiNumber.READ_VIRTUAL_MEMORY, change.program_counter, len(architecture.break_instruction)
            )
            if code.data == architecture.break_instruction:
                processor, context = await self._stopped_context(change)
                moved = {architecture.program_counter: change.program_counter + len(code.data)}
                data = architecture.context.encode(moved, context.raw)
                request = Manipulate.request(ApiNumber.SET_CONTEXT, processor=processor, data=data)
                reply = await self.ask(request, repeatable=False)
                if reply.status & 0x8000_0000:
                    raise TargetRefusedError(
                        "the target stands on a break instruction and refuses to be moved past it",
                        api="SetContext",
                        status=reply.status,
                    )
        dr7 = _NEUTRAL_DR7
        if (at := architecture.control_report_dr7) is not None:
            dr7 = int.from_bytes(change.control_report[at : at + architecture.pointer_size], "little") or dr7
        request = Manipulate.request(
            ApiNumber.CONTINUE2,
            continue_status=DBG_CONTINUE,
            trace_flag=0,
            dr7=dr7,
            current_symbol_start=_KEEP_SYMBOLS,
        )
        await self._tell(request)
        self.engine.connection.change = None

    async def _stopped_context(self, change: StateChange) -> tuple[int, Structure]:
        """The processor that stands where the state change says, and its CONTEXT: found by its program counter.

        The state change's processor number may be garbage, and another processor, moved there, would crash.
        """
        architecture = await self.architecture()
        count = min(max(change.number_processors, 1), _MOST_PROCESSORS)
        numbers = [change.processor] if change.processor < count else []
        for number in dict.fromkeys([*numbers, *range(count)]):
            reply = await self.ask(Manipulate.request(ApiNumber.GET_CONTEXT, processor=number))
            if reply.status & 0x8000_0000 or len(reply.data) < architecture.context.size:
                continue
            context = architecture.context.decode(reply.data)
            if context[architecture.program_counter] == change.program_counter:
                return number, context
        raise TargetRefusedError(
            f"the target stands on a break instruction at {change.program_counter:#x}, and none of its {count} "
            "processors says that it stands there: none can be moved past it", api="GetContext", status=0,
        )  # fmt: skip

    async def reboot(self) -> bool:
        """Restart the machine through its firmware. False: it did not acknowledge, and may yet have restarted."""
        return await self._tell(Manipulate.request(ApiNumber.REBOOT), must_acknowledge=False)

    async def crash(self) -> bool:
        """Make it bug check with E2, MANUALLY_INITIATED_CRASH. It writes its own dump and says nothing meanwhile."""
        return await self._tell(Manipulate.request(ApiNumber.CAUSE_BUG_CHECK), must_acknowledge=False)

    async def _tell(self, request: Manipulate, *, must_acknowledge: bool = True) -> bool:
        outcome = await self.engine.request(request, repeatable=False)
        self._log(request, None)
        if isinstance(outcome, RequestFailed):
            if must_acknowledge:
                raise TargetLostError(f"{api_name(request.api)} was sent, but {outcome.reason.value}")
            return False
        self.change = None
        return True

    # ---- inside --------------------------------------------------------------------------------------------

    def _log(self, request: Manipulate, reply: Manipulate | None) -> None:
        if self.request_log is not None:
            self.request_log(request, reply)

    def _check_same_life(self) -> None:
        if self._life is not None and self._life != self.engine.connection.life:
            raise TargetChangedError(
                "the target restarted, and what it held in memory is gone: what was read up to here belongs to its "
                "former life and is kept; nothing of the new one was mixed in."
            )

    def _check_still_here(self) -> None:
        self._check_same_life()
        now = self.engine.connection.change
        if self.change is None or now is None or now is self.change or now == self.change:
            return
        if isinstance(now.event, LoadSymbols) and now.event.target_is_leaving:
            raise TargetChangedError("the target announced that it restarts; what was read up to here is kept")
        if now.program_counter != self.change.program_counter or type(now.event) is not type(self.change.event):
            raise TargetChangedError(
                "the target stopped anew at another place: somebody continued it. What was read up to here belongs "
                "to the former stop and is kept; nothing of the new one was mixed in."
            )


def _decoded(decode: Callable[[], Structure], api: str, status: int) -> Structure:
    try:
        return decode()
    except LayoutError as error:
        raise TargetRefusedError(
            f"the target's answer to {api} is too short: {error}", api=api, status=status
        ) from None
