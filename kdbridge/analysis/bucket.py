"""The bucket: a stable name for the kind of crash, for programs that sort dumps."""

from __future__ import annotations

import re

from protocol.bugcheck import ParameterKind, bug_check

from .model import Analysis, Place

__all__ = ["bucket_of", "doubt_of"]

_HOW_REACHED = 0x10000000
"""Bit of a code that only says how the bug check was reached: 1000007E is 7E (kd-protocol 7.5)."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_.+-]+")
_LONGEST = 96


def bucket_of(code: int | None, first_parameter: int, place: Place | None) -> str:
    """Bug check, subcode where its first parameter is one, module and offset: "139_3_mydrv+1045".

    "NO_BUGCHECK" where there was none, "UNKNOWN" where nobody knows (`code` None). The same with and without symbols,
    and whatever addresses images were loaded at; changes with the module's build. Only characters that a file name may
    have.
    """
    parts = ["NO_BUGCHECK" if code is not None else "UNKNOWN"]
    if code:
        plain = code & 0xFFFF_FFFF
        if bug_check(plain & ~_HOW_REACHED) is not None and plain >> 28 == 1:
            plain &= ~_HOW_REACHED
        parts = [f"{plain:X}"]
        found = bug_check(plain)
        if found is not None and found.parameters[0].kind is ParameterKind.SUBCODE:
            parts.append(f"{first_parameter:X}")
    if place is None or not place.module:
        parts.append("unknown")
    else:
        parts.append(f"{_UNSAFE.sub('_', place.module)}+{place.offset:x}")
    return "_".join(parts)[:_LONGEST]


def doubt_of(analysis: Analysis) -> str:
    """Why another source of the same crash may give another bucket; empty: nothing speaks for that."""
    if analysis.target.bug_check_code is None:
        return "whether there was a bug check is not known"
    if analysis.suspect is not None:
        return ""
    if analysis.crash is None or not analysis.crash.place.module:
        return "no module could be named"
    if analysis.target.bug_check_code and (analysis.stack is None or not analysis.stack.whole):
        why = f" ({analysis.stack.ended})" if analysis.stack is not None else ""
        return f"no driver was found, and the stack that would show it is not whole{why}"
    return ""
