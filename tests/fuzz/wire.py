"""What hangs on a wire, attacked: frames, links of both ends, a debugger's conversation, a whole target."""

from __future__ import annotations

import random
import zlib
from dataclasses import replace
from pathlib import Path

from protocol.connection import KdConnection
from protocol.conversation import Replied, RequestFailed, Told
from protocol.framing import ControlFrame, DataFrame, Frame, FrameReader, HeaderFrame, Rubbish
from protocol.kdcom import KdcomLink
from protocol.link import LinkTimers, Role
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import HEADER, LARGEST_PAYLOAD_ACCEPTED, PacketType
from protocol.state_change import LoadSymbols
from simulator.machine import Behaviour, Machine
from simulator.target import Activity, Ask, Event, KdTarget, Load, OpenFile, Print, Quiet, Stop
from tests.fuzz.driver import Target
from tests.fuzz.mutate import chunks, noise
from tests.fuzz.packets import Payload, from_host, from_target, stream
from tests.small_machine import KERNEL, PC, small_machine

__all__ = ["WIRE"]

_MOST_TIMERS = 3000
_UNFINISHED = HEADER.size + LARGEST_PAYLOAD_ACCEPTED + 1


class _Wire:
    """Streams of what the other end may say; when each piece comes is decided by the bytes themselves."""

    def __init__(self, payloads: tuple[Payload, ...]) -> None:
        self.payloads = payloads

    def make(self, rng: random.Random) -> bytes:
        if not rng.randrange(10):
            return noise(rng, 4000)
        return stream(rng, self.payloads)

    def schedule(self, data: bytes) -> random.Random:
        return random.Random(zlib.crc32(data))


class _Framing(_Wire):
    """Every byte ends up in a frame, in rubbish with a reason, or in the one packet that has begun."""

    def __init__(self, role: Role) -> None:
        super().__init__(from_target() if role is Role.HOST else from_host())
        self.role = role

    def run(self, data: bytes) -> None:
        rng = self.schedule(data)
        least = rng.choice((0, 12, 56, 64)) if self.role is Role.TARGET else 0
        whole = self._frames([data], least)
        assert self._frames(chunks(rng, data), least) == whole, "how the bytes were cut changes what they mean"
        reader = FrameReader(self.role)
        reader.feed(data)
        while (frame := reader.next(headers_only=bool(rng.getrandbits(1)), least=least)) is not None:
            assert not isinstance(frame, Rubbish) or frame.data

    def _frames(self, parts: list[bytes], least: int) -> list[Frame]:
        reader = FrameReader(self.role)
        found: list[Frame] = []
        taken = 0
        for part in parts:
            reader.feed(part)
            while (frame := reader.next(least=least)) is not None:
                taken += _size(frame)
                if not isinstance(frame, Rubbish):
                    found.append(frame)
        assert reader.pending < _UNFINISHED, f"{reader.pending} bytes are kept"
        assert taken + reader.pending == sum(map(len, parts)), "bytes vanished, or came twice"
        left = reader.pending
        while left:
            assert reader.drop() is not None
            while reader.next(least=least) is not None:
                pass
            assert reader.pending < left
            left = reader.pending
        return found


def _size(frame: Frame) -> int:
    if isinstance(frame, DataFrame):
        return HEADER.size + len(frame.payload) + 1
    if isinstance(frame, Rubbish):
        return len(frame.data)
    assert isinstance(frame, ControlFrame | HeaderFrame)
    return HEADER.size


class _Link(_Wire):
    """A link between a wire and somebody who sends, resets, polls and lets time pass."""

    def __init__(self, role: Role) -> None:
        super().__init__(from_target() if role is Role.HOST else from_host())
        self.role = role

    def run(self, data: bytes) -> None:
        rng = self.schedule(data)
        link = KdcomLink(self.role)
        now = 0.0
        for part in chunks(rng, data):
            self._do_something(link, rng, now)
            link.receive_data(part, now)
            if not rng.randrange(4):
                now += rng.choice((0.001, 0.3, 1.0, 7.0))
                link.handle_timeout(now)
            _drain(link)
        if self.role is Role.TARGET:
            link.set_polling(False, now)
        _rest(link, now, forever=self.role is Role.TARGET)

    def _do_something(self, link: KdcomLink, rng: random.Random, now: float) -> None:
        what = rng.randrange(12)
        if what < 3 and link.idle:
            tries = rng.choice((None, 0, 1)) if self.role is Role.TARGET else None
            link.send_packet(*rng.choice(self.payloads), now, tries=tries)
        elif self.role is Role.HOST:
            if what == 3:
                link.send_reset(now)
            elif what == 4:
                link.imply_acknowledge()
        elif what == 3:
            link.set_polling(bool(rng.getrandbits(1)), now)
        elif what == 4:
            link.poll()
        elif what == 5:
            link.want(rng.choice((PacketType.STATE_MANIPULATE, PacketType.DEBUG_IO, PacketType.FILE_IO)))
        elif what == 6:
            link.give_up()


def _drain(end: KdcomLink | KdConnection) -> None:
    while end.next_event() is not None:
        pass
    end.data_to_send()


def _rest(end: KdcomLink | KdConnection | KdTarget, now: float, *, forever: bool) -> float:
    """Let time pass until no timer is left; a target may repeat itself for ever, but not without time passing."""
    still = 0
    for _ in range(60 if forever else _MOST_TIMERS):
        due = end.next_timeout()
        if due is None:
            return now
        still = 0 if due > now else still + 1
        assert still < 100, f"a timer is due at {due}, again and again"
        now = max(now, due)
        end.handle_timeout(now)
        if isinstance(end, KdTarget):
            end.data_to_send()
        else:
            _drain(end)
    assert forever, "the timers never come to rest"
    return now


