"""Every trap that the protocol reference calls worth a test has a test named after it, or a reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house.tree import ROOT, table, tracked

_ROW = re.compile(r"^\| (T\d+) \|(.*)\|$", re.MULTILINE)
_NAMED = re.compile(r"^\s*(?:async )?def test_(t\d+)_", re.MULTILINE)


def _marked(reference: str) -> set[str]:
    """The numbers of section 8 whose advice contains the word "Test"."""
    section = reference.partition("\n## 8. ")[2].partition("\n## ")[0]
    rows = {number: re.split(r"(?<!\\)\|", cells) for number, cells in _ROW.findall(section)}
    return {number for number, cells in rows.items() if re.search(r"\bTest\b", cells[1])}


def _named() -> set[str]:
    tests = [name for name in tracked() if name.startswith("tests/") and name.endswith(".py")]
    found = (_NAMED.findall((ROOT / name).read_text(encoding="utf-8")) for name in tests)
    return {number.upper() for numbers in found for number in numbers}


def _by_number(traps: set[str]) -> list[str]:
    return sorted(traps, key=lambda trap: int(trap[1:]))


@pytest.fixture
def marked(shared: Path) -> set[str]:
    """The traps to test."""
    return _marked((shared / "reference/kd-protocol.md").read_text(encoding="utf-8"))


def test_the_reference_is_read_as_it_is_written(marked: set[str]) -> None:
    assert {"T1", "T12", "T24", "T41", "T62"} <= marked
    assert not {"T11", "T14", "T23", "T40", "T69"} & marked


def test_every_trap_has_its_test(marked: set[str]) -> None:
    excused = table("untested_traps.toml")
    missing = marked - _named() - set(excused)
    assert _by_number(missing) == [], "no test is named test_t<number>_… and untested_traps.toml gives no reason"


def test_excuses_are_needed(marked: set[str]) -> None:
    excused = table("untested_traps.toml")
    assert _by_number(set(excused) & _named()) == [], "tested now: take them out of untested_traps.toml"
    assert _by_number(set(excused) - marked) == [], "not marked in the reference: no excuse needed"
    assert [trap for trap, reason in excused.items() if not str(reason).strip()] == []
