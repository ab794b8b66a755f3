"""Every command that the documentation shows does what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import Command, Page, all_pages, parse
from tests.docs.refresh import refreshed
from tests.docs.runner import Runner
from tests.docs.stage import Stage, agree, difference

_PAGES = {page.name: page for page in all_pages()}
_MOST_UNRUN = 8
"""Fences that show what cannot be run here. Only ever lowered, or raised with a reason that a reader would accept."""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name, page in _PAGES.items() if page.commands])
def test_a_page_shows_what_happens(name: str, tmp_path: Path, props: Path, runner: Runner) -> None:
    page = _PAGES[name]
    wrong: list[str] = []
    with Stage(tmp_path, props, None if name == "README.md" else runner) as stage:
        for outcome in stage.play(page):
            command = outcome.command
            where = f"{name}:{command.line + 1}: $ {command.text}"
            if not agree(command.shown, outcome.printed):
                wrong.append(f"{where}\n{difference(command.shown, outcome.printed)}")
            if outcome.code and not _asks_for_code(page, command):
                wrong.append(f"{where}\nended with exit code {outcome.code}, and the page does not say so: $ echo $?")
    assert not wrong, "\n\n".join([*wrong, f"right? python -m tests.docs.refresh {name}"])


def _asks_for_code(page: Page, command: Command) -> bool:
    following = page.commands[page.commands.index(command) + 1 :]
    return command.text == "echo $?" or (bool(following) and following[0].text == "echo $?")


def test_what_is_not_run_says_why() -> None:
    unexplained = [f"{page.name}:{block.line}" for page in _PAGES.values() for block in page.unexplained]
    assert unexplained == [], "run it (a console block), or say why not: <!-- not run: REASON -->"
    unrun = [f"{page.name}:{one.block.line}: {one.reason}" for page in _PAGES.values() for one in page.unrun]
    assert len(unrun) <= _MOST_UNRUN, "\n".join(unrun)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (["a", "b"], ["a", "b"], True),
        (["a", "b"], ["a", "c"], False),
        (["a"], ["a", "b"], False),
        (["a", "…", "z"], ["a", "z"], True),
        (["a", "…", "z"], ["a", "m", "n", "z"], True),
        (["a", "…", "z"], ["a", "m", "n", "y"], False),
        (["took … s"], ["took 3.1 s"], True),
        (["took … s"], ["took 3.1 min"], False),
        (["1+1 (sum)"], ["1+1 (sum)"], True),
        ([], [""], True),
        ([], ["a"], False),
        (["read 5 pages"], ["memory: 14.0 MiB of 15.6 MiB (90 %), 2.7 MiB/s, 1 s left", "read 5 pages"], True),
        (["read 5 pages"], ["read 5 pages, 1 s left"], False),
    ],
)
def test_a_page_may_leave_out_only_what_it_marks(shown: list[str], printed: list[str], same: bool) -> None:
    assert agree(shown, printed) is same


def test_a_page_that_lies_is_found(tmp_path: Path) -> None:
    path = tmp_path / "lie.md"
    path.write_text("```console\n$ echo two\nthree\n$ (exit 7)\n$ echo $?\n7\n```\n")
    page = parse(path)
    with Stage(tmp_path / "stage", tmp_path) as stage:
        first, second, third = stage.play(page)
    assert first.printed == ("two",) and not agree(first.command.shown, first.printed)
    assert (second.code, third.printed) == (7, ("7",))
    assert not _asks_for_code(page, first.command) and _asks_for_code(page, second.command)


def test_a_command_outside_a_console_block_needs_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("```text\n$ windbg -z x\n```\n<!-- not run: needs Windows -->\n```text\n> windbg -z x\n```\n")
    page = parse(path)
    assert [block.line for block in page.unexplained] == [1]
    assert [one.reason for one in page.unrun] == ["needs Windows"]


@pytest.mark.parametrize(
    ("shown", "printed", "wanted"),
    [
        (("took … s", "old"), ("took 3 s", "new"), ["took … s", "new"]),
        (("old",), ("new", "newer"), ["new", "newer"]),
        (("a", "…", "old"), ("a", "m", "n", "new"), ["a", "…", "new"]),
        (("a", "…", "b", "…"), ("c",), None),
    ],
)
def test_a_refreshed_page_keeps_what_it_left_out(
    shown: tuple[str, ...], printed: tuple[str, ...], wanted: list[str] | None
) -> None:
    assert refreshed(shown, printed) == wanted


def test_a_forked_program_is_the_program(tmp_path: Path, runner: Runner) -> None:
    path = tmp_path / "page.md"
    path.write_text("```console\n$ kdbridge info nothing.dmp\n$ echo $?\n```\n")
    page = parse(path)
    seen = []
    for number, forks in enumerate((runner, None)):
        with Stage(tmp_path / str(number), tmp_path, forks) as stage:
            seen.append([(outcome.printed, outcome.code) for outcome in stage.play(page)])
    assert seen[0] == seen[1]
    assert seen[0][1] == (("5",), 0)
