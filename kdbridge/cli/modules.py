"""kdbridge modules: what is loaded, of which version, and whose it is."""

from __future__ import annotations

import click

from kdbridge.analysis.images import image_facts
from kdbridge.analysis.names import Names
from kdbridge.analysis.report_json import image_documents, missing_documents, part_document, unloaded_documents
from kdbridge.analysis.report_text import image_lines, missing_lines, unloaded_lines
from kdbridge.analysis.shortcomings import Shortcomings

from .analysing import Keeper, opened_for_analysis
from .output import json_option, print_json, tell
from .run import record_option, run, wait_option

__all__ = ["modules_command"]


@click.command("modules", short_help="Loaded and unloaded images, their versions, and whose they are.")
@click.argument("source", metavar="TARGET|DUMP|SNAPSHOT")
@wait_option
@record_option
@json_option
def modules_command(source: str, wait: float, as_json: bool) -> int:
    """Loaded and unloaded images, with what their headers and version resources say, as far as those are there.

    A target is only read from. Exit code 1: something could not be determined, and is named.
    """
    keeper = Keeper(None)

    async def main() -> int:
        async with opened_for_analysis(source, wait, keeper) as opened:
            target, short = opened.target, Shortcomings(opened.reading)
            for finding in target.shortcomings:
                if "modules" in finding.step:
                    short.add(finding.step, finding.text)
            with keeper.watched("reading images' headers"):
                names = Names(target.modules, (), opened.target.kernel_base)
                work = image_facts(opened.reading, target, names)
                images, missing = await short.part("versions of modules", work) or ((), ())
                short.extend(missing)
        if as_json:
            modules, gone = image_documents(images), unloaded_documents(target.unloaded_modules)
            lacks = missing_documents(short.found)
            print_json(part_document(opened.name, modules=modules, unloaded_modules=gone, missing=lacks))
        else:
            tell(f"modules ({len(images)})")
            for line in (*image_lines(images), *unloaded_lines(target.unloaded_modules), *missing_lines(short.found)):
                tell(line)
        return 1 if short.found else 0

    return run(main)
