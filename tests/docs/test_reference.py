"""The documentation leaves nothing out and names nothing that is not there: verbs, options, schemes, errors, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import kdbridge
import kdbridge.errors
import protocol.errors
from kdbridge.cli.main import VERBS, commands
from kdbridge.transports.address import SCHEMES
from simulator.scenarios import SCENARIOS
from tests.docs.messages import raised, texts
from tests.docs.pages import Page, all_pages
from tests.house.tree import ROOT

_PAGES = {page.name: page for page in all_pages()}
_TROUBLE = _PAGES["docs/troubleshooting.md"]
_NETWORK = _PAGES["docs/transports/net.md"]
_INLINE = re.compile(r"`(kdbridge [^`]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")

_NOT_QUOTED = {
    "… has no place in target.json": "a mistake in this program",
    "the last level is always a leaf": "a mistake in this program",
    "…: …": "said in parts, and the parts are quoted",
    **dict.fromkeys(
        ("image", "UNWIND_INFO", "exception directory", "IMAGE_DOS_HEADER", "IMAGE_NT_HEADERS64", "resource directory"),
        "the name of a structure, of a LayoutError that a part of the analysis tells as a shortcoming",
    ),
    "…: … (…)": "said in parts",
    "…: ……": "said in parts",
    "…: … is …; …": "said in parts",
}
"""Texts of errors that need not be quoted, and why."""


def _quoted(prose: str = _TROUBLE.prose) -> list[str]:
    """The errors that troubleshooting.md quotes: what stands first in each entry of its lists."""
    return [double or single for double, single in re.findall(r"^\* (?:``(.+?)``|`([^`]+)`)", prose, re.MULTILINE)]


def _waiting() -> list[str]:
    """The messages that net.md explains."""
    return _quoted(_NETWORK.prose.partition("## While it waits")[2].partition("\n## ")[0])


def _command(name: str) -> click.Command:
    assert isinstance(commands, click.Group)
    command = commands.get_command(click.Context(commands), name)
    assert command is not None
    return command


# ---- verbs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_its_page_with_its_help(verb: str) -> None:
    page = _PAGES[f"docs/verbs/{verb}.md"]
    assert page.lines[0] == f"# kdbridge {verb}"
    assert f"kdbridge {verb} --help" in [command.text for command in page.commands]
    assert any(command.text.split()[:2] == ["kdbridge", verb] for other in _PAGES.values() for command in other.commands
               if "--help" not in command.text) or verb == "ports", "shown at work"  # fmt: skip
    assert f"(docs/verbs/{verb}.md)" in _PAGES["README.md"].prose


def test_no_page_is_of_a_verb_that_is_not_there() -> None:
    assert {Path(name).stem for name in _PAGES if name.startswith("docs/verbs/")} == set(VERBS)


def _lines_shown() -> Iterator[tuple[str, str]]:
    for page in _PAGES.values():
        for command in page.commands:
            yield f"{page.name}:{command.line + 1}", command.text
        for block in page.blocks:
            where = f"{page.name}:{block.line}"
            yield from ((where, line[2:]) for line in block.lines if line.startswith("$ kdbridge"))
        for text in _INLINE.findall(page.prose):
            yield page.name, text


def test_verbs_and_options_that_are_shown_exist() -> None:
    wrong: list[str] = []
    for place, text in _lines_shown():
        if not text.startswith("kdbridge "):
            continue
        verb = text.split()[1]
        if verb.startswith("-") or not verb.isalpha() or verb.isupper():
            continue
        if verb not in VERBS:
            wrong.append(f"{place}: there is no verb {verb}: {text}")
            continue
        known = {name for parameter in _command(verb).params for name in parameter.opts} | {"--help", "-h"}
        options = re.findall(r"(?<=\s)--?[a-z][a-z-]*", text)
        wrong += [f"{place}: {verb} has no option {option}" for option in options if option not in known]
    assert wrong == []


def test_make_targets_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {target for page in _PAGES.values() for target in re.findall(r"`make ([a-z-]+)`", page.prose)}
    assert {"demo", "test"} <= named
    assert [target for target in sorted(named) if f"\n{target}:" not in makefile] == []


# ---- targets, scenarios, the library ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_has_its_page(scheme: str) -> None:
    page = _PAGES[f"docs/transports/{scheme.removesuffix('-listen')}.md"]
    assert f"{scheme}:" in page.lines[0]
    assert f"    {scheme}:" in "\n".join(page.lines), "shown as it is written"
    assert f"`{scheme}:`" in _PAGES["README.md"].prose


def test_every_scenario_is_told_in_its_own_words() -> None:
    prose = _PAGES["docs/simulator.md"].prose.partition("## A bad line")[0]
    told = dict(re.findall(r"^\| `([a-z0-9-]+)` \| ([^|]+) \|", prose, re.MULTILINE))
    assert told == {scenario.name: scenario.text for scenario in SCENARIOS.values()}


def test_the_script_of_the_library_has_fifteen_lines() -> None:
    (script,) = [block for block in _PAGES["docs/library.md"].blocks if block.language == "python"]
    lines = [line for line in script.lines if line.strip()]
    assert len(lines) <= 15
    wanted = (".context(", ".virtual.read(", ".discover(", ".snapshot(", "render(")
    assert [call for call in wanted if not any(call in line for line in lines)] == []


def test_every_name_of_the_library_is_told() -> None:
    prose = "\n".join(_PAGES["docs/library.md"].lines)
    assert [name for name in kdbridge.__all__ if not re.search(rf"\b{name}\b", prose)] == []


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_every_error_is_in_troubleshooting() -> None:
    names = [*kdbridge.errors.__all__, *protocol.errors.__all__]
    assert [name for name in names if not re.search(rf"\b{name}\b", _TROUBLE.prose)] == []


@pytest.mark.parametrize("quoted", [*_quoted(), *_waiting()])
def test_a_quoted_error_is_what_the_program_says(quoted: str) -> None:
    assert any(quoted in text for text in texts()), "no text in the sources is like this"


def test_everything_that_a_user_can_be_told_is_quoted() -> None:
    quoted = _quoted()
    missing = [
        f"{one.place}: {one.error}: {one.text}"
        for one in raised("kdbridge")
        if one.text not in _NOT_QUOTED and not any(text in one.text for text in quoted)
    ]
    assert not missing, "\n".join(["quote these in docs/troubleshooting.md, with cause and cure:", *missing])


# ---- pages -----------------------------------------------------------------------------------------------------------


def _anchors(page: Page) -> set[str]:
    headings = [line.lstrip("#").strip().lower() for line in page.lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", _PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = _PAGES[name]
    broken: list[str] = []
    for link in _LINK.findall(page.prose):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        path = (page.path.parent / file).resolve() if file else page.path
        relative = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
        if not path.exists() or (anchor and anchor not in _anchors(_PAGES[relative])):
            broken.append(link)
    assert broken == []


def test_every_page_can_be_reached_from_the_index() -> None:
    reached: set[str] = set()
    waiting = ["docs/README.md"]
    while waiting:
        name = waiting.pop()
        if name in reached or name not in _PAGES:
            continue
        reached.add(name)
        page = _PAGES[name]
        files = [link.partition("#")[0] for link in _LINK.findall(page.prose) if "://" not in link]
        paths = [(page.path.parent / file).resolve() for file in files if file]
        waiting += [path.relative_to(ROOT).as_posix() for path in paths if path.is_relative_to(ROOT)]
    assert sorted(set(_PAGES) - reached) == []


def test_decisions_are_short_and_have_three_parts() -> None:
    for name, page in _PAGES.items():
        if not re.match(r"docs/decisions/\d", name):
            continue
        number = int(Path(name).name[:4])
        assert page.lines[0].startswith(f"# {number}. "), name
        parts = re.findall(r"^\*\*(\w+)\.\*\*", page.prose, re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences"], name
        assert len(page.prose.split()) <= 400, name
