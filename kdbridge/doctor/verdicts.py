"""From signs to one verdict. Each rule names the evidence it rests on; where two causes are as likely, it says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from protocol.layouts.version import SystemType
from protocol.state_change import ExceptionChange

from .damage import Pattern
from .signs import Condition, Signs
from .table import TABLE
from .texts import shown
from .waveform import USUAL_RATES

__all__ = ["Circumstances", "Verdict", "judge"]

_SLOW = 0.008
"""Seconds: an answer that is later than this is held back by something."""
_LOST = 3
_TIMER = (0.010, 0.025)
"""Seconds that a latency timer of 16 ms costs."""
_SUMMED = {
    Pattern.TELNET: "telnet", Pattern.NEWLINES: "newlines", Pattern.FLOW_CONTROL: "flow-control",
    Pattern.SEVEN_BITS: "seven-bit", Pattern.PARITY: "parity", Pattern.OVERRUN: "overrun",
    Pattern.LOST: "lost-bytes", Pattern.CUT: "cut-packets", Pattern.INSERTED: "noise", Pattern.FLIPPED: "bit-errors",
}  # fmt: skip
_SYSTEMS = {
    SystemType.NT_BOOT_DEBUGGER: "boot-debugger", SystemType.EFI: "boot-debugger", SystemType.HYPERVISOR: "hypervisor",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known beside the bytes."""

    connected: bool = True
    network: str | None = None
    """What the network's transport says of why there is nobody; None: there is a session, or no network."""
    session: bool = False
    """A network's target agreed on a key with us."""
    latency_timer: int | None = None
    """Of the port's adapter (ms), where the system tells it."""
    confirmed_baud: int | None = None
    """The speed at which packets or text were heard when others were tried."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong, or that nothing is."""

    name: str
    """A name of the table."""
    evidence: tuple[str, ...]
    confidence: float
    """From 0 to 1."""
    possible: tuple[str, ...] = ()
    """Undecided: names of what it may be."""
    cause: str = field(default="")
    """Filled from the table where nothing more exact is known."""
    cure: str = field(default="")

    def __post_init__(self) -> None:
        entry = TABLE[self.name]
        object.__setattr__(self, "cause", self.cause or entry.cause)
        object.__setattr__(self, "cure", self.cure or entry.cure)

    @property
    def title(self) -> str:
        """The verdict in a sentence."""
        return TABLE[self.name].title

    @property
    def exit_code(self) -> int:
        """0: the link is well; 1: it is not; 3: nobody is there."""
        return TABLE[self.name].exit_code


def judge(signs: Signs, around: Circumstances | None = None) -> Verdict:
    """The one verdict on a line."""
    known = around or Circumstances()
    for rule in _RULES:
        verdict = rule(signs, known)
        if verdict is not None:
            return verdict
    return _of_target(signs)


_Rule = Callable[[Signs, Circumstances], "Verdict | None"]


def _undecided(evidence: Sequence[str], *possible: str) -> Verdict:
    titles = "; ".join(TABLE[name].title for name in possible)
    return Verdict("undecided", tuple(evidence), 0.0, possible, f"Possible are: {titles}." if titles else "")


def _came(signs: Signs) -> str:
    return f"{signs.received} bytes came in {signs.seconds:.0f} seconds"


# ---- nobody ----------------------------------------------------------------------------------------------------------


def _nobody(signs: Signs, around: Circumstances) -> Verdict | None:
    if not around.connected:
        return Verdict("nobody-connected", (f"nobody connected within {signs.seconds:.0f} seconds",), 1.0)
    if around.network is not None:
        return Verdict("network", (around.network,), 0.9)
    if not signs.received:
        evidence = f"not a single byte came in {signs.seconds:.0f} seconds"
        return Verdict("silence", (evidence, *([_unanswered(signs.probed.resets)] if signs.probed.resets else [])), 0.9)
    return None


def _unanswered(resets: int) -> str:
    return "a RESET was not answered" if resets == 1 else f"{resets} RESETs were not answered"


def _echo(signs: Signs, around: Circumstances) -> Verdict | None:
    if not signs.echoed:
        return None
    alone = "and nothing else" if signs.condition is Condition.UNKNOWN else "and a target's packets besides"
    return Verdict("echo", (f"{signs.sent} bytes were sent; packets of ours came back, {alone}",), 0.95)


def _stranger(signs: Signs, around: Circumstances) -> Verdict | None:
    if not signs.strangers:
        return None
    return Verdict("another-debugger", (*signs.strangers, "while nothing was sent from here"), 0.9)


def _stalls(signs: Signs, around: Circumstances) -> Verdict | None:
    # A packet that stands still for too long is given up, and then half of it is in the way.
    if not signs.stalls or signs.damage.damaged > signs.stalls:
        return None
    text = f"packets came in parts, with a long silence in their middle: {signs.stalls} times"
    return Verdict("stalls", (text,), 0.8)


