"""kdbridge analyze: why did it stop?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import click

from kdbridge.analysis.analyst import Analyst
from kdbridge.analysis.model import Analysis
from kdbridge.analysis.report_html import html_page
from kdbridge.analysis.report_json import analysis_document
from kdbridge.analysis.report_text import first_lines, missing_lines, parameter_lines, rest_lines, stack_lines
from kdbridge.analysis.report_words import GUESSES, parameter_words
from kdbridge.dump.whole import whole_file
from kdbridge.opening import OpenTarget
from protocol.errors import KdError

from .analysing import Keeper, SymbolWish, check_folder, opened_for_analysis, symbol_options
from .asked import check_place
from .names_of import symbols_of
from .output import json_option, print_json, tell
from .run import Interrupted, record_option, run, say, wait_option

__all__ = ["analyze_command"]


@click.command("analyze", short_help="Why did it stop, and which driver to look at first?")
@click.argument("source", metavar="TARGET|DUMP|SNAPSHOT")
@click.option("--brief", is_flag=True, help="The first screen only (a page has everything all the same).")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page for a browser, too.")
@click.option("--force", is_flag=True, help="Overwrite the page if it is there.")
@click.option(
    "--snapshot", type=click.Path(path_type=Path), metavar="DIR",
    help="Keep what is read of a target in this new folder, for later looks without the target.",
)  # fmt: skip
@symbol_options
@wait_option
@record_option
@json_option
def analyze_command(
    source: str,
    brief: bool,
    html: Path | None,
    force: bool,
    snapshot: Path | None,
    symbols: SymbolWish,
    wait: float,
    as_json: bool,
) -> int:
    """Why did it stop: bug check, crash context, stacks, the driver to look at first, and all that bears on it.

    A target is only read from, nothing of it twice. Exit code 1: something could not be determined, and is named.
    """
    check_folder(source, snapshot)
    if html is not None:
        check_place(html, force, Path(source))
    keeper = Keeper(snapshot)

    async def main() -> int:
        async with opened_for_analysis(source, wait, keeper, first_look=True) as opened:
            known = symbols_of(opened, symbols)
            analyst = Analyst(opened.reading, opened.target, symbols=known, console=opened.console)
            with keeper.watched("reading what the crash left"):
                analysis = await analyst.first()
            # Who waits for a line wants to know at once; a file is read so fast that names may come first.
            early = None if as_json or (not brief and not isinstance(opened.source, OpenTarget)) else analysis
            if early is not None:
                _tell_all(first_lines(early))
            shown = analysis
            if brief and snapshot is not None:
                with keeper.watched("reading the names of modules"):
                    await opened.know_modules()
            if not brief or html is not None:
                with keeper.watched("reading the rest"):
                    await opened.know_all()
                    analyst.know(opened.target)
                    analysis = await analyst.all()
            # A target's address may hold a key, and reports travel.
            analysis, shown = (replace(one, source=opened.name) for one in (analysis, shown))
        if as_json:
            print_json(analysis_document(shown if brief else analysis))
        elif brief:
            _tell_all(missing_lines(shown.missing))
        else:
            _tell_all(_renamed(early, analysis) if early is not None else first_lines(analysis))
            _tell_all(rest_lines(analysis))
        if html is not None:
            _write(html, analysis)
        if snapshot is not None:
            say(keeper.kept_words())
        return 1 if (shown if brief else analysis).missing else 0

    try:
        return run(main)
    except Interrupted:
        raise Interrupted(keeper.kept_words()) from None
    except KdError:
        if kept := keeper.kept_words():
            say(kept)
        raise


def _renamed(early: Analysis, analysis: Analysis) -> Iterator[str]:
    """What the first screen could not name yet and is known now: what parameters point to, and the stack."""
    told = early.bug_check.parameters if early.bug_check is not None else ()
    known = analysis.bug_check.parameters if analysis.bug_check is not None else ()
    better = [one for was, one in zip(told, known, strict=True) if parameter_words(one) != parameter_words(was)]
    if better:
        yield ""
        yield "parameters, with what they point to"
        yield from parameter_lines(better)
    if analysis.stack is not None and analysis.stack != early.stack:
        yield ""
        yield from stack_lines(analysis.stack, "with the names that images export", GUESSES)


def _tell_all(lines: Iterable[str]) -> None:
    for line in lines:
        tell(line)


def _write(path: Path, analysis: Analysis) -> None:
    page = html_page(analysis).encode("utf-8", "backslashreplace")
    with whole_file(path, len(page)) as file:
        file.write(page)
    say(f"page written to {path}")
