"""KdTarget: the kernel's debugger stub, from power-on to reboot, without I/O (kd-protocol 1.10, 7.1 to 7.3).

It owns one end of a link and a machine, and follows the command loop of a real target: report the event, answer
requests until told to go on, poll for a break-in byte while running, print, ask, load modules, restart.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from protocol.arch import AMD64
from protocol.debug_io import GetString, GetStringReply, PrintString
from protocol.errors import RemoteProtocolError
from protocol.file_io import FileIo
from protocol.link import (
    BreakInSeen,
    LinkEvent,
    PacketAcknowledged,
    PacketFailed,
    PacketReceived,
    ResendAsked,
    TargetLink,
)
from protocol.manipulate import HEADER_SIZE, Manipulate
from protocol.ntstatus import STATUS_BREAKPOINT, STATUS_WAKE_SYSTEM_DEBUGGER
from protocol.packet import PacketType
from protocol.state_change import (
    Amd64ControlReport,
    ExceptionChange,
    LoadSymbols,
    StateChange,
    StateChangeEvent,
)

from .behaviour import Effect
from .events import Ask, Event, Load, OpenFile, Print, Quiet, Stop
from .machine import Machine

__all__ = ["CLOCK_TICK", "Activity", "Ask", "Event", "KdTarget", "Load", "OpenFile", "Print", "Quiet", "Stop"]

CLOCK_TICK = 1 / 64
"""Seconds between two looks at the line while running: one byte each (T3)."""

_CRASH_SECONDS = 20.0
"""How long the dump of a crash that was asked for takes."""


class Activity(enum.Enum):
    """What the target does at the moment."""

    RUNNING = "running"
    REPORTING = "sending a state change"
    WAITING = "stopped, waiting for a request"
    REPLYING = "sending a reply"
    SAYING = "sending a print, a prompt or a file request"
    ASKING = "waiting for an answer to a prompt or file request"
    QUIET = "deaf and dumb"


@dataclass(slots=True)
class KdTarget:
    """A target on one end of a link.

    `script` is what happens by itself, in order; when it is empty the machine runs. `break_in` sets the registers
    for the stop of a break-in, `crash` for the last break of bug check E2; `step` lets the machine run one slice and
    says where it stopped; `restart` makes a new life.
    """

    machine: Machine
    link: TargetLink
    script: deque[Event] = field(default_factory=deque)
    break_in: Callable[[Machine], None] | None = None
    crash: Callable[[Machine], None] | None = None
    step: Callable[[Machine], Stop | None] | None = None
    restart: Callable[[], tuple[Machine, deque[Event]]] | None = None
    activity: Activity = Activity.RUNNING
    lives: int = 1
    _event: Event | None = None
    _change: StateChange | None = None
    _break_pending: bool = False
    _first_stopped: int | None = None
    _continue_after_reply: bool = False
    _due: float | None = None
    _started: bool = False
    _kick: bool = False
    _noise: list[bytes] = field(default_factory=list)

    # ---- the contract of every state machine here ----------------------------------------------------------

    def receive_data(self, chunk: bytes, now: float) -> None:
        """Bytes from the debugger. A deaf machine's UART keeps them (T69)."""
        self.link.receive_data(chunk, now)
        self._drain(now)
        if self.activity is Activity.RUNNING and self._due is None:
            self._due = now + CLOCK_TICK

    def data_to_send(self) -> list[bytes]:
        """What is to be written now."""
        noise, self._noise = self._noise, []
        return self.link.data_to_send() + noise

    def next_timeout(self) -> float | None:
        """When handle_timeout wants to be called."""
        if not self._started:
            return 0.0
        due = self.link.next_timeout()
        if self._due is None:
            return due
        return self._due if due is None else min(due, self._due)

    def handle_timeout(self, now: float) -> None:
        """Time has passed: retransmit, look at the line, let the machine run."""
        if not self._started:
            self._started = True
            if not self._kick:
                self._go_on(now)
        self.link.handle_timeout(now)
        self._drain(now)
        if self._due is None or now < self._due:
            return
        self._due = None
        if self.activity is Activity.QUIET:
            self._go_on(now)
            self._drain(now)
        elif self.activity is Activity.RUNNING:
            self._tick(now)

    def begin(self, activity: Activity, change: StateChange | None, now: float) -> None:
        """Start in the middle: as if a former debugger had brought the target here."""
        self._kick = self._started = True
        self.activity = activity
        self._change = change
        if activity is Activity.WAITING:
            self._wait(now)

    def reset(self, now: float) -> None:
        """Somebody presses the reset button: a new life, like that after a reboot request."""
        self._kick = self._started = True
        self._reboot(now)

    def send_reply(self, reply: Manipulate, now: float) -> None:
        """Start with a reply that nobody acknowledged: its debugger went away (7.3 F)."""
        self.activity = Activity.REPLYING
        self.link.send_packet(PacketType.STATE_MANIPULATE, reply.encode(), now, tries=0)

    # ---- events --------------------------------------------------------------------------------------------

    def make_change(self, event: StateChangeEvent) -> StateChange:
        """A state change for what the machine is now."""
        machine = self.machine
        code = machine.prepare_report()
        processor = machine.stopped_processor
        context = AMD64.context.decode(processor.context)
        report = Amd64ControlReport(
            *processor.debug_registers,
            context["e_flags"],
            len(code),
            3,
            code.ljust(16, b"\0"),
            context["seg_cs"],
            context["seg_ds"],
            context["seg_es"],
            context["seg_fs"],
        )
        garbage = machine.behaviour.garbage_processor
        return StateChange(
            1284 if garbage else processor.level,
            257 if garbage else processor.number,
            len(machine.processors),
            processor.thread,
            context["rip"],
            event,
            report.encode(),
        )

    def _go_on(self, now: float) -> None:
        """The next thing of the script, or a break-in that was asked for, or the machine runs."""
        self.link.want(PacketType.STATE_MANIPULATE)
        polls_now = bool(self.script) or isinstance(self._event, (Print, Ask))
        self._event = None
        if self._break_pending and polls_now:
            self._break(now)
        elif self.script:
            self._happen(self.script.popleft(), now)
        else:
            self.activity = Activity.RUNNING
            self.link.set_polling(True, now)
            self._due = now + CLOCK_TICK

    def _happen(self, event: Event, now: float) -> None:
        self._event = event
        if isinstance(event, Stop):
            self._stop(event, now)
        elif isinstance(event, Load):
            self._report(self.make_change(event.image), now)
        elif isinstance(event, Print):
            self._say(PacketType.DEBUG_IO, PrintString(6, self.machine.current, event.text).encode(), now, None)
        elif isinstance(event, Ask):
            prompt = GetString(6, self.machine.current, event.prompt, event.longest_answer)
            self._say(PacketType.DEBUG_IO, prompt.encode(), now, 0)
        elif isinstance(event, OpenFile):
            self._say(PacketType.FILE_IO, FileIo.create(event.path).encode(), now, None)
        else:
            self.activity = Activity.QUIET
            self.link.set_polling(True, now)
            if event.noise:
                self._noise.append(event.noise)
            self._due = now + event.seconds

    def _stop(self, stop: Stop, now: float) -> None:
        self._event = stop
        if stop.apply is not None:
            stop.apply(self.machine)
        self._first_stopped = self.machine.current
        context_pc = self.machine.stopped_processor.program_counter
        change = ExceptionChange(stop.code, 0, 0, context_pc, (0,), stop.first_chance)
        self._report(self.make_change(change), now)

    def _break(self, now: float) -> None:
        self._break_pending = False
        self._stop(Stop(apply=self.break_in), now)

    def _report(self, change: StateChange, now: float) -> None:
        self._change = change
        self.activity = Activity.REPORTING
        tries = None if isinstance(change.event, LoadSymbols) else 0
        self._send(PacketType.STATE_CHANGE64, change.encode(), now, tries)

    def _say(self, packet_type: PacketType, payload: bytes, now: float, tries: int | None) -> None:
        self.activity = Activity.SAYING
        if not isinstance(self._event, Print):
            # The answer may come right behind the acknowledge.
            self.link.want(packet_type)
        self._send(packet_type, payload, now, tries)

    def _send(self, packet_type: PacketType, payload: bytes, now: float, tries: int | None) -> None:
        # In this order: what the UART kept while nobody looked is read while the acknowledge is waited for.
        self.link.send_packet(packet_type, payload, now, tries=tries)
        self.link.set_polling(False, now)

    def _wait(self, now: float) -> None:
        self.activity = Activity.WAITING
        self.link.want(PacketType.STATE_MANIPULATE)
        self.link.set_polling(False, now)

    def _tick(self, now: float) -> None:
        if self._break_pending or self.link.poll():
            self._break(now)
            return
        if self.step is not None:
            stop = self.step(self.machine)
            if stop is not None:
                self._stop(stop, now)
                return
        if self.link.polled or self.step is not None:
            self._due = now + CLOCK_TICK

    # ---- what the link says --------------------------------------------------------------------------------

    def _drain(self, now: float) -> None:
        while (event := self.link.next_event()) is not None:
            self._handle(event, now)

    def _handle(self, event: LinkEvent, now: float) -> None:
        if isinstance(event, BreakInSeen):
            self._break_pending = True
            if self.activity is Activity.RUNNING:
                self._due = now
        elif isinstance(event, ResendAsked):
            self._repeat(now)
        elif isinstance(event, PacketAcknowledged):
            self._delivered(now)
        elif isinstance(event, PacketFailed):
            # Nobody is there: a notification is forgotten, and the machine goes on (1.8).
            self._go_on(now)
        elif isinstance(event, PacketReceived):
            if self.activity is Activity.WAITING and event.packet_type == PacketType.STATE_MANIPULATE:
                self._request(event.payload, now)
            elif self.activity is Activity.ASKING:
                self._answered(event, now)

    def _delivered(self, now: float) -> None:
        if self.activity in (Activity.REPORTING, Activity.REPLYING):
            self._wait(now)
            if self._continue_after_reply:
                self._continue_after_reply = False
                self._continue(now)
        elif self.activity is Activity.SAYING:
            if isinstance(self._event, Print):
                # After each print a target looks for one break-in byte.
                self._go_on(now)
            else:
                self.activity = Activity.ASKING

    def _repeat(self, now: float) -> None:
        if self.activity is Activity.WAITING and self._change is not None:
            self._report(self._change, now)
        elif self.activity is Activity.ASKING and isinstance(self._event, (Ask, OpenFile)):
            self._happen(self._event, now)

    def _answered(self, event: PacketReceived, now: float) -> None:
        try:
            if isinstance(self._event, Ask):
                answer = GetStringReply.decode(event.payload).text
                if answer[:1] in (b"b", b"B"):
                    self._break_pending = True
            else:
                FileIo.decode(event.payload)
        except RemoteProtocolError:
            return
        self._go_on(now)

    def _request(self, payload: bytes, now: float) -> None:
        if len(payload) < HEADER_SIZE:
            return
        answer = self.machine.answer(Manipulate.decode(payload))
        for reply in answer.unacknowledged:
            self.link.send_packet(PacketType.STATE_MANIPULATE, reply.encode(), now, tries=0)
            self.link.imply_acknowledge()
        if answer.reply is not None:
            self.activity = Activity.REPLYING
            self._continue_after_reply = answer.effect is Effect.CONTINUE
            self.link.send_packet(PacketType.STATE_MANIPULATE, answer.reply.encode(), now, tries=0)
        elif answer.effect is Effect.CONTINUE:
            self._continue(now)
        elif answer.effect is Effect.SWITCH:
            pc = self.machine.stopped_processor.program_counter
            self._report(self.make_change(ExceptionChange(STATUS_WAKE_SYSTEM_DEBUGGER, 0, 0, pc, (), True)), now)
        elif answer.effect is Effect.RESELECT and self._change is not None:
            self._report(self._change, now)
        elif answer.effect is Effect.REBOOT:
            self._reboot(now)
        elif answer.effect is Effect.CRASH:
            # Bug check E2 prints nothing and does not stop first: it writes its dump, then breaks (T59).
            self.script.appendleft(Stop(apply=self.crash, again=True))
            self._happen(Quiet(_CRASH_SECONDS), now)

    def _continue(self, now: float) -> None:
        machine = self.machine
        event = self._event
        first = self._first_stopped
        if first is not None and machine.current != first and machine.behaviour.hand_back_after_switch:
            machine.current = first
            if isinstance(event, Stop):
                self._stop(replace(event, apply=None), now)
                return
        machine.breakpoints.insert_owed()
        if isinstance(event, Stop) and event.again:
            self._stop(event, now)
            return
        if isinstance(event, Stop) and self._on_break_instruction(event):
            self._stop(replace(event, apply=None), now)
            return
        if self.step is not None and not isinstance(event, Load):
            stop = self.step(machine)
            if stop is not None:
                self._stop(stop, now)
                return
        self._go_on(now)

    def _on_break_instruction(self, stop: Stop) -> bool:
        pc = self.machine.stopped_processor.program_counter
        return stop.code == STATUS_BREAKPOINT and self.machine.read_virtual(pc, 1) == AMD64.break_instruction

    def _reboot(self, now: float) -> None:
        self.lives += 1
        self._break_pending = False
        self._change = self._first_stopped = None
        if self.restart is not None:
            self.machine, self.script = self.restart()
        self.link.give_up()
        self._go_on(now)
