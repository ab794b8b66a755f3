"""python -m tests.docs.refresh [PAGE ...]: run what the pages show, and write down what is printed now.

What a page shows and still holds stays as it is, each … included. Where a shown output has one line …, what stands
above and below it keeps its length. Look at the difference before you believe it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.docs.pages import Page, all_pages, parse
from tests.docs.props import make_props
from tests.docs.runner import Runner
from tests.docs.stage import ENVIRONMENT, Outcome, Stage, agree
from tests.house.tree import ROOT

__all__ = ["main", "refreshed"]


def refreshed(shown: tuple[str, ...], printed: tuple[str, ...]) -> list[str] | None:
    """What a page should show instead; None where a person must decide."""
    gaps = [at for at, line in enumerate(shown) if line.strip() == "…"]
    if len(gaps) > 1:
        return None
    if not gaps:
        return _kept(shown, printed) if len(shown) == len(printed) else list(printed)
    above, below = shown[: gaps[0]], shown[gaps[0] + 1 :]
    if len(printed) < len(above) + len(below):
        return list(printed)
    tail = printed[len(printed) - len(below) :]
    return [*_kept(above, printed[: len(above)]), shown[gaps[0]], *_kept(below, tail)]


def _kept(shown: tuple[str, ...], printed: tuple[str, ...]) -> list[str]:
    return [old if agree([old], [new]) else new for old, new in zip(shown, printed, strict=True)]


def _rewrite(page: Page, outcomes: list[Outcome]) -> None:
    changed = False
    for outcome in reversed(outcomes):
        command = outcome.command
        if agree(command.shown, outcome.printed):
            continue
        new = refreshed(command.shown, outcome.printed)
        where = f"{page.name}:{command.line + 1}: $ {command.text}"
        if new is None:
            print(f"{where}: more than one …; it printed:", *outcome.printed, sep="\n    ")  # noqa: T201
            continue
        print(where)  # noqa: T201
        page.lines[command.line + 1 : command.line + 1 + len(command.shown)] = new
        changed = True
    if changed:
        page.path.write_text("\n".join(page.lines) + "\n", encoding="utf-8")


def main(names: list[str]) -> None:
    """Refresh these pages, or all."""
    pages = [parse(Path(name).resolve()) for name in names] if names else all_pages()
    with tempfile.TemporaryDirectory() as name, Runner(ENVIRONMENT) as runner:
        props = Path(name, "props")
        props.mkdir()
        make_props(props)
        for number, page in enumerate(pages):
            if page.commands:
                with Stage(Path(name, str(number)), props, runner) as stage:
                    _rewrite(page, list(stage.play(page)))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1:])
