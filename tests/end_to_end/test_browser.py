"""The page of an analysis in a real browser: nothing asked of the network, no complaint, no scrolling sideways."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdbridge.analysis.model import Analysis
from kdbridge.analysis.report_html import html_page
from tests.end_to_end.browser import Browser, chromium
from tests.kdbridge.analysis.filled import bare, filled
from tests.kdbridge.cli.calling import call, sim

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

_WIDTHS = (1200, 400)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        reason = "Chromium is not here (make browser installs it on Debian)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with Browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def _page(folder: Path, text: str) -> str:
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    return path.as_uri()


def _look_and_judge(browser: Browser, url: str, width: int) -> str:
    """Open the page, hold it against all that is asked of it, and give its text."""
    seen = browser.look(url, width, script="[document.scripts.length, document.images.length, frames.length]")
    assert seen.requests == [url], "nothing but the page itself was asked for"
    assert seen.complaints == []
    assert seen.scroll_width <= width, "the page scrolls sideways"
    assert seen.wide == [], "these reach beyond the window, and have no box to scroll in"
    assert seen.result == [0, 0, 0], "names of the target became scripts, images or frames"
    return seen.text


@pytest.mark.parametrize("width", _WIDTHS)
@pytest.mark.parametrize("analysis", [filled(), bare()], ids=["filled", "bare"])
def test_a_page_of_hostile_names_is_a_page(browser: Browser, tmp_path: Path, analysis: Analysis, width: int) -> None:
    text = _look_and_judge(browser, _page(tmp_path, html_page(analysis)), width)
    assert ("<script>alert(1)</script>" in text) is (analysis.bug_check is not None)


@pytest.mark.parametrize("width", _WIDTHS)
def test_the_page_that_analyze_writes(browser: Browser, tmp_path: Path, width: int) -> None:
    path = tmp_path / "page.html"
    ended = call("analyze", sim(), "--html", path)
    assert ended.code in (0, 1), ended.err
    text = _look_and_judge(browser, path.as_uri(), width)
    modules = f"Modules ({len(ended.machine.kernel.modules)})"
    for title in ("DRIVER_IRQL_NOT_LESS_OR_EQUAL (d1)", "Where it happened", "Stack of processor 0", modules):
        assert title in text


def test_the_map_of_memory_is_seen(browser: Browser, tmp_path: Path) -> None:
    script = """[...document.querySelectorAll('svg.map rect')].map(one => [
      getComputedStyle(one).fill, one.getBoundingClientRect().width > 0 && one.getBoundingClientRect().height > 0])"""
    seen = {}
    for dark in (False, True):
        shapes = browser.look(_page(tmp_path, html_page(filled())), 400, script=script, dark=dark).result
        assert shapes and all(visible for _, visible in shapes)
        seen[dark] = {fill for fill, _ in shapes}
        assert len(seen[dark]) >= 4, "held, missing, unreadable, inferred: each its colour"
    assert not seen[False] & seen[True] - {"none"}, "other colours in the dark"


def test_what_is_folded_away_on_a_screen_is_printed(browser: Browser, tmp_path: Path) -> None:
    script = "[...document.querySelectorAll('details:not([open])')].map(one => one.getBoundingClientRect().height)"
    url = _page(tmp_path, html_page(filled()))
    folded, printed = (browser.look(url, 1200, script=script, media=media).result for media in ("screen", "print"))
    assert len(folded) == len(printed) > 3
    assert all(height < 60 for height in folded) and all(height > 60 for height in printed)


# ---- that the judge sees what it judges ------------------------------------------------------------------------------


def test_what_is_wrong_with_a_page_is_seen(browser: Browser, tmp_path: Path) -> None:
    url = _page(
        tmp_path,
        "<body><img src='http://127.0.0.1:9/x.png'><div style='width: 2000px'>wide</div>"
        "<script>console.error('oh'); throw new Error('no')</script></body>",
    )
    seen = browser.look(url, 400)
    assert "http://127.0.0.1:9/x.png" in seen.requests
    assert any("oh" in text for text in seen.complaints) and any("no" in text for text in seen.complaints)
    assert seen.scroll_width >= 2000 and "DIV." in seen.wide


def test_what_slipped_into_a_page_would_neither_run_nor_be_fetched(browser: Browser, tmp_path: Path) -> None:
    evil = "<script>window.ran = 1</script><img src='http://127.0.0.1:9/x.png' onerror='window.ran = 2'></main>"
    page = html_page(filled())
    assert "</main>" in page
    seen = browser.look(_page(tmp_path, page.replace("</main>", evil)), 400, script="window.ran || 0")
    assert seen.result == 0
    assert any("Content Security Policy" in text for text in seen.complaints)
