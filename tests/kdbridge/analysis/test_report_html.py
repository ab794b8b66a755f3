"""The page: well-formed, self-contained, and no name can become anything but text. In a browser: test_browser.py."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from kdbridge.analysis.model import Analysis
from kdbridge.analysis.report_html import html_page
from tests.kdbridge.analysis.filled import EVIL, bare, filled

_VOID = {"meta", "link", "br", "wbr", "rect"}
_KNOWN = {
    "html", "head", "meta", "title", "style", "link", "body", "main", "section", "h1", "h2", "h3", "p", "span", "dl",
    "dt", "dd", "code", "pre", "div", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "ul", "li",
    "br", "wbr", "small", "footer", "svg", "rect", "text",
}  # fmt: skip
_ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "rel", "href", "class", "scope", "tabindex", "open", "viewbox",
    "role", "aria-label", "aria-hidden", "x", "y", "width", "height", "text-anchor",
}  # fmt: skip


class _Reader(HTMLParser):
    """Another reader of HTML (Python's): elements, attributes, text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text: list[str] = []
        self.problems: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


@pytest.mark.parametrize("analysis", [filled(), bare()], ids=["filled", "bare"])
def test_the_page_is_well_formed_and_asks_for_nothing(analysis: Analysis) -> None:
    page = html_page(analysis)
    reader = _Reader(page)
    assert (reader.problems, reader.open) == ([], [])
    assert reader.tags - _KNOWN == set(), "nothing that runs, fetches or frames"
    assert reader.attributes - _ATTRIBUTES == set(), "no handler, no style"
    assert reader.links == ["data:,"]
    assert "url(" not in page and "@import" not in page
    assert "default-src 'none'" in page


def test_names_of_a_target_are_text_and_nothing_else() -> None:
    page = html_page(filled())
    reader = _Reader(page)
    shown = "".join(reader.text)
    harmless = EVIL.replace("\x1b", ".").replace("\x07", ".").replace("\u202e", ".")
    # In a stack, the modules, unloaded ones, processes, prints, hex view, SMBIOS, what is missing.
    assert shown.count(harmless) > 12
    assert "<script" not in page and "<img" not in page and "\x1b" not in page and "\u202e" not in page


def test_every_text_of_an_analysis_may_be_hostile() -> None:
    """No place of the page forgets to make it harmless."""
    analysis = filled()
    system = replace(analysis.system, windows=EVIL, build_lab=EVIL, product=EVIL, system_root=EVIL, vendor=EVIL,
                     firmware=((EVIL, EVIL),))  # fmt: skip
    assert analysis.bug_check is not None and analysis.crash is not None and analysis.suspect is not None
    assert analysis.stack is not None
    check = replace(analysis.bug_check, name=EVIL, meaning=EVIL, parameters=tuple(
        replace(one, words=EVIL, region=EVIL, kind=EVIL) for one in analysis.bug_check.parameters))  # fmt: skip
    operand = replace(analysis.crash.instructions[0].operands[0], expression=EVIL, access=EVIL)
    crash = replace(
        analysis.crash,
        origin=EVIL,
        passed_over=(EVIL,),
        instructions=(replace(analysis.crash.instructions[0], text=EVIL, operands=(operand,)),),
    )
    stack = replace(analysis.stack, ended=EVIL, frames=tuple(replace(one, note=EVIL) for one in analysis.stack.frames))
    images = tuple(replace(one, version=EVIL, company=EVIL, description=EVIL, because=EVIL, pdb_name=EVIL)
                   for one in analysis.images)  # fmt: skip
    assert analysis.current is not None
    page = html_page(
        replace(
            analysis, source=EVIL, system=system, bug_check=check, crash=crash, stack=stack, images=images,
            bucket=EVIL, suspect=replace(analysis.suspect, module=EVIL, rule=EVIL, why=EVIL), console=EVIL,
            current=replace(analysis.current, state=EVIL), print_buffer=EVIL,
            pieces=tuple((EVIL, at, data) for _, at, data in analysis.pieces),
        )
    )  # fmt: skip
    reader = _Reader(page)
    assert reader.problems == [] and reader.tags - _KNOWN == set() and reader.attributes - _ATTRIBUTES == set()
    assert "\x1b" not in page and "\u202e" not in page


def test_guessed_frames_and_the_suspect_stand_out() -> None:
    page = html_page(filled())
    assert page.count('<tr class="guess">') == 3, "in the stack, of the current thread, of a process's thread"
    assert '<tr class="suspect"><td class="mono name">mydrv.sys' in page
    assert re.search(r'<tr class="hit"><td class="mono">fffff802`14999045', page)


def test_what_is_not_known_leaves_no_empty_part() -> None:
    text = "".join(_Reader(html_page(bare())).text)
    assert "whether there was a bug check is not known" in text
    for title in ("Where it happened", "Unloaded", "Processes", "Physical memory", "Printed", "print buffer"):
        assert title not in text
    assert "<dd></dd>" not in html_page(bare()) and "<ul></ul>" not in html_page(bare())


def test_a_page_of_much_stays_small() -> None:
    analysis = filled()
    images = analysis.images * 200
    page = html_page(replace(analysis, images=images, print_buffer="x\n" * 100_000, pieces=analysis.pieces * 1000))
    assert len(page) < 1 << 20