# ---- damage ----------------------------------------------------------------------------------------------------------


def _damage(signs: Signs, around: Circumstances) -> Verdict | None:
    damage = signs.damage
    if damage.pattern is not None:
        rate = damage.bit_error_rate
        more = () if rate is None else (f"about 1 bit in {round(1 / rate):,} is wrong",)
        return Verdict(_SUMMED[damage.pattern], (*damage.evidence, *more), damage.sure)
    if damage.damaged or (damage.broken and not damage.good and signs.packets):
        return _undecided(damage.evidence, *(_SUMMED[pattern] for pattern in damage.likely))
    return None


# ---- bytes, and no packets -------------------------------------------------------------------------------------------


def _no_packets(signs: Signs, around: Circumstances) -> Verdict | None:
    if signs.packets or signs.damage.good:
        return None
    if around.session:
        return Verdict("running", ("the target agreed on a session with this machine, and said nothing since",), 0.8)
    came = f"{_came(signs)}, no packet among them"
    text = signs.text
    if text is not None:
        whose = f"it looks like {text.whose}" if text.whose else "nothing in it says whose it is"
        said = f"{_came(signs)}, all of them text: {shown(text.text)}"
        if text.parity:
            parity = f"the highest bit of each is of {text.parity} parity"
            return Verdict("parity", (said, parity, whose), 0.9)
        return Verdict("text", (said, whose), 0.9 if text.whose else 0.8)
    own = signs.baud
    if around.confirmed_baud is not None:
        heard = f"at {around.confirmed_baud} baud, what comes is packets or text"
        return Verdict("wrong-baud", (came, heard), 0.97, cure=_give(around.confirmed_baud))
    if signs.misheard:
        return _misheard(signs, came)
    first = f"the first are {signs.first[:16].hex(' ')}"
    if signs.zeros and signs.received >= 8:
        slower = [rate for rate in sorted(USUAL_RATES, reverse=True) if own and rate * 9 < own]
        if slower:
            seen = f"all of them are 00, as bytes are read that come at a ninth of {own} baud or slower"
            return Verdict("wrong-baud", (came, seen), 0.6, cure=f"Try ?baud= with {', '.join(map(str, slower))}.")
        return _undecided((came, "all of them are 00"), "wrong-baud", "inverted")
    if signs.received < 8:
        return _undecided((came, first), "noise", "wrong-baud", "text", "inverted", "silence")
    return _undecided((came, first), "wrong-baud", "inverted", "parity", "text", "noise", "bit-errors", "lost-bytes")


def _give(baud: int) -> str:
    return f"Give the target's speed: ?baud={baud}."


def _misheard(signs: Signs, came: str) -> Verdict:
    best, *others = signs.misheard
    if best.inverted:
        what = f"text like {shown(best.text)}" if best.text else "the beginnings of packets"
        return Verdict("inverted", (came, f"read upside down they are {what}"), 0.85)
    what = "text would" if not best.text and best.length == 1 else "the beginnings of packets would"
    own = signs.baud
    if own is None:
        evidence = (came, f"they look as {what} at {best.ratio:.3g} times the speed at which they were read")
        return Verdict("wrong-baud", evidence, 0.6)
    rate = round(best.ratio * own)
    evidence = (came, f"they look as {what} that come at {rate} baud and are read at {own}")
    rivals = [round(one.ratio * own) for one in others if not one.inverted and 2 * one.score >= best.score]
    if rivals:
        cure = f"Try ?baud= with {', '.join(map(str, [rate, *rivals]))}."
        return Verdict("wrong-baud", evidence, 0.6, cure=cure)
    return Verdict("wrong-baud", evidence, 0.9 if best.length > 2 else 0.7, cure=_give(rate))


# ---- who hears whom --------------------------------------------------------------------------------------------------


_ROUGH = {
    frozenset({"0A"}): "newlines", frozenset({"0D"}): "newlines", frozenset({"0A", "0D"}): "newlines",
    frozenset({"11 and 13"}): "flow-control", frozenset({"FF"}): "telnet", frozenset({"FF", "0D"}): "telnet",
}  # fmt: skip


