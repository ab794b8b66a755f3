"""kdbridge info: who is it, and why did it stop?"""

from __future__ import annotations

import click

from .output import json_option, print_json, target_document, tell
from .run import known, open_source, record_option, run, wait_option
from .words import target_lines

__all__ = ["info_command"]


@click.command("info", short_help="Who is it, and why did it stop?")
@click.argument("source", metavar="TARGET|DUMP|SNAPSHOT")
@wait_option
@record_option
@json_option
def info_command(source: str, wait: float, as_json: bool) -> int:
    """Who is it, why did it stop, and what could not be found out.

    A target is only read from. Exit code 1: something could not be found out, and is named.
    """

    async def main() -> int:
        async with open_source(source, wait) as opened:
            target = await known(opened)
        if as_json:
            print_json(target_document(target))
        else:
            for line in target_lines(target):
                tell(line)
        return 1 if target.shortcomings else 0

    return run(main)
