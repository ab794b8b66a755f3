"""kdbridge processes: what ran."""

from __future__ import annotations

from dataclasses import replace

import click

from kdbridge.analysis.exports import Exports
from kdbridge.analysis.model import ProcessFact
from kdbridge.analysis.names import Names
from kdbridge.analysis.processes import process_facts
from kdbridge.analysis.report_json import missing_documents, part_document, process_documents
from kdbridge.analysis.report_text import missing_lines, process_lines
from kdbridge.analysis.shortcomings import Shortcomings
from kdbridge.analysis.threads import thread_facts

from .analysing import Keeper, Opened, SymbolWish, opened_for_analysis, symbol_options
from .names_of import symbols_of
from .output import json_option, print_json, tell
from .run import record_option, run, wait_option

__all__ = ["processes_command"]


@click.command("processes", short_help="Processes, and their threads if asked for.")
@click.argument("source", metavar="TARGET|DUMP|SNAPSHOT")
@click.option("--threads", is_flag=True, help="With the threads of each, and where they stand.")
@symbol_options
@wait_option
@record_option
@json_option
def processes_command(source: str, threads: bool, symbols: SymbolWish, wait: float, as_json: bool) -> int:
    """Processes: id, parent, name, page tables, and which processor was running a thread of it.

    A target is only read from. Exit code 1: something could not be determined, and is named.
    """
    keeper = Keeper(None)

    async def main() -> int:
        async with opened_for_analysis(source, wait, keeper) as opened:
            short = Shortcomings(opened.reading)
            known, target = symbols_of(opened, symbols), opened.target
            with keeper.watched("reading processes"):
                names = Names(target.modules, (*known, Exports(opened.reading)), target.kernel_base)
                found = await short.part("processes", process_facts(opened.reading, target, names=names))
                processes, missing = found if found is not None else ((), ())
                short.extend(missing)
                if threads:
                    processes = tuple([await _with_threads(one, opened, names, short) for one in processes])
        if as_json:
            facts, lacks = process_documents(processes), missing_documents(short.found)
            print_json(part_document(opened.name, processes=facts, missing=lacks))
        else:
            for line in (*process_lines(processes), *missing_lines(short.found)):
                tell(line)
        return 1 if short.found else 0

    return run(main)


async def _with_threads(process: ProcessFact, opened: Opened, names: Names, short: Shortcomings) -> ProcessFact:
    work = thread_facts(opened.reading, opened.target, process, names, stacks=True)
    threads, missing = await short.part(f"threads of process {process.process_id}", work) or ((), ())
    short.extend(missing)
    return replace(process, threads=threads)
