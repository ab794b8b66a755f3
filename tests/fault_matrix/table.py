"""kd-protocol 9.3, row by row: what goes wrong, both ways, at five moments, and what has to come of it.

A cell holds cases, or says why it makes no sense.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import trio

from protocol.manipulate import ApiNumber, Manipulate
from protocol.ntstatus import STATUS_SUCCESS
from protocol.packet import encode_control
from protocol.state_change import ExceptionChange
from simulator.machine import Machine
from simulator.target import Activity, Ask, Event, KdTarget, OpenFile, Print, Quiet, Stop
from tests.fault_matrix.line import Strike, StruckLine, To, machine_with
from tests.fault_matrix.phases import PRINTS, SCRIPTS, Inject
from tests.fault_matrix.talkers import Talking, print_payload, stale_version
from tests.small_machine import KERNEL, PC, small_machine

__all__ = ["MOMENTS", "TABLE", "WAYS", "Case", "Cell"]

MOMENTS = tuple(SCRIPTS)
WAYS: tuple[To, ...] = ("target", "host")
"""Who does not get what the other sent."""


@dataclass
class Case:
    """One thing that goes wrong, and its outcome."""

    name: str
    outcome: str = "right"
    strike: Strike | None = None
    inject: Inject | None = None
    line: Callable[[], StruckLine] | None = None
    prints: tuple[bytes, ...] = PRINTS
    resend: bool = False
    """Whoever got it damaged asks for it again."""
    within: float = 2.0
    """Seconds beside those that the moment takes anyway: two timeouts, of a second each."""


Cell: TypeAlias = list[Case] | str
Do: TypeAlias = Callable[[bytes], bytes]

_NOTHING = "nothing is under way: there is no packet to hit"
_ONLY_ACKS = "while the target prints, the host sends acknowledges and nothing else"
_NO_ACKS = "while it prints, the target has nothing to acknowledge"
_STOPPED = "a stopped target says nothing of itself"
_BROKEN_IN = {"prints": "prints cut short", "leaving": "stopped again"}
"""A break-in byte that a stopped machine got, it obeys when it was continued, or behind the next print (1.11)."""

# Packets with a body that are hit, each by its kind and its number from that moment on.
_DATA: dict[tuple[To, str], tuple[str, int]] = {
    ("target", "attach"): ("3146", 1), ("target", "reading"): ("3130", 2), ("target", "leaving"): ("313c", 1),
    ("host", "attach"): ("event", 1), ("host", "reading"): ("3130", 2), ("host", "prints"): ("print", 2),
    ("host", "leaving"): ("3133", 1),
}  # fmt: skip
# In leaving: that of the reply to SetContext, and that of the continue itself. In prints: that of the second print.
_ACKS: dict[tuple[To, str], tuple[str, int]] = {
    ("target", "attach"): ("ack", 1), ("target", "reading"): ("ack", 1), ("target", "prints"): ("ack", 5),
    ("target", "leaving"): ("ack", 3), ("host", "attach"): ("ack", 1), ("host", "reading"): ("ack", 1),
    ("host", "leaving"): ("ack", 4),
}  # fmt: skip


def _gone(raw: bytes) -> bytes:
    return b""


def _flipped(raw: bytes) -> bytes:
    changed = bytearray(raw)
    changed[16 + (len(raw) - 17) // 2] ^= 0x04
    return bytes(changed)


def _inserted(noise: bytes, at: int = 0) -> Do:
    return lambda raw: raw[:at] + noise + raw[at:]


def _injected(to: To, data: bytes) -> Inject:
    return lambda line: line.inject(to, data)


def _unhit(to: To, moment: str) -> str:
    if moment == "idle":
        return _NOTHING
    return _ONLY_ACKS if to == "target" else _NO_ACKS


def _data(**ways: Do) -> Callable[[To, str], Cell]:
    """Each of these things done to a packet with a body. Damaged, it is asked for again; lost, its timer does."""

    def cell(to: To, moment: str) -> Cell:
        if (to, moment) not in _DATA:
            return _unhit(to, moment)
        kind, nth = _DATA[to, moment]
        return [
            Case(name, strike=Strike(to, kind, do, nth), resend=name in ("flipped", "wrong"))
            for name, do in ways.items()
        ]  # fmt: skip

    return cell


def _lost_ack(to: To, moment: str) -> Cell:
    if (to, moment) not in _ACKS:
        return _unhit(to, moment)
    strike = Strike(to, *_with(_ACKS[to, moment], _gone))
    if (to, moment) == ("host", "leaving"):
        # The machine went on, and nobody here can know: told as it is, and not done twice.
        return [Case("of the continue", "lost", strike, within=5.0)]
    return [Case("of what came before", strike=strike)]


def _with(hit: tuple[str, int], do: Do) -> tuple[str, Do, int]:
    return hit[0], do, hit[1]


def _host_ack(to: To, moment: str) -> Cell:
    return _lost_ack("target", moment) if to == "target" else "see the row below: the target's acknowledge"


def _target_ack(to: To, moment: str) -> Cell:
    return _lost_ack("host", moment) if to == "host" else "see the row above: the host's acknowledge"


def _instead(to: To, moment: str) -> Cell:
    if to == "host":
        return "a target asks nothing that could stand where its acknowledge belongs"
    if moment in ("idle", "prints"):
        return "no request follows the acknowledge"
    # The request comes right behind the acknowledge, and now without it.
    kind, nth = _ACKS["target", moment]
    return [Case("request", strike=Strike("target", kind, _gone, nth), resend=True)]


def _noise(to: To, moment: str) -> Cell:
    noises = {"30 x 3": b"000", "30 x 5": b"00000", "69 x 4": b"iiii", "62": b"b", "text": b"\x00\xff?noise\r\n"}
    cases: list[Case] = []
    for name, noise in noises.items():
        outcome = _BROKEN_IN.get(moment, "right") if (to, name) == ("target", "62") else "right"
        if (to, moment) not in _DATA:
            cases.append(Case(f"{name} between", outcome, inject=_injected(to, noise), within=5.0))
        else:
            kind, nth = _DATA[to, moment]
            cases.append(Case(f"{name} between", outcome, Strike(to, kind, _inserted(noise), nth)))
            cases.append(Case(f"{name} inside", strike=Strike(to, kind, _inserted(noise, 30), nth)))
    return cases


def _out_of_turn(data: bytes, outcomes: dict[tuple[To, str], str]) -> Callable[[To, str], Cell]:
    """In front of the packet that is waited for: of the acknowledge of an event, a reply, a print; of a request."""

    def cell(to: To, moment: str) -> Cell:
        outcome = outcomes.get((to, moment), "right")
        if moment == "idle":
            return [Case("waiting for a request", outcome, inject=_injected(to, data), within=5.0)]
        kind, nth = _ACKS[to, moment] if to == "target" else _DATA[to, moment]
        return [Case(f"before {kind} {nth}", outcome, Strike(to, kind, _inserted(data), nth), within=5.0)]

    return cell


def _restart(to: To, moment: str) -> Cell:
    if to == "target":
        return "a target restarts, a host does not"

    def line() -> StruckLine:
        target = machine_with(*SCRIPTS[moment])
        target.restart = lambda: (_elsewhere(), deque([Stop()]))
        return StruckLine(target)

    async def restarts(on: StruckLine) -> None:
        on.running.target.reset(trio.current_time())

    def with_request(on: KdTarget) -> Do:
        def do(raw: bytes) -> bytes:
            on.reset(trio.current_time())
            return b""

        return do

    if moment == "attach":
        return [Case("before first contact", inject=restarts, line=line)]
    if moment == "prints":
        # What stops after a continue is a new stop; who continued it cannot tell, nor need he.
        made = line()
        strike = Strike("host", "print", with_request(made.running.target), 2)
        return [Case("at a print", "prints cut short", strike, line=lambda: made)]
    cases = [Case("before the next request", "changed", inject=restarts, line=line)]
    if moment != "idle":
        made = line()
        strike = Strike("target", _DATA["target", moment][0], with_request(made.running.target))
        # A read is asked again, and its answer is another machine's; a continue is not.
        outcome = "changed" if moment == "reading" else "lost"
        cases.append(Case("with a request outstanding", outcome, strike, line=lambda: made, within=6.0))
    return cases


def _elsewhere() -> Machine:
    machine = small_machine()
    machine.processors[0].set(rip=KERNEL + 0x3000)
    return machine


def _prints(to: To, moment: str) -> Cell:
    if to == "target":
        return "a host prints nothing"
    if moment == "attach":
        return [Case("before the event", line=lambda: StruckLine(machine_with(*map(Print, PRINTS), Stop())))]
    texts = [(3, print_payload(text)) for text in PRINTS]
    if moment == "reading":
        return [
            Case("between acknowledge and reply", line=lambda: StruckLine(Talking(*texts))),
            Case("storm there", line=lambda: StruckLine(Talking(*texts * 100))),
        ]
    if moment == "prints":
        storm = tuple(b"%d\n" % number for number in range(500))
        return [Case("storm", line=lambda: StruckLine(machine_with(Stop(), *map(Print, storm), Stop())), prints=storm)]
    return _STOPPED if moment == "idle" else "what it prints after a continue: see prints"


def _prompts(to: To, moment: str) -> Cell:
    asks: tuple[Event, ...] = (OpenFile(r"\??\C:\drv.sys"), Ask(b"Break, Ignore?"), Stop())
    if moment not in ("attach", "prints"):
        return _STOPPED if moment != "leaving" else "what it asks after a continue: see prints"
    script = asks if moment == "attach" else (Stop(), *asks)

    def line() -> StruckLine:
        return StruckLine(machine_with(*script))

    lost = [Strike(to, kind, _gone) for kind in ("file", "prompt")]
    cases = [Case(f"{strike.kind} lost", strike=strike, line=line, prints=()) for strike in lost]
    return [*cases, Case("both", line=line, prints=())] if to == "host" else cases


def _stale(to: To, moment: str) -> Cell:
    if to == "target":
        return "a host sends no replies"
    if moment == "attach":

        def line() -> StruckLine:
            target = machine_with()
            change = target.make_change(ExceptionChange(0x80000003, 0, 0, PC, (0,), True))
            target.begin(Activity.REPLYING, change, 0.0)
            read = Manipulate.request(ApiNumber.READ_CONTROL_SPACE, address=2, transfer_count=8)
            target.send_reply(read.reply(STATUS_SUCCESS, data=bytes(8), actual_bytes=8), 0.0)
            return StruckLine(target)

        return [Case("of a debugger that went away", line=line)]
    if moment == "reading":
        return [Case("before the true one", line=lambda: StruckLine(Talking((2, stale_version()))))]
    return _STOPPED if moment == "idle" else "it answers no reads at this moment: see reading"


def _memory(to: To, moment: str) -> Cell:
    return "no fault of a line: test_odd_answers.py has these"


def _quiet(to: To, moment: str) -> Cell:
    if to == "target":
        return "a host that says nothing for a minute is idle"
    if moment == "leaving":
        return [Case("60 s", line=lambda: StruckLine(machine_with(Stop(), Quiet(60.0), Stop())))]
    if moment == "prints":
        script = (Stop(), Quiet(60.0), Stop())
        return [Case("60 s", line=lambda: StruckLine(machine_with(*script)), prints=(), within=61.0)]
    return "nothing was continued"


def _dead(to: To, moment: str) -> Cell:
    outcome = {"attach": "no contact", "prints": "no contact"}.get(moment, "lost")
    if moment == "idle":

        async def cut(line: StruckLine) -> None:
            line.strike = Strike(to, "", _gone, for_good=True, struck=1)

        return [Case("meanwhile", outcome, inject=cut, within=65.0)]
    hits = [hit[to, moment] for hit in (_DATA, _ACKS) if (to, moment) in hit]
    return [
        Case(f"from {kind} {nth} on", outcome, Strike(to, kind, _gone, nth, for_good=True), within=65.0)
        for kind, nth in hits
    ]


TABLE: dict[str, Callable[[To, str], Cell]] = {
    "drop ACK host→target": _host_ack,
    "drop ACK target→host": _target_ack,
    "drop data either way": _data(lost=_gone),
    "flip a payload bit": _data(flipped=_flipped),
    "wrong trailer": _data(wrong=lambda raw: raw[:-1] + b"\x55"),
    "truncated packet": _data(
        header=lambda raw: raw[:8], payload=lambda raw: raw[: 16 + (len(raw) - 17) // 2], trailer=lambda raw: raw[:-1]
    ),
    "inserted noise, incl. `30`×3, `30`×5, `69`×4, `62`": _noise,  # noqa: RUF001
    "request instead of ACK": _instead,
    "RESET": _out_of_turn(
        encode_control(6),
        # What was outstanding and may not be asked twice fails. The print is sent once more, under another id (1.9).
        {("target", "leaving"): "lost", ("host", "leaving"): "lost", ("target", "prints"): "printed again"},
    ),
    "`62`": _out_of_turn(b"b", {("target", moment): outcome for moment, outcome in _BROKEN_IN.items()}),
    "SYNC restart in mid-session (target reboot)": _restart,
    "print between request ACK and reply; print storm": _prints,
    "prompt, file create": _prompts,
    "stale reply of another API": _stale,
    "short read, failed read with data, zero data": _memory,
    "silence for 60 s after continue": _quiet,
    "line dead for good": _dead,
}
"""By the words of the reference's first column."""
