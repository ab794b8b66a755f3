"""The whole examination of one target: listen, probe where that does no harm, try other speeds, judge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from kdbridge.errors import TransportError
from kdbridge.overheard import Overheard
from kdbridge.ports import latency_timer
from kdbridge.transports import DatagramTransport, TargetAddress, Transport, open_transport, parse_target
from kdbridge.transports.stream import ListenTransport

from .listening import Progress, find_baud, listen
from .probing import probe, probe_network
from .signs import Condition, Signs, find_signs
from .verdicts import Circumstances, Verdict, judge
from .waveform import USUAL_RATES

__all__ = ["Examination", "examine", "examine_line"]

_AT_EACH_RATE = 2.5
_WITH_BAUD = ("serial", "rfc2217")


@dataclass(frozen=True, slots=True)
class Examination:
    """What was seen on a line, and what that means."""

    url: str
    signs: Signs
    verdict: Verdict
    notes: tuple[str, ...] = ()
    """What opening it said."""


async def examine(address: str, seconds: float, progress: Progress, *, listen_only: bool = False) -> Examination:
    """Examine the target at this address. Raises UsageError, TransportOpenError."""
    parsed = parse_target(address)
    way = await open_transport(address)
    try:
        if isinstance(way, DatagramTransport):
            return await _examine_network(way, seconds, progress)
        baud = _baud(parsed)
        done = await examine_line(way, baud, seconds, progress, listen_only=listen_only, timer=_timer(parsed))
    finally:
        await way.aclose()
    unknown = done.verdict.name in ("wrong-baud", "undecided") and not done.signs.packets and done.signs.received
    if not unknown or parsed.scheme not in _WITH_BAUD:
        return done
    return await _at_other_rates(parsed, done, progress)


async def examine_line(
    way: Transport,
    baud: int | None,
    seconds: float,
    progress: Progress,
    *,
    listen_only: bool = False,
    timer: int | None = None,
) -> Examination:
    """Examine an open line. A way that is lost meanwhile is judged by what came until then."""
    overheard = Overheard(baud)
    probed = None
    try:
        await listen(way, overheard, seconds, progress)
        if not listen_only and _may_probe(way, find_signs(overheard)):
            probed = await probe(way, overheard, progress)
    except TransportError as error:
        progress(str(error))
    signs = find_signs(overheard, probed)
    connected = not isinstance(way, ListenTransport) or way.connected
    return Examination(way.url, signs, judge(signs, Circumstances(connected=connected, latency_timer=timer)), way.notes)


def _may_probe(way: Transport, signs: Signs) -> bool:
    """Whether RESET does no harm: nobody else is talked to, and no console would take it for typing."""
    if isinstance(way, ListenTransport) and not way.connected:
        return False
    if signs.strangers or signs.condition is Condition.LOADING:
        return False
    speaks = bool(signs.packets or signs.damage.good or signs.damage.damaged)
    return not signs.received or speaks


async def _examine_network(way: DatagramTransport, seconds: float, progress: Progress) -> Examination:
    overheard = Overheard()
    probed = await probe_network(way, overheard, seconds, progress)
    # Under its key nobody else can have spoken; what was sent is not in the record.
    signs = replace(find_signs(overheard, probed), received=way.received, strangers=())
    network = way.explain(overheard.seconds)
    around = Circumstances(network=network, session=network is None)
    return Examination(way.url, signs, judge(signs, around), way.notes)


async def _at_other_rates(address: TargetAddress, done: Examination, progress: Progress) -> Examination:
    own = address.baud
    named = [round(one.ratio * own) for one in done.signs.misheard if not one.inverted]
    rates = dict.fromkeys([*(rate for rate in named if rate in USUAL_RATES), *USUAL_RATES])

    async def open_at(rate: int) -> Transport:
        options = tuple(option for option in address.options if option[0] != "baud")
        return await open_transport(replace(address, options=(*options, ("baud", str(rate)))).url)

    found = await find_baud(open_at, [rate for rate in rates if rate != own], _AT_EACH_RATE, progress)
    if found is None:
        return done
    return replace(done, verdict=judge(done.signs, Circumstances(confirmed_baud=found)))


def _baud(address: TargetAddress) -> int | None:
    if address.scheme in _WITH_BAUD:
        return address.baud
    told = dict(address.options).get("baud", "")
    return int(told) if address.scheme == "sim" and told.isdigit() else None


def _timer(address: TargetAddress) -> int | None:
    return latency_timer(Path(address.place).resolve().name) if address.scheme == "serial" else None
