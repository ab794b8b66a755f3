"""docs/analysis.md says of rules and marks what the sources say."""

from __future__ import annotations

import re

import pytest

from kdbridge.analysis.bucket import bucket_of
from kdbridge.analysis.model import Certainty, Place, Trust
from kdbridge.analysis.suspect import RULES
from tests.house.tree import ROOT
from tests.kdbridge.analysis.nine import NINE, row, told

_PAGE = (ROOT / "docs/analysis.md").read_text(encoding="utf-8")


def _part(title: str) -> str:
    return _PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_rules_are_told_in_their_order_and_words() -> None:
    told = re.findall(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \|$", _part("Whom to suspect"), re.MULTILINE)
    assert told == [(str(number), rule.name, rule.text) for number, rule in enumerate(RULES, 1)]
    assert all(f"`{one.value}`" in _part("Whom to suspect") for one in Certainty)


def test_every_mark_of_trust_is_told_and_whether_it_is_a_guess() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", _part("Trust"), re.MULTILINE))
    assert set(told) == {one.name.lower() for one in Trust}
    assert {name for name, words in told.items() if "guess" in words} == {
        one.name.lower() for one in Trust if one.guessed
    }


def test_buckets_are_as_shown() -> None:
    shown = re.findall(r"`([0-9A-F]\w*_\w+\+[0-9a-f]+)`", _part("Bucket"))
    made = [bucket_of(0xD1, 0, Place(0, "mydrv", 0x11D7)), bucket_of(0x139, 3, Place(0, "mydrv", 0x1045))]
    assert shown == made
    assert bucket_of(0, 0, None) == "NO_BUGCHECK_unknown" and bucket_of(0x1000007E, 1, None) == "7E_unknown"


@pytest.mark.slow
def test_the_table_of_nine_bug_checks_is_what_analyze_says() -> None:
    assert told() == [row(code) for code in NINE]
