"""kdbridge triage-name: one stable name for the kind of crash, for programs that sort dumps."""

from __future__ import annotations

import click

from kdbridge.analysis.analyst import Analyst
from kdbridge.analysis.bucket import doubt_of
from kdbridge.analysis.report_json import missing_documents, part_document

from .analysing import Keeper, opened_for_analysis
from .output import json_option, print_json, tell
from .run import record_option, run, say, wait_option

__all__ = ["triage_name_command"]


@click.command("triage-name", short_help="A stable name for the kind of crash, for automation.")
@click.argument("source", metavar="TARGET|DUMP|SNAPSHOT")
@wait_option
@record_option
@json_option
def triage_name_command(source: str, wait: float, as_json: bool) -> int:
    """Bug check, module and offset as one word: the same for two crashes of one kind, with or without symbols.

    A target is only read from. Exit code 1: it may not be the name that the whole machine would have.
    """
    keeper = Keeper(None)

    async def main() -> int:
        async with opened_for_analysis(source, wait, keeper, first_look=True) as opened:
            with keeper.watched("reading what the crash left"):
                analysis = await Analyst(opened.reading, opened.target).first()
        if as_json:
            print_json(part_document(opened.name, bucket=analysis.bucket, missing=missing_documents(analysis.missing)))
        else:
            tell(analysis.bucket)
        doubt = doubt_of(analysis)
        if doubt:
            say(f"{analysis.bucket} may not be the name that the whole machine would have: {doubt}")
        return 1 if doubt else 0

    return run(main)
