"""kdbridge stack: the calls that led to where processors stand."""

from __future__ import annotations

import click

from kdbridge.analysis.exports import Exports
from kdbridge.analysis.model import Stack
from kdbridge.analysis.names import Names
from kdbridge.analysis.report_json import missing_documents, part_document, stack_documents
from kdbridge.analysis.report_text import missing_lines, stack_lines
from kdbridge.analysis.shortcomings import Shortcomings
from kdbridge.analysis.stack import walk
from kdbridge.analysis.stopped import stopped_processor
from kdbridge.discovery.modules import name_reader
from kdbridge.errors import UsageError
from kdbridge.opening import OpenTarget
from kdbridge.target import Processor

from .analysing import Keeper, SymbolWish, opened_for_analysis, symbol_options
from .names_of import symbols_of
from .output import json_option, print_json, tell
from .run import record_option, run, wait_option

__all__ = ["stack_command"]


@click.command("stack", short_help="The calls that led to where a processor stands.")
@click.argument("source", metavar="TARGET|DUMP|SNAPSHOT")
@click.option("--processor", "-p", type=int, metavar="N", help="Of this processor (default: the one that stopped).")
@click.option("--all", "all_processors", is_flag=True, help="Of every processor.")
@symbol_options
@wait_option
@record_option
@json_option
def stack_command(
    source: str, processor: int | None, all_processors: bool, symbols: SymbolWish, wait: float, as_json: bool
) -> int:
    """The call stack from the registers on, innermost first. What is a guess is marked with a question mark.

    A target is only read from: for the processor that stopped, less than 64 KiB of memory where up to 600 images are
    loaded and the stack has up to 30 frames. Exit code 1: a stack is not whole, and why is told.
    """
    if processor is not None and all_processors:
        raise UsageError("--processor and --all exclude each other")
    keeper = Keeper(None)
    first_look = processor is None and not all_processors

    async def main() -> int:
        async with opened_for_analysis(source, wait, keeper, first_look=first_look) as opened:
            target, short = opened.target, Shortcomings(opened.reading)
            wanted = stopped_processor(target) if processor is None else processor
            chosen = [one for one in target.processors if all_processors or one.number == wanted]
            if not chosen:
                raise UsageError(
                    f"there is no processor {wanted}; this machine has {len(target.processors)}, from 0 on"
                )
            # Over a line, export tables would cost more than all the rest.
            exports = () if isinstance(opened.source, OpenTarget) else (Exports(opened.reading),)
            known = (*symbols_of(opened, symbols), *exports)
            names = Names(target.modules, known, target.kernel_base, name_reader(opened.reading, target))

            async def one_of(one: Processor) -> Stack | None:
                rest = f"the stack of processor {one.number}"
                if one.context is None:
                    short.add(rest, "there are no registers of it")
                    return None
                stack = await short.part(rest, walk(opened.reading, target, names, one.context, processor=one.number))
                if stack is not None and not stack.whole:
                    short.add(rest, f"it is not whole: {stack.ended}", short.refused())
                return stack

            with keeper.watched("reading stacks"):
                stacks = [stack for one in chosen if (stack := await one_of(one)) is not None]
        if as_json:
            found, missing = stack_documents(stacks), missing_documents(short.found)
            print_json(part_document(opened.name, stacks=found, missing=missing))
        else:
            for at, stack in enumerate(stacks):
                for line in (*([""] if at else []), *stack_lines(stack)):
                    tell(line)
            for line in missing_lines(short.found):
                tell(line)
        return 1 if short.found else 0

    return run(main)
