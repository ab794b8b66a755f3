"""All bug checks by code, and how a code is looked up."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import (
    codes_0c0,
    codes_0e0,
    codes_000,
    codes_040,
    codes_080,
    codes_100,
    codes_120,
    codes_140,
    codes_180,
    codes_200,
    names_only,
)
from .model import RESERVED, BugCheck

__all__ = ["BUG_CHECKS", "bug_check", "bug_check_name"]

_MODIFIERS = 0x10000000 | 0x80000000
_STATUS = 0xC0000000
_NAME_ONLY = "Microsoft publishes no more than the name."


def _all() -> dict[int, BugCheck]:
    tables = (
        codes_000,
        codes_040,
        codes_080,
        codes_0c0,
        codes_0e0,
        codes_100,
        codes_120,
        codes_140,
        codes_180,
        codes_200,
    )
    rows = [row for table in tables for row in table.CODES]
    rows += [BugCheck(code, name, _NAME_ONLY, (RESERVED,) * 4) for code, name in names_only.NAMES.items()]
    found = {row.code: row for row in rows}
    assert len(found) == len(rows), "a code stands in two tables"
    return dict(sorted(found.items()))


BUG_CHECKS: Mapping[int, BugCheck] = MappingProxyType(_all())
"""Every published bug check, by ascending code."""


def bug_check(code: int) -> BugCheck | None:
    """What is published of a code; None where nothing is.

    Bits 0x10000000 and 0x80000000 only say how a bug check was reached (kd-protocol 7.5): a code that is not
    published with them is looked up without them.
    """
    code &= 0xFFFFFFFF
    if code in BUG_CHECKS or code & _STATUS == _STATUS:
        return BUG_CHECKS.get(code)
    return BUG_CHECKS.get(code & ~_MODIFIERS)


def bug_check_name(code: int) -> str:
    """Microsoft's name of a code; `BUG CHECK 0x…` for one that is not published."""
    found = bug_check(code)
    return found.name if found else f"BUG CHECK {code & 0xFFFFFFFF:#x}"
