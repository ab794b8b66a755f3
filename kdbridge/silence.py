"""Why no contact came about: what was and what was not seen on the line, in one clear sentence."""

from __future__ import annotations

from protocol.conversation import FileDeclined, KdEvent, OrphanReply, PromptAnswered
from protocol.link import Discard

from .doctor.signs import Signs, find_signs
from .doctor.table import TABLE
from .doctor.verdicts import Verdict, judge
from .engine import Engine
from .transports import DatagramTransport
from .transports.stream import ListenTransport
from .transports.tap import untapped

__all__ = ["explain_silence", "said"]

_SHOWN = 48
_TOLD = frozenset({
    "wrong-baud", "inverted", "parity", "seven-bit", "flow-control", "newlines", "telnet", "overrun", "lost-bytes",
    "cut-packets", "noise", "bit-errors", "not-heard", "garbled-there", "echo", "another-debugger", "boot-debugger",
    "hypervisor",
})  # fmt: skip
"""Verdicts of the doctor's that say why there is no contact."""
_SURE = 0.6
_OF_GOOD_PACKETS = (Discard.DUPLICATE, Discard.STRAY_ACKNOWLEDGE, Discard.UNWANTED_TYPE, Discard.STALE_REPLY)


def explain_silence(engine: Engine, *, wait: float, break_in: bool) -> str:
    """The sentence for NoContactError: evidence first, then the likeliest cause and what to do."""
    where = engine.transport.url
    heard = bytes(engine.first_bytes)
    good = engine.messages or any(engine.discards[reason] for reason in _OF_GOOD_PACKETS)
    way = untapped(engine.transport)
    if isinstance(way, ListenTransport) and not way.connected:
        return (
            f"nobody connected to {where} within {wait:g} seconds: start the virtual machine whose serial port leads "
            "here, or see where it leads."
        )
    network = isinstance(engine.transport, DatagramTransport)
    nobody = engine.explain(wait)
    if nobody is not None:
        return nobody
    if not heard and not network:
        asked = "RESET and break-in were" if break_in else "RESET was"
        stops = " One that runs is stopped by `kdbridge break`, or by --break-in where the verb has it."
        hint = "" if break_in else stops
        return (
            f"not a single byte came from {where} within {wait:g} seconds, {asked} not answered: "
            "the machine runs, is off, was started without debugging, is busy writing its own dump, or the cable, port "
            f"or baud rate on its side is another.{hint}"
        )
    engine.early.seconds = max(engine.early.seconds, wait)
    signs = find_signs(engine.early)
    verdict = judge(signs)
    if not network and (name := _named(signs, verdict)):
        found = verdict.evidence if name == verdict.name else ("RESETs were sent, and RESETs came",)
        entry = TABLE[name]
        return (
            f"{engine.bytes_received} bytes came from {where}: {entry.title} ({'; '.join(found)}). "
            f"{verdict.cause if name == verdict.name else entry.cause} "
            f"{verdict.cure if name == verdict.name else entry.cure}"
        )
    if not good and not network:
        damaged = engine.discards[Discard.BAD_CHECKSUM] + engine.discards[Discard.BAD_TRAILER]
        if damaged:
            return (
                f"{engine.bytes_received} bytes came from {where}, packets among them, but every one was damaged: "
                "noise on the line, a receiver that overruns, or flow control that eats bytes."
            )
        text = heard.decode("latin-1")
        if sum(32 <= ord(c) < 127 or c in "\r\n\t\x1b" for c in text) > 0.9 * len(text):
            return (
                f"{engine.bytes_received} bytes of text came from {where}, no debugger packets: {text[:_SHOWN]!r}. "
                "Something else uses this port: firmware, a boot menu, a console."
            )
        return (
            f"{engine.bytes_received} bytes came from {where}, no packet among them (first: {heard[:16].hex(' ')}): "
            "most likely another baud rate than the target's."
        )
    if engine.connection.change is not None:
        return (
            f"the target at {where} said why it stopped, and answered no request within {wait:g} seconds: "
            "what is sent to it does not arrive whole, or it hangs."
        )
    hint = "it runs; it was not told to stop (`kdbridge break` does that)" if not break_in else "it did not stop"
    return (
        f"packets came from {where} ({engine.bytes_received} bytes), but no state change within {wait:g} seconds: "
        f"the target is alive and {hint}."
    )


def _named(signs: Signs, verdict: Verdict) -> str:
    """The verdict that explains it; empty: none does, or it is not sure enough."""
    if signs.packets and set(signs.packets) == {"RESET"} and not signs.damage.damaged:
        # A target that answers RESET says why it stopped as well.
        return "echo"
    return verdict.name if verdict.name in _TOLD and verdict.confidence >= _SURE else ""


def said(event: KdEvent) -> str:
    """What was done for the target while it was being taken over; empty: nothing worth telling."""
    if isinstance(event, OrphanReply):
        return f"a former debugger's {event.reply.name} reply was waiting; dropped"
    if isinstance(event, PromptAnswered):
        prompt = event.prompt.decode("latin-1").strip()
        answer = event.answer.decode("latin-1")
        return f"the target asked {prompt!r}; answered {answer!r} (break), so that it stays stopped"
    if isinstance(event, FileDeclined):
        return f"the target asked this machine for the file {event.path!r}; declined"
    return ""
