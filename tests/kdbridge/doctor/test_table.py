"""The table of verdicts is whole: each has a cause, a cure and an exit code, and somebody says it."""

from __future__ import annotations

import re

import pytest

from kdbridge.doctor.table import FINDING, HEALTHY, NOBODY, TABLE
from tests.house.tree import ROOT


@pytest.mark.parametrize("name", TABLE)
def test_an_entry_says_what_why_and_what_to_do(name: str) -> None:
    entry = TABLE[name]
    assert entry.name == name
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
    assert entry.title and not entry.title.endswith(".")
    assert entry.cause.endswith(".") and entry.cure.endswith(".")
    assert entry.exit_code in (HEALTHY, FINDING, NOBODY)


def test_every_verdict_is_said_somewhere() -> None:
    said = (ROOT / "kdbridge/doctor/verdicts.py").read_text(encoding="utf-8")
    assert [name for name in TABLE if f'"{name}"' not in said] == []


def test_who_is_well_and_who_is_not_there() -> None:
    assert {name for name, entry in TABLE.items() if entry.exit_code == HEALTHY} == {
        "stopped", "running", "booting", "dumping", "asking",
    }  # fmt: skip
    assert {name for name, entry in TABLE.items() if entry.exit_code == NOBODY} == {
        "silence", "nobody-connected", "network",
    }  # fmt: skip
