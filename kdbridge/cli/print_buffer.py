"""kdbridge print-buffer: what the kernel and its drivers printed for a debugger, whether one listened or not."""

from __future__ import annotations

import click

from kdbridge.analysis.print_buffer import print_buffer
from kdbridge.analysis.report_json import missing_documents, part_document
from kdbridge.analysis.report_text import missing_lines, print_lines
from kdbridge.analysis.shortcomings import Shortcomings

from .analysing import Keeper, opened_for_analysis
from .output import json_option, print_json, tell
from .run import record_option, run, wait_option

__all__ = ["print_buffer_command"]


@click.command("print-buffer", short_help="What the kernel and its drivers printed (DbgPrint).")
@click.argument("source", metavar="TARGET|DUMP|SNAPSHOT")
@wait_option
@record_option
@json_option
def print_buffer_command(source: str, wait: float, as_json: bool) -> int:
    """The kernel's own buffer of debug prints, the oldest first: what was printed before anybody listened, too.

    A target is only read from. Exit code 1: the buffer cannot be read.
    """
    keeper = Keeper(None)

    async def main() -> int:
        async with opened_for_analysis(source, wait, keeper) as opened:
            short = Shortcomings(opened.reading)
            with keeper.watched("reading the print buffer"):
                found = await short.part("the kernel's print buffer", print_buffer(opened.reading, opened.target))
                text, missing = found if found is not None else (None, ())
                short.extend(missing)
        if as_json:
            print_json(part_document(opened.name, print_buffer=text, missing=missing_documents(short.found)))
        else:
            for line in print_lines(text) if text else ():
                tell(line)
            for line in list(missing_lines(short.found))[0 if text else 1 :]:
                tell(line)
        return 1 if short.found else 0

    return run(main)