def _hearing(signs: Signs, around: Circumstances) -> Verdict | None:
    probed = signs.probed
    if probed.rough and (name := _ROUGH.get(frozenset(probed.rough))) is not None:
        seen = f"questions with the bytes {' and '.join(probed.rough)} in them do not get through; all others do"
        return Verdict(name, (seen,), 0.9)
    if signs.resends:
        times = f"the target asked {signs.resends} times for what it got to be sent again"
        whole = "all that came from it is whole"
        if signs.resends_again:
            at_once = f"{signs.resends_again} times right after it had asked already"
            return Verdict("garbled-there", (times, at_once, whole), 0.8 if signs.resends_again > 1 else 0.6)
        if probed.silently >= _LOST:
            unheard = f"{probed.silently} of {probed.asked} questions it did not hear of"
            return Verdict("lost-packets", (unheard, times, whole), 0.7)
        return _undecided((times, whole), "garbled-there", "lost-packets")
    if signs.understood is False:
        again = (f"a packet came {signs.repeats + 1} times, each time whole, each time acknowledged from here",)
        deaf = (_unanswered(probed.resets),) if probed.resets else ()
        return Verdict("not-heard", (*again, *deaf), 0.85)
    if signs.died:
        fell = "packets came at first, and nothing after something had been sent"
        return _undecided((fell,), "not-heard", "running", "lost-packets", "stalls")
    if signs.doubles and not probed.retried and not signs.repeats:
        doubled = f"{signs.doubles} packets came twice, one right behind the other"
        return Verdict("doubled-packets", (doubled,), 0.8 if signs.doubles > 1 else 0.6)
    if probed.retried or signs.repeats:
        twice = signs.repeats + signs.doubles
        lost = (
            f"{probed.retried} of {probed.asked} questions had to be sent again, {twice} packets that had been "
            "acknowledged came again, and none came damaged"
        )
        # What is damaged on the way to the target is often passed over in silence, too: once or twice says nothing.
        if probed.silently + signs.repeats >= _LOST and not signs.doubles:
            return Verdict("lost-packets", (lost,), 0.7)
        return _undecided((lost,), "lost-packets", "garbled-there", "stalls", "doubled-packets")
    foreign = signs.foreign
    if foreign is not None:
        whose = f"; it looks like {foreign.whose}" if foreign.whose else ""
        return Verdict("second-writer", (f"between packets there is text: {shown(foreign.text)}{whose}",), 0.85)
    return None


# ---- what the target is ----------------------------------------------------------------------------------------------


def _other_debugger(signs: Signs, around: Circumstances) -> Verdict | None:
    if signs.version is None:
        return None
    name = _SYSTEMS.get(SystemType(signs.version.system_type)) if signs.version.system_type in _KNOWN else None
    if name is None:
        return None
    return Verdict(name, (f"its version packet says that it is of system type {signs.version.system_type}",), 0.95)


_KNOWN = frozenset(int(kind) for kind in SystemType)


def _slow(signs: Signs, around: Circumstances) -> Verdict | None:
    late = signs.probed.turnarounds
    if not late or median(late) < _SLOW:
        return None
    middle = median(late)
    text = f"{len(late)} answers came {1000 * middle:.0f} ms later (median) than the line takes to carry them"
    timer = around.latency_timer
    if timer is not None and timer > 1:
        return Verdict("slow", (text, f"the port's latency timer is {timer} ms"), 0.95)
    return Verdict("slow", (text,), 0.7 if _TIMER[0] <= middle <= _TIMER[1] else 0.5)


def _of_target(signs: Signs) -> Verdict:
    condition = signs.condition
    packets = ", ".join(f"{count} {name}" for name, count in sorted(signs.packets.items()))
    whole = f"{_came(signs)}: {packets}; every packet is whole"
    if condition is Condition.STOPPED and signs.stop is not None:
        event = signs.stop.event
        code = f"{event.code:08x}" if isinstance(event, ExceptionChange) else "?"
        evidence = [whole, f"it stopped at {signs.stop.program_counter:016x} (exception {code})"]
        if signs.version is not None:
            evidence.append(f"it says that it is build {signs.version.build}, machine {signs.version.machine_type:04x}")
        if signs.probed.answered:
            evidence.append(f"{signs.probed.answered} of {signs.probed.asked} questions were answered")
            return Verdict("stopped", tuple(evidence), 0.97)
        if signs.sent:
            evidence.append("it was asked, and did not answer")
            return _undecided(evidence, "not-heard", "lost-packets", "garbled-there")
        return Verdict("stopped", (*evidence, "it was not asked anything"), 0.7)
    if condition is Condition.LOADING:
        return Verdict("booting", (whole, f"it loads {', '.join(signs.loads[:4])}"), 0.9)
    if condition is Condition.ASKING:
        return Verdict("asking", (whole, "it sends a prompt or a request for a file, and waits"), 0.9)
    if condition is Condition.DUMPING:
        return Verdict("dumping", (whole, f"it printed {shown(signs.prints.decode('latin-1').strip())}"), 0.7)
    if condition is Condition.PRINTING:
        return Verdict("running", (whole, f"it printed {shown(signs.prints.decode('latin-1').strip())}"), 0.8)
    return _undecided((whole, "none says what the target does"), "stopped", "running", "lost-packets", "not-heard")


_RULES: tuple[_Rule, ...] = (_nobody, _echo, _stranger, _stalls, _damage, _no_packets, _hearing, _other_debugger, _slow)
