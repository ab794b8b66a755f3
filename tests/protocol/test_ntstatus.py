"""NTSTATUS names against those of Microsoft's SDK (windows_sdk_ntstatus.txt)."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol import ntstatus

_OURS = {0xE06D7363: "CPP_EXCEPTION", 0xE0434352: "CLR_EXCEPTION"}  # not NTSTATUS values: languages chose them


def _published() -> dict[int, set[str]]:
    text = (Path(__file__).parent / "windows_sdk_ntstatus.txt").read_text(encoding="ascii")
    found: dict[int, set[str]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            value, name = line.split()
            found.setdefault(int(value, 16), set()).add(name)
    return found


def test_every_name_is_the_published_one() -> None:
    published = _published()
    ours = {value: name for value, name in ntstatus.STATUS_NAMES.items() if value not in _OURS}
    assert len(ours) > 150
    assert {value: name for value, name in ours.items() if name not in published.get(value, ())} == {}


def test_the_constants_are_the_published_values() -> None:
    published = {name: value for value, names in _published().items() for name in names}
    constants = [name for name in ntstatus.__all__ if name.startswith(("STATUS_", "DBG_")) and name != "STATUS_NAMES"]
    assert constants
    assert {name: getattr(ntstatus, name) for name in constants} == {name: published[name] for name in constants}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0xC0000005, "STATUS_ACCESS_VIOLATION"),
        (0xFFFFFFFF_C0000005, "STATUS_ACCESS_VIOLATION"),  # as a 64-bit bug check parameter
        (-0x3FFFFFFB, "STATUS_ACCESS_VIOLATION"),  # as a signed LONG
        (0x80000003, "STATUS_BREAKPOINT"),
        (0, "STATUS_SUCCESS"),
        (0xFFFFF804_C0000005, None),  # an address that only ends like one
        (0xC0DEC0DE, None),
    ],
)
def test_names_are_found_in_any_width(value: int, name: str | None) -> None:
    assert ntstatus.status_name(value) == name


def test_exceptions_have_names_and_words() -> None:
    worded = [code for code in ntstatus.STATUS_NAMES if ntstatus.exception_words(code)]
    assert len(worded) > 35
    assert ntstatus.exception_words(0xFFFFFFFF_C0000094) == "integer division by zero"
    assert ntstatus.exception_words(0xC0000022) is None, "a status that is no exception"
    assert ntstatus.exception_words(0xFFFFF804_C0000094) is None


def test_the_table_cannot_be_written() -> None:
    with pytest.raises(TypeError):
        ntstatus.STATUS_NAMES[0] = "MINE"  # type: ignore[index]
