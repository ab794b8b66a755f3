"""kdbridge break, continue, reboot, crash: the verbs that touch a target. Each does what its name says, no more."""

from __future__ import annotations

import click

from protocol.state_change import ExceptionChange

from .output import json_option, print_json, tell
from .run import open_live, record_option, run, say, wait_option

__all__ = ["break_command", "continue_command", "crash_command", "reboot_command"]


@click.command("break", short_help="Stop a running machine.")
@click.argument("target")
@wait_option
@record_option
@json_option
def break_command(target: str, wait: float, as_json: bool) -> int:
    """Stop a running machine, and leave it stopped. One that is stopped already is not touched."""

    async def main() -> int:
        say("a running machine will be stopped, and stay so until `kdbridge continue`")
        async with open_live(target, wait, break_in=True) as opened:
            change = opened.session.change
            place = change.program_counter if change is not None else 0
            code = change.event.code if change is not None and isinstance(change.event, ExceptionChange) else 0
        if as_json:
            print_json({"stopped": True, "program_counter": hex(place), "exception_code": hex(code)})
        else:
            tell(f"stopped at {place:#x}")
        return 0

    return run(main)


@click.command("continue", short_help="Let a stopped machine go on.")
@click.argument("target")
@wait_option
@record_option
@json_option
def continue_command(target: str, wait: float, as_json: bool) -> int:
    """Let a stopped machine go on. If it stands on an int3, it is moved past it first, as WinDbg does.

    Exit code 1: it stopped again at once, as it does for ever at the end of a bug check.
    """

    async def main() -> int:
        say("the machine will go on")
        async with open_live(target, wait) as opened:
            again = await opened.session.resume()
        if as_json:
            print_json({"continued": True, "stopped_again": again})
        elif again:
            tell("it went on, and stopped again at once: the last break of a bug check does that for ever")
        else:
            tell("it runs")
        return 1 if again else 0

    return run(main)


@click.command("reboot", short_help="Restart a stopped machine.")
@click.argument("target")
@wait_option
@record_option
@json_option
def reboot_command(target: str, wait: float, as_json: bool) -> int:
    """Restart a stopped machine through its firmware. What it held in memory is gone afterwards."""

    async def main() -> int:
        say("the machine will restart; its memory will be lost")
        async with open_live(target, wait) as opened:
            acknowledged = await opened.session.reboot()
        return _told("reboot", acknowledged, as_json)

    return run(main)


@click.command("crash", short_help="Make a stopped machine bug check, with E2.")
@click.argument("target")
@wait_option
@record_option
@json_option
def crash_command(target: str, wait: float, as_json: bool) -> int:
    """Make a stopped machine bug check (E2, MANUALLY_INITIATED_CRASH): it writes its own dump to its own disk."""

    async def main() -> int:
        say("the machine will crash with bug check E2, and write its own dump if it is set up to")
        async with open_live(target, wait) as opened:
            acknowledged = await opened.session.crash()
        return _told("crash", acknowledged, as_json)

    return run(main)


def _told(what: str, acknowledged: bool, as_json: bool) -> int:
    if as_json:
        print_json({what: True, "acknowledged": acknowledged})
    elif acknowledged:
        tell(f"{what}: acknowledged")
    else:
        tell(f"{what}: sent; the machine did not acknowledge it, and may have done it all the same")
    return 0 if acknowledged else 1