_QUESTIONS = (
    (Manipulate.request(ApiNumber.GET_VERSION), True),
    (Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=PC, transfer_count=64), True),
    (Manipulate.request(ApiNumber.READ_PHYSICAL_MEMORY, address=0x2000, transfer_count=3944), True),
    (Manipulate.request(ApiNumber.GET_CONTEXT), True),
    (Manipulate.request(ApiNumber.READ_CONTROL_SPACE, address=2, transfer_count=0xF0), True),
    (Manipulate.request(ApiNumber.WRITE_VIRTUAL_MEMORY, address=PC, transfer_count=4, data=b"abcd"), False),
    (Manipulate.request(ApiNumber.CONTINUE2, continue_status=0x10002), False),
    (Manipulate.request(ApiNumber.SWITCH_PROCESSOR, processor=1), False),
)


class _Conversation(_Wire):
    """A debugger asks; whatever comes, each question ends, and no answer is lost."""

    def __init__(self) -> None:
        super().__init__(from_target())

    def run(self, data: bytes) -> None:
        rng = self.schedule(data)
        host = KdConnection(KdcomLink(Role.HOST))
        now, asked, ended = 0.0, 0, 0

        def drain() -> int:
            count = 0
            while (event := host.next_event()) is not None:
                count += isinstance(event, Replied | Told | RequestFailed)
            host.data_to_send()
            return count

        abandoned = 0
        for part in chunks(rng, data):
            ended += drain()
            what = rng.randrange(10)
            if what < 5 and not host.busy:
                request, repeatable = rng.choice(_QUESTIONS)
                host.ask(request, now, repeatable=repeatable)
                asked += 1
            elif what == 5 and host.busy:
                host.abandon()
                abandoned += 1
            elif what == 6:
                host.send_reset(now)
            host.receive_data(part, now)
            if not rng.randrange(4):
                now += rng.choice((0.001, 0.3, 1.0, 6.0))
                host.handle_timeout(now)
        ended += drain()
        for _ in range(_MOST_TIMERS):
            due = host.next_timeout()
            if due is None:
                break
            now = max(now, due)
            host.handle_timeout(now)
            ended += drain()
        assert host.next_timeout() is None, "the timers never come to rest"
        assert not host.busy, "a question is open, and nothing will ever end it"
        assert asked == ended + abandoned, f"{asked} questions, {ended} ends, {abandoned} abandoned"


class _Target(_Wire):
    """The simulator's target in all its states."""

    def __init__(self) -> None:
        super().__init__(from_host())
        self.machine = small_machine(processors=2)

    def make(self, rng: random.Random) -> bytes:
        if not rng.randrange(10):
            return noise(rng, 4000)
        return stream(rng, self.payloads, synchronized=False)

    def run(self, data: bytes) -> None:
        rng = self.schedule(data)
        target = self._target(rng)
        now = 0.0
        target.handle_timeout(now)
        for part in chunks(rng, data):
            target.receive_data(part, now)
            target.data_to_send()
            if not rng.randrange(4):
                now += rng.choice((0.001, 0.02, 1.0, 7.0))
                target.handle_timeout(now)
        _rest(target, now, forever=True)

    def _target(self, rng: random.Random) -> KdTarget:
        whole = self.machine
        behaviour = Behaviour(
            largest_transfer=rng.choice((3944, 4096)),
            whole_control_space=bool(rng.getrandbits(1)),
            longer_context=rng.choice((0, 0x100)),
            echo_control_writes=bool(rng.getrandbits(1)),
        )
        processors = [replace(processor) for processor in whole.processors]
        machine = Machine(whole.memory.copy(), whole.translate, whole.version, processors, behaviour)
        target = KdTarget(machine, KdcomLink(Role.TARGET, LinkTimers(tries=20)))
        if rng.getrandbits(1):
            target.begin(Activity.WAITING, target.make_change(_EXCEPTION), 0.0)
        else:
            target.script.extend(rng.choice(_SCRIPTS))
        return target


_EXCEPTION = LoadSymbols("nt", KERNEL, 4, 0, 0x1000, unload=False)
_SCRIPTS: tuple[tuple[Event, ...], ...] = (
    (),
    (Stop(again=True),),
    (Print(b"hello"), Ask(b"well? ", 2), Stop()),
    (OpenFile("driver.sys"), Load(_EXCEPTION), Stop()),
    (Quiet(3.0, b"noise"), Stop()),
)


def _framing_host(_folder: Path) -> _Framing:
    return _Framing(Role.HOST)


def _framing_target(_folder: Path) -> _Framing:
    return _Framing(Role.TARGET)


def _link_host(_folder: Path) -> _Link:
    return _Link(Role.HOST)


def _link_target(_folder: Path) -> _Link:
    return _Link(Role.TARGET)


WIRE = (
    Target("framing-host", 100, _framing_host, refuses=False),
    Target("framing-target", 100, _framing_target, refuses=False),
    Target("link-host", 80, _link_host, refuses=False),
    Target("link-target", 80, _link_target, refuses=False),
    Target("conversation", 100, lambda _folder: _Conversation(), refuses=False),
    Target("simulated-target", 90, lambda _folder: _Target(), refuses=False),
)
