"""The documentation as a test sees it: which pages there are, and what each shows that can be run.

In a page, a fence of the language `console` shows commands, each on a line that begins with "$ ", and what each
printed; ^C stands where the user interrupts it. All of them are run. A fence of any other language shows something
that cannot be run here; where it holds commands, a comment before it says why: <!-- not run: REASON -->.
More comments prepare the stage:

<!-- test: serve SCENARIO [OPTIONS] at PLACE -->    a simulated machine at one of stage.PLACES
<!-- test: have server.dmp ... -->                  files that an earlier page made; see props.py
<!-- test: file NAME -->                            what the next fence holds, as a file
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.house.tree import ROOT

__all__ = ["Block", "Command", "File", "Have", "Page", "Serve", "Unrun", "all_pages", "parse"]

_FENCE = re.compile(r"^```(\w*)$")
_SERVE = re.compile(r"^<!-- test: serve (.+) at (\S+) -->$")
_HAVE = re.compile(r"^<!-- test: have (.+) -->$")
_FILE = re.compile(r"^<!-- test: file (\S+) -->$")
_NOT_RUN = re.compile(r"^<!-- not run: (.+) -->$")
_COMMAND = re.compile(r"^(\$|>|PS>|C:\\>|0: kd>) ")


@dataclass(frozen=True)
class Serve:
    """A simulated machine is to be at a place before the next command."""

    what: str
    place: str


@dataclass(frozen=True)
class Have:
    """Files are to be in the folder before the next command."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class File:
    """A file is to be in the folder before the next command."""

    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """A command and what the page says that it prints; both by line number from 0."""

    text: str
    line: int
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """A fence that is not run."""

    language: str
    line: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Unrun:
    """A fence with commands that cannot be run here, and why."""

    block: Block
    reason: str


@dataclass
class Page:
    """One file of documentation."""

    path: Path
    lines: list[str]
    steps: list[Serve | Have | File | Command] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    unrun: list[Unrun] = field(default_factory=list)
    unexplained: list[Block] = field(default_factory=list)
    """Fences with commands that are neither run nor excused."""

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def commands(self) -> list[Command]:
        return [step for step in self.steps if isinstance(step, Command)]

    @property
    def prose(self) -> str:
        """All but what stands in fences."""
        kept: list[str] = []
        inside = False
        for line in self.lines:
            if _FENCE.match(line):
                inside = not inside
            elif not inside:
                kept.append(line)
        return "\n".join(kept)


def parse(path: Path) -> Page:
    page = Page(path, path.read_text(encoding="utf-8").splitlines())
    reason: str | None = None
    file: str | None = None
    at = 0
    while at < len(page.lines):
        line = page.lines[at]
        if found := _SERVE.match(line):
            page.steps.append(Serve(*found.groups()))
        elif found := _HAVE.match(line):
            page.steps.append(Have(tuple(found[1].split())))
        elif found := _FILE.match(line):
            file = found[1]
        elif found := _NOT_RUN.match(line):
            reason = found[1]
        elif found := _FENCE.match(line):
            end = page.lines.index("```", at + 1)
            body = tuple(page.lines[at + 1 : end])
            if found[1] == "console":
                page.steps.extend(_commands(body, at + 1))
            else:
                block = Block(found[1], at + 1, body)
                page.blocks.append(block)
                if any(_COMMAND.match(text) for text in body):
                    if reason is None:
                        page.unexplained.append(block)
                    else:
                        page.unrun.append(Unrun(block, reason))
            if file is not None:
                page.steps.append(File(file, body))
            reason = file = None
            at = end
        at += 1
    return page


def _commands(body: tuple[str, ...], first: int) -> Iterator[Command]:
    starts = [at for at, line in enumerate(body) if line.startswith("$ ")]
    assert starts[:1] == [0], f"line {first}: a console block begins with a command"
    for start, end in zip(starts, [*starts[1:], len(body)], strict=True):
        yield Command(body[start][2:], first + start, body[start + 1 : end])


def all_pages() -> list[Page]:
    """README.md and everything under docs/."""
    return [parse(path) for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]]
