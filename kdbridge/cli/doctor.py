"""kdbridge doctor: what is wrong with the line, or that nothing is."""

from __future__ import annotations

import click

from kdbridge.doctor.damage import Damage
from kdbridge.doctor.examine import Examination, examine
from kdbridge.doctor.signs import Condition, Signs
from kdbridge.errors import UsageError
from kdbridge.transports import masked, parse_target

from .output import json_option, print_json, tell
from .run import run, say

__all__ = ["doctor_command"]

_SECONDS = 10.0


@click.command("doctor", short_help="What is wrong with the line, and how to cure it.")
@click.argument("target", metavar="TARGET")
@click.option("--seconds", default=_SECONDS, metavar="SECONDS", help=f"How long to listen (default: {_SECONDS:g}).")
@click.option("--listen-only", is_flag=True, help="Send nothing at all.")
@json_option
def doctor_command(target: str, seconds: float, listen_only: bool, as_json: bool) -> int:
    """What is wrong with the line to a target: one verdict, with evidence, cause and cure.

    It listens first, without sending. Then it asks gently: RESET, which a machine that runs does not notice, and of
    one that is stopped its version. It never stops, continues or writes to a machine. A serial port is listened to
    at other speeds where what comes makes no sense.

    Exit codes: 0 the line is well, 1 something is wrong and is named, 3 nobody is there.
    """
    if not seconds > 0:
        raise UsageError(f"--seconds {seconds:g}: nothing can come in that time")
    network = parse_target(target).scheme == "net"
    if listen_only and network:
        raise UsageError("--listen-only: a target on a network says nothing more until it is answered")
    manner = "; a target that calls is answered" if network else ", without sending"
    say(f"listening on {masked(target)} for {seconds:g} seconds{manner}")

    async def main() -> int:
        examination = await examine(target, seconds, lambda text: say(f"  {text}"), listen_only=listen_only)
        if as_json:
            print_json(_document(examination))
        else:
            for line in _lines(examination):
                tell(line)
        return examination.verdict.exit_code

    return run(main)


def _lines(examination: Examination) -> list[str]:
    signs, verdict = examination.signs, examination.verdict
    lines = [*examination.notes, *_saw(signs)]
    lines.append(f"verdict: {verdict.name}: {verdict.title}")
    lines += [f"  evidence: {text}" for text in verdict.evidence]
    lines.append(f"  cause: {verdict.cause}")
    lines.append(f"  cure: {verdict.cure}")
    sure = f"{min(99, round(100 * verdict.confidence))} %" if verdict.confidence else "none; each of these is possible"
    lines.append(f"  confidence: {sure}")
    return lines


def _saw(signs: Signs) -> list[str]:
    """What came, in two or three lines."""
    packets = ", ".join(f"{count} {kind}" for kind, count in sorted(signs.packets.items()))
    lines = [f"received: {signs.received} bytes in {signs.seconds:.0f} seconds; whole packets: {packets or 'none'}"]
    damage = signs.damage
    if damage.damaged or damage.broken:
        lines.append(f"damaged: {damage.damaged} packets, and {damage.broken} without a header that makes sense")
    probed = signs.probed
    if signs.sent:
        asked = f"; {probed.answered} of {probed.asked} questions answered" if probed.asked else ""
        lines.append(f"sent: {signs.sent} bytes: {probed.resets} RESETs{asked}")
    if signs.condition is not Condition.UNKNOWN:
        lines.append(f"the target: {signs.condition.value}")
    return lines


def _document(examination: Examination) -> dict[str, object]:
    signs, verdict = examination.signs, examination.verdict
    late = signs.probed.turnarounds
    return {
        "target": examination.url,
        "notes": list(examination.notes),
        "seconds": round(signs.seconds, 3),
        "received": signs.received,
        "sent": signs.sent,
        "packets": dict(sorted(signs.packets.items())),
        "damage": _damage(signs.damage),
        "condition": signs.condition.name.lower(),
        "turnarounds": [round(seconds, 6) for seconds in late],
        "verdict": {
            "name": verdict.name,
            "title": verdict.title,
            "evidence": list(verdict.evidence),
            "cause": verdict.cause,
            "cure": verdict.cure,
            "confidence": verdict.confidence,
            "possible": list(verdict.possible),
        },
    }


def _damage(damage: Damage) -> dict[str, object]:
    return {
        "good": damage.good,
        "damaged": damage.damaged,
        "headless": damage.broken,
        "pattern": damage.pattern.name.lower() if damage.pattern else None,
        "bit_error_rate": damage.bit_error_rate,
    }
