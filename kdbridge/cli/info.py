"""kdbridge info: who is it, and why did it stop?"""

from __future__ import annotations

import click

from .output import json_option, print_json, target_document
from .run import known, open_source, run, wait_option
from .words import target_lines

__all__ = ["info_command"]


@click.command("info")
@click.argument("source")
@wait_option
@json_option
def info_command(source: str, wait: float, as_json: bool) -> int:
    """Who is it, why did it stop, and what could not be found out.

    SOURCE is a target, a dump file or a Snapshot folder. A target is only read from.
    """

    async def main() -> int:
        async with open_source(source, wait) as opened:
            target = await known(opened)
        if as_json:
            print_json(target_document(target))
        else:
            for line in target_lines(target):
                click.echo(line)
        return 1 if target.shortcomings else 0

    return run(main)
